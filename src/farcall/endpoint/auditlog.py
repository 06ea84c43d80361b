"""The endpoint's audit log: one line for every state of every task, on disk before the state takes effect.

What happens to tasks is `agent.core`'s to say; here is the file. Each line stands for itself:

    2026-11-23T02:31:07.123456+01:00 uid=1001 pid=4711 uep=<endpoint> fid=<function> tid=<task> bid= jid= EXEC_START

Source: feature table, many-user manager, audit log. `bid` and `jid` (block and batch job) are known only to the worker,
which says them with its result: so they stand in the line of the end, and are empty in those before it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final

from farcall.wire.errors import FarcallError

__all__ = ["AuditEntry", "AuditLog", "AuditLogUnwritable", "AuditState"]

_log = logging.getLogger(__name__)

_OF_A_TASK: Final = re.compile(r"fid=[\w.:-]* tid=[\w.:-]* bid=[\w.:-]* jid=[\w.:-]* [A-Z_]{1,32}", re.ASCII)
_UNREADABLE: Final = "fid= tid= bid= jid= UNREADABLE"


class AuditState(str, Enum):
    """Where a task is, in the words of the log.

    A task may be RECEIVED and EXEC_START several times: whenever it comes back unfinished and is run again.
    """

    RECEIVED = "RECEIVED"
    """Here, and waiting for a worker."""
    EXEC_START = "EXEC_START"
    """Given to the engine, whose workers run it."""
    EXEC_END = "EXEC_END"
    """Over: done, failed, refused or cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """One line to be. Ids may be empty where a message did not say them; `block`, `job`: where it ran, if it did."""

    task_id: str
    function_id: str
    state: AuditState
    block: str = ""
    job: str = ""

    @property
    def text(self) -> str:
        """The line without what it says of the process."""
        return f"fid={self.function_id} tid={self.task_id} bid={self.block} jid={self.job} {self.state.value}"


class AuditLogUnwritable(FarcallError):
    """What happens cannot be recorded, so nothing may happen. The site must act."""

    code = "AUDIT_LOG_UNWRITABLE"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The audit log {self.path} cannot be written ({self.reason}), so the endpoint stops: nothing may run "
            "here unrecorded. Make room or correct `audit_log_path`, then start it again."
        )


class AuditLog:
    """An open audit log. Used by one thread; a context manager that writes where a session begins and ends.

    A file that was moved away (logrotate) is noticed at the next write, and a new one begun.

    Args:
        path: of the file; it is made with mode 0600, its directory must exist.
        endpoint_id: of the endpoint whose tasks are recorded.

    Raises:
        AuditLogUnwritable: at once if the file cannot be opened.
    """

    def __init__(self, path: Path, endpoint_id: str) -> None:
        self._path = path
        self._endpoint_id = endpoint_id
        self._who = f"uid={os.getuid()} pid={os.getpid()}"
        self._fd: int | None = None
        self._open()

    def __enter__(self) -> AuditLog:
        self._write(f"{_now()} {self._who} eid={self._endpoint_id} SESSION_BEGIN\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._write(f"{_now()} {self._who} eid={self._endpoint_id} SESSION_END\n")
        except AuditLogUnwritable as exc:
            _log.error("The end of the session was not recorded.", extra={"event": "audit.failed", "reason": str(exc)})
        finally:
            self._close()

    def write(self, entries: Iterable[AuditEntry]) -> None:
        """Record, and return when it is on disk.

        Raises:
            AuditLogUnwritable: it is not, or not all of it.
        """
        now = _now()
        begin = f"{now} {self._who} uep={self._endpoint_id}"
        lines = [f"{begin} {each.text}\n" for each in entries]
        if lines:
            self._write("".join(lines))

    def write_of(self, user_endpoint_id: str, *, uid: int, pid: int, texts: Iterable[str]) -> None:
        """Record what another process says of tasks of its own: a manager's user endpoint. As `write`."""
        begin = f"{_now()} uid={uid} pid={pid} uep={user_endpoint_id}"
        # Whoever says it must neither begin lines of its own nor say who it is.
        lines = [f"{begin} {each if _OF_A_TASK.fullmatch(each) else _UNREADABLE}\n" for each in texts]
        if lines:
            self._write("".join(lines))

    def _write(self, text: str) -> None:
        data = text.encode("ascii", errors="replace")
        try:
            if self._is_moved():
                self._open()
            assert self._fd is not None
            if os.write(self._fd, data) != len(data):  # what is missing would have to be found out by a reader
                raise AuditLogUnwritable(str(self._path), "only a part of the last lines was written")
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fdatasync(self._fd)
        except OSError as exc:
            raise AuditLogUnwritable(str(self._path), exc.strerror or str(exc)) from exc

    def _is_moved(self) -> bool:
        if self._fd is None:
            return True
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _open(self) -> None:
        self._close()
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise AuditLogUnwritable(str(self._path), exc.strerror or str(exc)) from exc

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="microseconds")
