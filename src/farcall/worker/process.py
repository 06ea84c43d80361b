"""One command in a session of its own, with a time limit that ends all of it.

The command's output goes to files, so a process that it leaves in the background holds no pipe that we wait for.
On time-out every process of its session gets SIGTERM, a few seconds of grace, then SIGKILL. A process that has
left the session (`setsid`) is out of reach; a command that ends by itself may leave processes behind, as a shell
lets it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

__all__ = ["TERM_GRACE_S", "run_in_session"]

TERM_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""

_KILL_WAIT_S = 5.0
_POLL_PERIOD_S = 0.02  # only where the kernel has no events for the end of a process
_POLL_LIMIT_S = 1_000_000.0  # poll() takes milliseconds in a C int


def run_in_session(
    argv: Sequence[str],
    *,
    stdout: int,
    stderr: int,
    cwd: str | None,
    env: Mapping[str, str] | None,
    walltime_s: float | None,
    grace_s: float = TERM_GRACE_S,
) -> int | None:
    """Run a command to its end, or to the end of its time.

    Args:
        stdout, stderr: file descriptors; standard input is empty.
        cwd: None: where this process is.
        env: None: this process's environment.
        walltime_s: None: as long as it takes.
        grace_s: for clean-up, between SIGTERM and SIGKILL.

    Returns:
        The return code, negative for the signal that ended it; None if its time was up.

    Raises:
        OSError: it cannot be started (no such program or directory, command too long).
        BaseException: what interrupts the waiting (a task's time-out, Ctrl-C); the session is ended first.
    """
    import subprocess

    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=cwd, env=env, start_new_session=True
    )
    try:
        if _wait(process, walltime_s):
            return process.returncode
    except BaseException:
        _end_session(process, grace_s)
        raise
    _end_session(process, grace_s)
    return None


def _wait(process: subprocess.Popen[bytes], timeout_s: float | None) -> bool:
    """Whether the process ended in time. If it did not, it has not been reaped, so its id is still its own."""
    import subprocess

    if timeout_s is not None and _has_process_events():
        if not _ended([process.pid], timeout_s):
            return False
        timeout_s = None
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_session(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End every process of the session that `process` leads. It is reaped last: that keeps the id from reuse."""
    if process.returncode is not None:
        return
    _signal_session(process.pid, signal.SIGTERM)
    _wait_for_session(process, grace_s)
    _signal_session(process.pid, signal.SIGKILL)
    _wait_for_session(process, _KILL_WAIT_S)
    _signal_session(process.pid, signal.SIGKILL)  # what was forked between the look and the kill
    with contextlib.suppress(Exception):  # a process in uninterruptible sleep is left to the kernel
        process.wait(_KILL_WAIT_S)


def _signal_session(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
    for pid in _session_members(leader):  # those that made a group of their own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _wait_for_session(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    until = monotonic() + timeout_s
    while members := _session_members(process.pid):
        left_s = until - monotonic()
        if left_s <= 0:
            return
        if _has_process_events():
            _ended(members, left_s)
        else:
            sleep(_POLL_PERIOD_S)
    if not os.path.isdir("/proc"):  # then only the leader can be waited for
        with contextlib.suppress(Exception):
            process.wait(timeout_s)


def _session_members(leader: int) -> list[int]:
    """The processes of a session that have not ended; [] where there is no /proc."""
    members = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if not entry.isdecimal():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                # "pid (name) state ppid pgrp session …"; the name may contain anything
                state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(session) == leader and state not in (b"Z", b"X"):
            members.append(int(entry))
    return members


@lru_cache(maxsize=1)
def _has_process_events() -> bool:
    """Whether the kernel tells when a process ends (Linux 5.3; some containers forbid it). Else we must poll."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _ended(pids: Sequence[int], timeout_s: float) -> bool:
    """Wait until all of these processes have ended (they need not be our children); False: time was up."""
    import select

    until = monotonic() + timeout_s
    poll = select.poll()
    descriptors: set[int] = set()
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                descriptors.add(descriptor)
                poll.register(descriptor, select.POLLIN)
        waiting = set(descriptors)
        while waiting:
            left = min(until - monotonic(), _POLL_LIMIT_S)
            if left <= 0:
                return False
            for descriptor, _ in poll.poll(left * 1000 + 1):
                poll.unregister(descriptor)
                waiting.discard(descriptor)
        return True
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
