"""The agent's journal: which tasks are here, how far they are, and results that nobody has confirmed yet.

Owns the file `journal.db` (SQLite). Decides nothing: `agent.core` says what is written, `agent.runner` when. One
writer, one transaction per turn of the agent, durable before anything is done outside (invariant 4). WAL with an
exclusive lock keeps the index of the log in memory rather than in a shared mapping, so that home directories on
network file systems work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from farcall.wire.errors import FarcallError

__all__ = [
    "Journal",
    "JournalBatch",
    "JournalDamaged",
    "JournalEntry",
    "JournalUnavailable",
    "NewTask",
    "Phase",
    "StoredTask",
    "count_phases",
]

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
CHECK_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""A file up to this size is checked as a whole when it is opened (SQLite reads about 1 GB/s)."""


SHRINK_BYTES: Final = 64 * 1024 * 1024
"""A file with more unused space than this is made small again when it is opened."""


class Phase(IntEnum):
    """How far a task is at this endpoint."""

    QUEUED = 0
    STARTED = 1
    """Handed to the engine: it may have run."""
    FINISHED = 2
    """Its result is stored here, and nobody has confirmed it yet."""
    CONFIRMED = 3
    """The service has it. Kept for a while, to recognise a late copy of the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalEntry:
    """What is remembered of one task, without its (possibly large) body and result.

    Args:
        seq: the journal's own number; grows with arrival.
        attempts: how often it was handed to the engine and may have run.
        returns: how often it came back from the engine without having run.
        received_s, started_s, confirmed_s: unix seconds; None: not yet.
        body_bytes, result_bytes: sizes of what is stored; 0: nothing (any more).
        notes: what became of each earlier attempt, for the user.
    """

    seq: int
    task_id: str
    function_id: str
    phase: Phase
    attempts: int = 0
    returns: int = 0
    received_s: float = 0.0
    started_s: float | None = None
    confirmed_s: float | None = None
    body_bytes: int = 0
    result_bytes: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NewTask:
    """A task that was not here before: its entry, and the message it came in (`headers` is JSON text)."""

    entry: JournalEntry
    headers: str
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTask:
    """The message a task came in."""

    headers: str
    body: bytes


@dataclass(kw_only=True, slots=True)
class JournalBatch:
    """What one turn changes; written in one transaction, in the order of the members.

    A result may belong to a task of the same batch. Storing a result drops the task's body.
    """

    inserts: list[NewTask] = field(default_factory=list)
    updates: list[JournalEntry] = field(default_factory=list)
    results: list[tuple[int, bytes]] = field(default_factory=list)
    deletes: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.inserts or self.updates or self.results or self.deletes)


class JournalUnavailable(FarcallError):
    """The journal cannot be read or written just now (disk full, quota, permissions). A later try can succeed."""

    code = "JOURNAL_UNAVAILABLE"
    retryable = True

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The endpoint's journal {self.path} cannot be used: {self.reason}. Is the disk full, or over quota?"


class JournalDamaged(FarcallError):
    """The journal's file is no (longer a) sound database."""

    code = "JOURNAL_DAMAGED"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The endpoint's journal {self.path} is damaged: {self.reason}"


class Journal:
    """An open journal. Used by one thread at a time; `Journal.open` opens or makes one."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._db = database

    @classmethod
    def open(
        cls, path: Path, *, owner: Mapping[str, str] | None = None, clock: Callable[[], float] = time.time
    ) -> tuple[Journal, Sequence[JournalEntry], Path | None]:
        """Open the journal, or make an empty one.

        A damaged file, and one that belongs to another `owner`, is moved aside rather than used or deleted.

        Args:
            owner: members that must equal those stored in the file (for example the endpoint's id); a new file
                stores them.
            clock: unix seconds, for the name of a file that is moved aside.

        Returns:
            The journal, what it holds (by `seq`), and where an unusable file was moved to, or None.

        Raises:
            JournalUnavailable: the directory cannot be written, or another process has the journal open.
        """
        try:
            journal, entries = cls._open(path, owner or {})
        except JournalDamaged as exc:
            aside = _move_aside(path, "damaged", clock())
            log.error(
                "The journal was damaged and has been moved aside; the service sends its unfinished tasks again",
                extra={"event": "journal.damaged", "path": str(path), "moved_to": str(aside), "reason": exc.reason},
            )
        except _OtherOwner as exc:
            aside = _move_aside(path, "other", clock())
            log.warning(
                "The journal belonged to another registration and has been moved aside",
                extra={"event": "journal.other_owner", "path": str(path), "moved_to": str(aside), "owner": str(exc)},
            )
        else:
            return journal, entries, None
        journal, entries = cls._open(path, owner or {})
        return journal, entries, aside

    @classmethod
    def _open(cls, path: Path, owner: Mapping[str, str]) -> tuple[Journal, Sequence[JournalEntry]]:
        database = None
        try:
            database = _connect(path)
            _check(database, path)
            _create(database)
            _shrink(database)
            stored = dict(database.execute("SELECT key, value FROM meta"))
            if any(stored.get(key, value) != value for key, value in owner.items()):
                raise _OtherOwner(json.dumps(stored))
            database.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", list(owner.items()))
            return cls(path, database), _load(database)
        except BaseException as exc:
            if database is not None:
                database.close()
            if isinstance(exc, (sqlite3.Error, ValueError, TypeError)):
                raise _translated(exc, path) from exc
            raise

    def write(self, batch: JournalBatch) -> None:
        """Write all of it, or nothing; on disk when this returns.

        Raises:
            JournalUnavailable: it may work later; nothing was written.
            JournalDamaged: it will not work again.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._write(batch)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            raise _translated(exc, self.path) from exc

    def _write(self, batch: JournalBatch) -> None:
        many = self._db.executemany
        if batch.inserts:
            many(_INSERT_TASK, [_row(new.entry) for new in batch.inserts])
            many(
                "INSERT INTO bodies (seq, headers, body) VALUES (?, ?, ?)",
                [(new.entry.seq, new.headers, new.body) for new in batch.inserts if new.entry.body_bytes],
            )
        if batch.updates:
            many(_UPDATE_TASK, [(*_row(entry)[3:], entry.seq) for entry in batch.updates])
        if batch.results:
            many("INSERT OR REPLACE INTO results (seq, body) VALUES (?, ?)", batch.results)
            many("DELETE FROM bodies WHERE seq = ?", [(seq,) for seq, _ in batch.results])
        if batch.deletes:
            gone = [(seq,) for seq in batch.deletes]
            many("DELETE FROM tasks WHERE seq = ?", gone)
            many("DELETE FROM bodies WHERE seq = ?", gone)
            many("DELETE FROM results WHERE seq = ?", gone)

    def tasks(self, seqs: Iterable[int]) -> dict[int, StoredTask]:
        """The messages of these tasks; those that are missing or unreadable are left out."""
        rows = self._read("SELECT headers, body FROM bodies WHERE seq = ?", seqs)
        return {seq: StoredTask(headers=row[0], body=row[1]) for seq, row in rows.items()}

    def results(self, seqs: Iterable[int]) -> dict[int, bytes]:
        """The stored results of these tasks; those that are missing or unreadable are left out."""
        return {seq: row[0] for seq, row in self._read("SELECT body FROM results WHERE seq = ?", seqs).items()}

    def _read(self, statement: str, seqs: Iterable[int]) -> dict[int, tuple[Any, ...]]:
        found: dict[int, tuple[Any, ...]] = {}
        for seq in seqs:
            try:
                row = self._db.execute(statement, (seq,)).fetchone()
            except sqlite3.DatabaseError as exc:
                log.error(
                    "The journal's copy of a task cannot be read",
                    extra={"event": "journal.unreadable", "seq": seq, "reason": str(exc)},
                )
                continue
            if row is not None:
                found[seq] = row
        return found

    def close(self) -> None:
        """Close the file. Callable more than once."""
        self._db.close()

    def move_aside(self, clock: Callable[[], float] = time.time) -> Path:
        """Close a journal that turned out damaged and give it another name, so that the next start has a sound one."""
        self.close()
        return _move_aside(self.path, "damaged", clock())


def count_phases(path: Path) -> Mapping[Phase, int] | None:
    """How many tasks of each phase a journal holds, for people. None: there is none, it is in use, or unreadable."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=1.0)) as found:
            found.execute("PRAGMA locking_mode = EXCLUSIVE")
            rows = found.execute("SELECT phase, COUNT(*) FROM tasks GROUP BY phase").fetchall()
            return {Phase(phase): count for phase, count in rows}
    except (sqlite3.Error, ValueError):
        return None


_COLUMNS = (
    "seq, task_id, function_id, phase, attempts, returns, received_s, started_s, confirmed_s, "
    "body_bytes, result_bytes, notes"
)
_INSERT_TASK = f"INSERT INTO tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_UPDATE_TASK = (
    "UPDATE tasks SET phase = ?, attempts = ?, returns = ?, received_s = ?, started_s = ?, confirmed_s = ?, "
    "body_bytes = ?, result_bytes = ?, notes = ? WHERE seq = ?"
)

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tasks (seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, function_id TEXT NOT NULL, "
    "phase INTEGER NOT NULL, attempts INTEGER NOT NULL, returns INTEGER NOT NULL, received_s REAL NOT NULL, "
    "started_s REAL, confirmed_s REAL, body_bytes INTEGER NOT NULL, result_bytes INTEGER NOT NULL, notes TEXT)",
    # Apart from `tasks`, so that a change of state does not rewrite a body.
    "CREATE TABLE IF NOT EXISTS bodies (seq INTEGER PRIMARY KEY, headers TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS results (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class _OtherOwner(Exception):
    pass


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: no shared memory file then
        mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"journal mode is {mode}, not wal")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 67108864")
        database.execute("PRAGMA cache_size = -4096")  # KiB
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection, path: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise JournalUnavailable(str(path), f"it was written by a newer release (schema {version})")
    if path.stat().st_size <= CHECK_LIMIT_BYTES:
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise JournalDamaged(str(path), verdict)


def _create(database: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        database.execute(statement)


def _shrink(database: sqlite3.Connection) -> None:
    unused = database.execute("PRAGMA freelist_count").fetchone()[0]
    page_bytes = database.execute("PRAGMA page_size").fetchone()[0]
    if unused * page_bytes > SHRINK_BYTES:
        try:
            database.execute("VACUUM")
        except sqlite3.OperationalError as exc:  # it takes as much space again for a moment
            log.warning("The journal was not made smaller.", extra={"event": "journal.large", "reason": str(exc)})


def _load(database: sqlite3.Connection) -> list[JournalEntry]:
    return [
        JournalEntry(
            seq=seq,
            task_id=task_id,
            function_id=function_id,
            phase=Phase(phase),
            attempts=attempts,
            returns=returns,
            received_s=received_s,
            started_s=started_s,
            confirmed_s=confirmed_s,
            body_bytes=body_bytes,
            result_bytes=result_bytes,
            notes=tuple(json.loads(notes)) if notes else (),
        )
        for (
            seq,
            task_id,
            function_id,
            phase,
            attempts,
            returns,
            received_s,
            started_s,
            confirmed_s,
            body_bytes,
            result_bytes,
            notes,
        ) in database.execute(f"SELECT {_COLUMNS} FROM tasks ORDER BY seq")  # noqa: S608 - a constant
    ]


def _row(entry: JournalEntry) -> tuple[object, ...]:
    return (
        entry.seq,
        entry.task_id,
        entry.function_id,
        int(entry.phase),
        entry.attempts,
        entry.returns,
        entry.received_s,
        entry.started_s,
        entry.confirmed_s,
        entry.body_bytes,
        entry.result_bytes,
        json.dumps(entry.notes) if entry.notes else None,
    )


def _translated(exc: Exception, path: Path) -> FarcallError:
    # SQLite's busy, full, readonly, cantopen and ioerr are OperationalError; corrupt and notadb are its base class.
    if isinstance(exc, sqlite3.OperationalError):
        return JournalUnavailable(str(path), str(exc))
    return JournalDamaged(str(path), str(exc))


def _move_aside(path: Path, why: str, now_s: float) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_s))
    target = path.with_name(f"{path.name}.{why}-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{why}-{stamp}-{number}")
    path.rename(target)
    for suffix in ("-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(target.with_name(target.name + suffix))
    return target
