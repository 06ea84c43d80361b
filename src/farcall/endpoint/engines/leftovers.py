"""Processes on this machine that carry an engine's marker in their environment: the workers, and all they started.

What a task starts inherits its environment, whatever session or parent it has later; so nothing is missed but a program
that was started with an environment of its own.
"""

from __future__ import annotations

import os
import signal
import time

from farcall.worker.pool import WORKER_VARIABLE

__all__ = ["end_marked", "marked"]

_LOOK_S = 0.05


def marked(marker: str) -> list[int]:
    """Ids of the living processes of this user with this marker; [] where there is no /proc."""
    wanted = f"{WORKER_VARIABLE}={marker}".encode()
    found = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as environment:
                if wanted in environment.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            continue  # another user's, or ended
    return found


def end_marked(marker: str, *, grace_s: float) -> int:
    """Give them `grace_s` seconds to end by themselves, then end them.

    Returns:
        How many had to be ended.
    """
    until = time.monotonic() + grace_s
    while (left := marked(marker)) and time.monotonic() < until:
        time.sleep(_LOOK_S)  # not our children: nobody tells us
    killed = 0
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except OSError:
                continue
        time.sleep(_LOOK_S)
        left = [pid for pid in marked(marker) if pid not in left]
    return killed
