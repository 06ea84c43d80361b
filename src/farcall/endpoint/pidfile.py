"""`daemon.pid`: one process per endpoint, and what others can see of it.

The process holds a lock on the file for as long as it lives, so a file left by a killed process never blocks. The
content is for people and commands: process id, host, and whether it is connected. Written in place (the lock belongs
to the file); removed by an orderly end, so that what is left tells of one that was not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from farcall.wire.errors import FarcallError

__all__ = ["AlreadyRunning", "PidFile", "RunningProcess", "running_process"]


@dataclass(frozen=True, kw_only=True)
class RunningProcess:
    """Who holds an endpoint. `pid` is None if the file does not say (it is just being written)."""

    pid: int | None
    host: str
    is_connected: bool

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, so that its process id means something."""
        return self.host == socket.gethostname()


class AlreadyRunning(FarcallError):
    """A process works this endpoint already."""

    code = "ENDPOINT_ALREADY_RUNNING"

    def __init__(self, name: str, pid: int | None, host: str) -> None:
        super().__init__(name, pid, host)
        self.name = name
        self.pid = pid
        self.host = host

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid is not None else "another process"
        where = "" if self.host in ("", socket.gethostname()) else f" on {self.host}"
        return (
            f"Endpoint '{self.name}' is already running: {who}{where} works it. "
            f"`farcall-endpoint stop {self.name}` stops it."
        )


class PidFile:
    """The lock of the process that works an endpoint. A context manager: held inside, released and removed after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock and write who we are.

        Raises:
            AlreadyRunning: another process holds it.
            OSError: the file cannot be made.
        """
        # A command that looks whether we run holds the lock for microseconds: hence more than one try.
        for _ in range(3):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError(errno.EINVAL, "is no regular file; remove it", str(self._path))
            if _try_lock(fd, fcntl.LOCK_EX):
                if _is_same_file(fd, self._path):
                    self._fd = fd
                    self.write(is_connected=False)
                    return
                os.close(fd)  # an ending process removed the file between our opening and locking it
                continue
            holder = _read(fd)
            os.close(fd)
        raise AlreadyRunning(self._path.parent.name, holder.pid, holder.host)

    def write(self, *, is_connected: bool) -> None:
        """Say whether we are connected; nothing happens if the lock is not held."""
        if self._fd is None:
            return
        state = "connected" if is_connected else "disconnected"
        text = f"{os.getpid()}\n{socket.gethostname()}\n{state}\n".encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """End in order: remove the file and give up the lock."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        self._path.unlink(missing_ok=True)
        os.close(fd)

    def __enter__(self) -> PidFile:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def running_process(path: Path) -> RunningProcess | None:
    """Who works the endpoint with this `daemon.pid`; None if nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(fd, fcntl.LOCK_SH) else _read(fd)
    finally:
        os.close(fd)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            return kind == fcntl.LOCK_EX  # a file system without locks: better to start than to refuse for ever
        raise
    return True


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _read(fd: int) -> RunningProcess:
    lines = os.pread(fd, 4096, 0).decode("utf-8", "replace").split("\n")
    lines += [""] * 3
    pid = int(lines[0]) if lines[0].strip().isdigit() else None
    return RunningProcess(pid=pid, host=lines[1].strip(), is_connected=lines[2].strip() == "connected")
