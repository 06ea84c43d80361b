"""Starting an endpoint in the background: a fresh process in a session of its own that says when it is ready.

The child writes what happens as JSON lines into a pipe; the parent passes it on until the child is ready or has
ended. Nothing is forked from a process with threads, and nobody polls.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Outcome", "PipeAnnouncer", "start_in_background"]


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


def start_in_background(arguments: Sequence[str], *, output: Path, on_message: Callable[[str, str], None]) -> Outcome:
    """Run `farcall-endpoint ARGUMENTS… --ready-fd N` and wait until it is online or has ended.

    Args:
        output: what the child prints is appended there.
        on_message: told each thing that an announcer is told: its name and text.

    Raises:
        KeyboardInterrupt: Ctrl-C; the child was asked to stop, and has.
    """
    read_fd, write_fd = os.pipe()
    with output.open("ab") as log, os.fdopen(read_fd, "r", encoding="utf-8") as messages:
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
            for line in messages:
                kind, text = json.loads(line)
                on_message(kind, text)
                if kind == "online":
                    return Outcome(pid=child.pid, status=None)
            return Outcome(pid=child.pid, status=child.wait())
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
