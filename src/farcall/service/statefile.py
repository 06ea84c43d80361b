"""One service per data directory: a lock that ends with the process, and a file that says where it answers.

The lock is the truth (the kernel lets go of it even after kill -9); `service.json` only tells how to reach who has
it. Imports nothing heavy: `stop` and `status` should be quick.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farcall.wire.errors import FarcallError

__all__ = ["DataDirBusy", "DataDirLock", "ServiceState", "read_state", "running_state", "wait_for_end", "write_state"]

_STATE = "service.json"
_LOCK = "service.lock"


class DataDirBusy(FarcallError):
    """Another service works on this data directory."""

    code = "DATA_DIR_BUSY"

    def __init__(self, data_dir: str, pid: int | None, url: str | None) -> None:
        super().__init__(data_dir, pid, url)
        self.data_dir = data_dir
        self.pid = pid
        self.url = url

    def __str__(self) -> str:
        who = "Another service" if self.pid is None else f"A service (process {self.pid}, {self.url})"
        return (
            f"{who} already uses the data directory {self.data_dir}. Stop it with "
            f"`farcall-service stop --data-dir {self.data_dir}`, or choose another directory with `--data-dir`."
        )


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """Who runs and where. `process_start` tells the process from a later one with the same number; `store` holds no
    password; `tls_cert` is the file with its certificate, empty without TLS.
    """

    pid: int
    process_start: int | None
    url: str
    host: str
    port: int
    amqp_port: int
    started_at: float
    version: str
    log: str
    store: str = ""
    tls_cert: str = ""


class DataDirLock:
    """Held from `acquire` until the process ends, or `release`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises DataDirBusy."""
        fd = os.open(self._data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            state = read_state(self._data_dir)
            raise DataDirBusy(str(self._data_dir), state.pid if state else None, state.url if state else None) from exc
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def write_state(data_dir: Path, state: ServiceState | None) -> None:
    """Replace the state file; None removes it."""
    path = data_dir / _STATE
    if state is None:
        path.unlink(missing_ok=True)
        return
    fd, temporary = tempfile.mkstemp(dir=data_dir, prefix=_STATE)
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(state), file, indent=2)
    os.replace(temporary, path)


def read_state(data_dir: Path) -> ServiceState | None:
    """What the state file says, running or not; None if there is none that can be read."""
    try:
        members: Any = json.loads((data_dir / _STATE).read_text())
        return ServiceState(**members)
    except (OSError, ValueError, TypeError):
        return None


def running_state(data_dir: Path) -> ServiceState | None:
    """The service that runs on this directory; None if none does (a state file may be left from a crash)."""
    if not _is_locked(data_dir / _LOCK):
        return None
    state = read_state(data_dir)
    if state is None or process_start(state.pid) != state.process_start:
        return None  # still starting, or just ending
    return state


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Wait until a process has ended; False if it still runs after `timeout_s`."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))
    finally:
        os.close(fd)


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process (or no /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
