"""The process pool's two kinds of connection: to a worker, and to the process that watches over the workers.

Bytes and frames only; what they mean for a task is `slots`'s and `processes`'s. The other side is
`farcall.worker.pool`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farcall.worker.pool import FRAME_HEADER

__all__ = ["Watcher", "WorkerLink"]

_READ_BYTES = 1 << 18
_CONTROL_LIMIT_BYTES = 64 * 1024
_END_TIMEOUT_S = 10.0


@dataclass(kw_only=True, slots=True)
class WorkerLink:
    """One worker's socket (non-blocking), with what is half sent and half received.

    Args:
        worker: the number by which `slots` knows it.
        seat: which of the pool's places it has; names its log.
        socket: our end.
        log: where its output goes.
    """

    worker: int
    seat: int
    socket: socket.socket
    log: Path
    pid: int = 0
    is_registered: bool = True  # with the engine's selector
    unsent: bytearray = field(default_factory=bytearray)
    _received: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes) -> bool:
        """Queue a frame and send what goes out at once. Returns whether nothing is left."""
        self.unsent += FRAME_HEADER.pack(len(data))
        self.unsent += data
        return self.flush()

    def flush(self) -> bool:
        """Send more of what is queued. Returns whether nothing is left."""
        try:
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]
        except BlockingIOError:
            return False
        except OSError:
            self.unsent.clear()  # the worker has ended; the watcher will say so
        return True

    def receive(self) -> bool:
        """Take in all that has arrived. Returns False once the other end has closed."""
        try:
            while data := self.socket.recv(_READ_BYTES):
                self._received += data
                if len(data) < _READ_BYTES:
                    return True
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def frames(self) -> Iterator[bytes]:
        """The whole frames received so far, each once."""
        header = FRAME_HEADER.size
        while len(self._received) >= header:
            end = header + FRAME_HEADER.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            frame = bytes(memoryview(self._received)[header:end])
            del self._received[:end]
            yield frame

    def end(self) -> None:
        """Let the (idle) worker end."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended already

    def close(self) -> None:
        self.socket.close()


class Watcher:
    """The process that starts workers and watches over them (`farcall.worker.pool`).

    Args:
        runner: `module:function` that runs one task in a worker.
        log: its output is appended there; hardly anything ever is.
        working_dir: its and the workers' current directory.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, *, runner: str, log: Path, working_dir: Path) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "farcall.worker.pool", "--control", str(theirs.fileno()), "--run", runner]
        try:
            with theirs, log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=working_dir,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C in the agent's terminal is the agent's to deal with
                )
        except OSError:
            self.control.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def spawn(self, worker: int, log: Path, end: socket.socket) -> None:
        """Ask for a worker on the other end of `end`'s connection."""
        self._tell({"spawn": worker, "log": str(log)}, end)

    def kill(self, worker: int) -> None:
        """Ask for a worker's end by SIGKILL."""
        self._tell({"kill": worker})

    def hear(self) -> dict[str, Any] | None:
        """The next message; None: the watcher is gone. Call when `control` is readable."""
        try:
            data = self.control.recv(_CONTROL_LIMIT_BYTES)
        except OSError:
            return None
        message: dict[str, Any] | None = json.loads(data) if data else None
        return message

    def end(self) -> int:
        """Make it end all workers and itself; waits for that. Returns its wait status."""
        self.control.close()
        try:
            self._process.wait(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        code = self._process.returncode
        return -code if code < 0 else code << 8

    def _tell(self, message: dict[str, Any], *ends: socket.socket) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], [end.fileno() for end in ends])
        except OSError:
            pass  # it is gone; `hear` says so
