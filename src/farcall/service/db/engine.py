"""The database as the event loop sees it: `read` on a small pool of threads, `write` with group commit.

One thread writes. It takes whatever has gathered, runs the units one after another in one transaction, commits
once, and tells the loop once. So a commit's cost (the disk) is shared by everybody who came while the previous one
was under way, and nobody waits for a timer. Statements themselves are in the `store` modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from farcall.service.db import sessions
from farcall.service.db.errors import StoreMisnamed
from farcall.wire.errors import FarcallError, InvalidRequest, ServiceUnavailable

__all__ = ["Database", "make_engine"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")
_GROUP_UNITS = 256
"""Units in one transaction at most, so that the first does not wait for very many."""
_SETTLE_S = 1.0
"""After a commit of unknown outcome only: how often the database is asked what became of it."""


@dataclass(slots=True)
class _Unit:
    run: Callable[..., Any]
    args: tuple[Any, ...]
    savepoint: bool
    then: Callable[[Any], None] | None
    announce: Callable[[Any], Iterable[Any]] | None
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = field(default=None)


class Database:
    """The store of one service. Made and closed on the event loop.

    Args:
        url: of SQLite (a file) or PostgreSQL, with a schema that `migrate` made.
        readers: threads for reading.
        pack: makes texts for other processes (see `db.listener`) of what the units of a transaction announce.
            None: no other process uses the store, and nothing is announced.
    """

    def __init__(
        self, url: str, *, readers: int = 2, pack: Callable[[Sequence[Any]], Sequence[str]] | None = None
    ) -> None:
        self._pack = pack
        self._engine = make_engine(url, pool_size=readers + 1)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="farcall-db-read")
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._units: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.on_group: Callable[[int, float], None] = lambda units, seconds: None
        """Told of each transaction: its units, and how long it took. On the event loop."""
        self._writer = threading.Thread(target=self._write_loop, name="farcall-db-write", daemon=True)
        self._writer.start()

    async def read(self, run: Callable[..., T], *args: Any) -> T:
        """Run `run(connection, *args)` on a reading thread. It sees everything committed before the call.

        It may run twice, if the session turns out to be lost.

        Raises:
            ServiceUnavailable: the database does not answer.
        """
        return await self._loop.run_in_executor(self._readers, self._read, run, args)

    async def write(
        self,
        run: Callable[..., T],
        *args: Any,
        savepoint: bool = False,
        then: Callable[[T], None] | None = None,
        announce: Callable[[T], Iterable[Any]] | None = None,
    ) -> T:
        """Run `run(connection, *args)` on the writing thread; returns after the commit.

        The unit may run more than once before it is committed, so it must have no effect but on the connection.
        Once this has been called the unit will run, even if the caller is cancelled.

        Args:
            savepoint: give the unit a savepoint of its own. Without one, a unit may raise a `FarcallError` only
                *before* it writes (a refusal); with one, at any time. Any other exception is a fault: the unit is
                undone, and the others of its transaction are run again.
            then: called on the event loop with the result, in the order of the commits, before this returns.
            announce: what the other processes are told with the commit, given the result; called on the writing
                thread, and only if there can be others.

        Raises:
            ServiceUnavailable: the transaction cannot be committed (disk full, database gone).
            FarcallError: what the unit raised; nothing of it is stored.
        """
        future = self._loop.create_future()
        if self._closed:
            raise ServiceUnavailable("The service is stopping; send the request again in a moment.")
        self._units.put(_Unit(run, args, savepoint, then, announce, future))
        return await future  # type: ignore[no-any-return]  # what `run` returned

    async def close(self) -> None:
        """Finish what has been accepted, then let go of the database."""
        if self._closed:
            return
        self._closed = True
        self._units.put(None)
        await self._loop.run_in_executor(None, self._writer.join)
        await self._loop.run_in_executor(None, self._readers.shutdown)
        for connection in self._connections:
            sessions.let_go(connection)
        self._engine.dispose()

    # Reading threads.

    def _read(self, run: Callable[..., T], args: tuple[Any, ...]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            try:
                return _in_transaction(connection, run, args)
            except Exception:
                if not sessions.is_lost(connection):
                    raise
                # Nobody has seen anything of this reading, and the database may have been restarted long ago.
                self._connections.remove(connection)
                self._local.connection = None
                sessions.let_go(connection)
        try:
            connection = sessions.connect_reader(self._engine)
        except Exception as exc:
            _logger.debug("No session for reading", extra={"event": "db.no_reader", "reason": sessions.reason_of(exc)})
            raise sessions.no_answer() from None
        try:
            answer = _in_transaction(connection, run, args)
        except Exception:
            is_lost = sessions.is_lost(connection)
            sessions.let_go(connection)
            if is_lost:
                raise sessions.no_answer() from None
            raise
        self._local.connection = connection
        self._connections.append(connection)
        return answer

    # The writing thread.

    def _write_loop(self) -> None:
        session = sessions.WriterSession(self._engine, is_shared=self._pack is not None)
        running = True
        while running:
            group, running = self._gather(wait_s=_SETTLE_S if session.is_unsettled else None)
            begun = time.perf_counter()
            if group:
                self._commit(session, group)
            elif session.is_unsettled:
                with contextlib.suppress(Exception):  # logged there; the next round tries again
                    session.connection()
            # What an earlier transaction turned out to have done comes before what this one did.
            self._loop.call_soon_threadsafe(self._told, session.take_settled(), group, time.perf_counter() - begun)
        session.close()

    def _told(self, settled: Sequence[sessions.Told], group: Sequence[_Unit], seconds: float) -> None:
        _resolve(settled, group)
        if group:
            self.on_group(len(group), seconds)

    def _gather(self, wait_s: float | None) -> tuple[list[_Unit], bool]:
        """What has come, at least one unit unless the time is over; and whether more may come."""
        group: list[_Unit] = []
        while len(group) < _GROUP_UNITS:
            try:
                unit = self._units.get_nowait() if group else self._units.get(timeout=wait_s)
            except queue.Empty:
                break
            if unit is None:
                return group, False
            group.append(unit)
        return group, True

    def _commit(self, session: sessions.WriterSession, group: Sequence[_Unit]) -> None:
        try:
            try:
                _run_group(session, group, self._pack)
            except sessions.SessionLost as exc:
                if exc.is_unsettled:
                    raise
                # Lost before the commit: nothing of it is stored, so it is done again, once, in a new session.
                _run_group(session, group, self._pack)
        except sessions.SessionLost:
            _fail(group, sessions.no_answer())
        except ServiceUnavailable as exc:
            _fail(group, exc)
        except Exception as exc:
            _logger.exception("A transaction could not be committed", extra={"event": "db.commit_failed"})
            _fail(group, _unavailable(exc))


def _in_transaction(connection: Connection, run: Callable[..., T], args: tuple[Any, ...]) -> T:
    with connection.begin():
        return run(connection, *args)


_Pack = Callable[[Sequence[Any]], Sequence[str]]


def _run_group(session: sessions.WriterSession, group: Sequence[_Unit], pack: _Pack | None) -> None:
    """Run the units and commit, whether or not some of them fail. Raises what `_try_group` raises."""
    for savepoints in (False, True):
        for unit in group:
            unit.result = unit.error = None
        if _try_group(session, group, pack, savepoints=savepoints):
            break


def _fail(group: Sequence[_Unit], error: FarcallError) -> None:
    for unit in group:
        # A unit that was refused keeps its answer; nothing of the others is stored.
        if unit.error is None:
            unit.error = error


def _try_group(
    session: sessions.WriterSession, group: Sequence[_Unit], pack: _Pack | None, *, savepoints: bool
) -> bool:
    """Run the units in one transaction. False: one failed and spoilt it, nothing is stored.

    Raises:
        SessionLost: the database went away.
        ServiceUnavailable: it does not answer.
    """
    connection = session.connection()
    with session.transaction() as transaction:
        for unit in group:
            try:
                if savepoints or unit.savepoint:
                    with connection.begin_nested():
                        unit.result = unit.run(connection, *unit.args)
                else:
                    unit.result = unit.run(connection, *unit.args)
            except FarcallError as exc:
                unit.error = exc
            except Exception as exc:
                session.check()
                unit.error = _error_of_unit(connection, exc)
                if not (savepoints or unit.savepoint):
                    transaction.rollback()
                    return False
        texts: Sequence[str] = ()
        if pack is not None:
            texts = pack([each for u in group if u.error is None and u.announce for each in u.announce(u.result)])
        session.commit(transaction, lambda: [(u.then, u.result) for u in group if u.error is None and u.then], texts)
    return True


def _resolve(settled: Sequence[sessions.Told], group: Sequence[_Unit]) -> None:
    for then, result in settled:
        _tell(then, result)
    for unit in group:
        if unit.error is not None:
            if not unit.future.done():
                unit.future.set_exception(unit.error)
            continue
        if unit.then is not None:
            _tell(unit.then, unit.result)
        if not unit.future.done():
            unit.future.set_result(unit.result)


def _tell(then: Callable[[Any], None], result: Any) -> None:
    try:
        then(result)
    except Exception:
        _logger.exception("What follows a commit failed", extra={"event": "db.then_failed"})


def _error_of_unit(connection: Connection, exc: Exception) -> Exception:
    """What the caller of a unit that failed is told."""
    if sessions.is_text_fault(connection, exc):
        return InvalidRequest("A text in the request cannot be stored: it is too long, or has a NUL character in it.")
    _logger.exception("A unit of writing failed", extra={"event": "db.unit_failed"})
    return _unavailable(exc) if _is_operational(connection, exc) else exc


def _is_operational(connection: Connection, exc: BaseException) -> bool:
    """Whether the database, not the unit, is in trouble: locked, full, gone. Statements may be the driver's own."""
    driver: Any = connection.dialect.loaded_dbapi
    return isinstance(exc, (OperationalError, driver.OperationalError))


def _unavailable(exc: BaseException) -> ServiceUnavailable:
    reason = (str(getattr(exc, "orig", None) or exc).splitlines() or [type(exc).__name__])[0]
    return ServiceUnavailable(f"The service cannot write to its database ({reason[:200]}). Try again later.")


def make_engine(url: str, *, pool_size: int = 1) -> Engine:
    """An engine whose transactions behave alike on both databases, durable after each commit.

    Raises:
        StoreMisnamed: the URL is of neither, cannot be understood, or the driver is not installed.
    """
    if sessions.is_postgres_url(url):
        made: Engine = sessions.postgres().make_postgres_engine(url)
        return made
    if not url.startswith("sqlite:///"):
        raise StoreMisnamed("The store is named by a URL that begins with postgresql:// or sqlite:///.")
    engine = create_engine(url, pool_size=pool_size, connect_args={"check_same_thread": False}, hide_parameters=True)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves: the module would begin them too late
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout = 10000",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "cache_size = -8000",
        "temp_store = MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # Who writes waits for its turn at the beginning: commands of the operator write too, and a transaction that has
    # read before somebody else wrote could not write any more.
    writes = connection.get_execution_options().get("farcall_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
