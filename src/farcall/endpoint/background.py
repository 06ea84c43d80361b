"""Starting an endpoint in the background: a fresh process in a session of its own that says when it is ready.

The child writes what happens as JSON lines into a pipe; the parent passes it on until the child is ready or has
ended, or has waited for others for too long. Nothing is forked from a process with threads, and nobody polls.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farcall.wire.errors import FarcallError

__all__ = ["Outcome", "PipeAnnouncer", "StartTimedOut", "start_in_background"]

LEAST_BROKER_PATIENCE_S: Final = 10.0
"""A broker that answers needs a moment even if nobody wants to wait."""

END_PATIENCE_S: Final = 30.0
"""How long a child that is not wanted any more gets to end in order."""


class StartTimedOut(FarcallError):
    """What an endpoint needs at its start did not answer in time. Nothing was left running."""

    code = "START_TIMED_OUT"
    retryable = True

    def __init__(self, who: str, patience_s: float) -> None:
        super().__init__(who, patience_s)
        self.who = who
        self.patience_s = patience_s

    def __str__(self) -> str:
        span = f" within {self.patience_s:g} s" if self.patience_s else ""
        return (
            f"{self.who[0].upper()}{self.who[1:]} did not answer{span}; the endpoint was not started, and nothing is "
            "left running. `--wait SECONDS` waits longer; without --detach it waits as long as it takes."
        )


class PipeAnnouncer:
    """In the child: tells the parent, as long as there is one."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def notice(self, text: str) -> None:
        self._tell("notice", text)

    def waiting(self, text: str) -> None:
        self._tell("waiting", text)

    def registered(self, endpoint_id: str) -> None:
        self._tell("registered", endpoint_id)

    def connecting(self) -> None:
        self._tell("connecting", "")

    def online(self) -> None:
        self._tell("online", "")
        self._close()

    def failed(self, text: str) -> None:
        self._tell("failed", text)

    def _tell(self, kind: str, text: str) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, (json.dumps([kind, text]) + "\n").encode())
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the child. `status`: its exit status if it ended, None if it is online."""

    pid: int
    status: int | None


def start_in_background(
    arguments: Sequence[str], *, output: Path, on_message: Callable[[str, str], None], patience_s: float
) -> Outcome:
    """Run `farcall-endpoint ARGUMENTS… --ready-fd N` and wait until it is online or has ended.

    Args:
        output: what the child prints is appended there.
        on_message: told each thing that an announcer is told: its name and text.
        patience_s: how long the service may leave it without an answer, and then the broker. What is the endpoint's
            own (`endpoint_setup`, its engine) takes as long as it takes.

    Raises:
        StartTimedOut: one of them did not answer; the child was asked to stop, and has.
        KeyboardInterrupt: Ctrl-C; likewise.
    """
    read_fd, write_fd = os.pipe()
    try:
        with output.open("ab") as log:
            try:
                child = subprocess.Popen(
                    [sys.executable, "-m", "farcall.cli.endpoint", *arguments, "--ready-fd", str(write_fd)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_fd,),
                    cwd="/",  # `-m` makes it an import path: nothing of the user's may lie there
                    start_new_session=True,
                )
            finally:
                os.close(write_fd)
        try:
            return _follow(child, read_fd, on_message, patience_s)
        except (KeyboardInterrupt, StartTimedOut):
            _end(child)
            raise
    finally:
        os.close(read_fd)


def _follow(
    child: subprocess.Popen[bytes], fd: int, on_message: Callable[[str, str], None], patience_s: float
) -> Outcome:
    patience = _Patience(patience_s)
    with _signals_wake() as woken_fd:
        for kind, text in _messages(fd, woken_fd, patience):
            on_message(kind, text)
            if kind == "online":
                return Outcome(pid=child.pid, status=None)
            patience.heard(kind)
    return Outcome(pid=child.pid, status=child.wait())


@contextlib.contextmanager
def _signals_wake() -> Iterator[int]:
    """A descriptor that becomes readable with each signal.

    Without it, a Ctrl-C that comes just before `select` begins is noticed only when `select` ends by other means.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader.fileno()
        finally:
            signal.set_wakeup_fd(before)


class _Patience:
    """For whom the child waits, and until when."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._who = ""
        self._until_s: float | None = None

    def heard(self, kind: str) -> None:
        if kind == "waiting":
            self._begin("the Farcall service", self._patience_s)
        elif kind == "registered":
            self._until_s = None
        elif kind == "connecting":
            self._begin("the service's message broker", max(self._patience_s, LEAST_BROKER_PATIENCE_S))

    def _begin(self, who: str, patience_s: float) -> None:
        self._who, self._until_s = who, time.monotonic() + patience_s

    def left_s(self) -> float | None:
        return None if self._until_s is None else max(0.0, self._until_s - time.monotonic())

    def is_over(self) -> StartTimedOut:
        return StartTimedOut(self._who, self._patience_s)


def _messages(fd: int, woken_fd: int, patience: _Patience) -> Iterator[tuple[str, str]]:
    """What comes, until the child closes its end.

    Raises:
        StartTimedOut: `patience` was over first.
    """
    rest = b""
    while True:
        ready = select.select([fd, woken_fd], [], [], patience.left_s())[0]
        if not ready:
            raise patience.is_over()
        if woken_fd in ready:
            os.read(woken_fd, 64)  # the signal's handler runs now, and raises if it was Ctrl-C
            continue
        chunk = os.read(fd, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            kind, text = json.loads(line)
            yield kind, text


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
