"""Sessions with the database that may be lost: the writer's, which finds out what became of its last commit, and
the readers'. With SQLite, which is a file, nothing here ever happens.

A commit whose answer was lost may have been carried out. Its callers are told that the database does not answer
(they ask again, and idempotency makes that harmless); but what follows a commit, such as publishing the tasks that
were stored, must not be forgotten. So before anything else is written the new session asks for the outcome.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, RootTransaction

from farcall.service.db.errors import StoreMisnamed
from farcall.service.db.migrations import HEAD
from farcall.wire.errors import FarcallError, ServiceUnavailable

if TYPE_CHECKING:
    from types import ModuleType

    from farcall.service.db.postgres import Commit

__all__ = [
    "SessionLost",
    "Told",
    "WriterSession",
    "connect_reader",
    "is_lost",
    "is_postgres_url",
    "is_text_fault",
    "let_go",
    "no_answer",
    "reason_of",
    "postgres",
]

_logger = logging.getLogger(__name__)

Told = tuple[Callable[[Any], None], Any]
"""What is to be called after a commit, and with what."""


class SessionLost(Exception):
    """The session with the database ended in the middle.

    Attributes:
        is_unsettled: in the commit, so that nobody knows yet whether it was carried out.
    """

    def __init__(self, *, is_unsettled: bool) -> None:
        super().__init__(is_unsettled)
        self.is_unsettled = is_unsettled


class WriterSession:
    """The writing thread's connection: opened when it is needed, replaced when lost. No other session writes, or,
    if the database is shared, no other writes at the same time.

    Args:
        is_shared: with other processes, that say so as well; PostgreSQL only.
    """

    def __init__(self, engine: Engine, *, is_shared: bool = False) -> None:
        self._engine = engine
        self._is_postgres = _is_postgres(engine)
        self._is_shared = is_shared and self._is_postgres
        self._connection: Connection | None = None
        self._backend: int | None = None
        self._unsettled: tuple[Commit, Sequence[Told]] | None = None
        self._settled: Sequence[Told] = ()
        self._is_away = False

    @property
    def is_unsettled(self) -> bool:
        """Whether the outcome of a commit is not known yet."""
        return self._unsettled is not None

    def connection(self) -> Connection:
        """The connection. Raises ServiceUnavailable if there is none to be had."""
        if self._connection is None:
            try:
                self._connection = self._open()
            except Exception as exc:
                self._went_away(exc)
                raise no_answer() from None  # the reason is in the log, once
            if self._is_away:
                self._is_away = False
                _logger.warning("The database answers again", extra={"event": "db.back"})
        return self._connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[RootTransaction]:
        """A transaction that is rolled back at the end unless it was committed. Begins when it is our turn.

        Raises:
            SessionLost: the database went away.
            ServiceUnavailable: it does not answer, or another process does not end its turn.
        """
        connection = self.connection()
        transaction = connection.begin()
        try:
            if self._is_shared and not postgres().take_turn(connection):
                _logger.error("Another process does not end its turn", extra={"event": "db.no_turn"})
                raise no_answer()
            yield transaction
        except SessionLost:
            raise
        except Exception:
            self.check()
            raise
        finally:
            if self._connection is not None and transaction.is_active:
                transaction.rollback()

    def check(self) -> None:
        """To be called in the handler of an error. Raises SessionLost if that is what is behind it."""
        if self._connection is not None and is_lost(self._connection):
            self._lose(is_unsettled=False)

    def commit(
        self, transaction: RootTransaction, told: Callable[[], Sequence[Told]], texts: Sequence[str] = ()
    ) -> None:
        """Commit. Raises SessionLost.

        Args:
            told: what is to be done if this turns out to have been committed after the session was lost.
            texts: what other processes are told if it is committed.
        """
        if not self._is_postgres:
            try:
                transaction.commit()
            except Exception:
                self._discard()  # a transaction whose commit failed neither goes on nor ends
                raise
            return
        assert self._connection is not None
        mark: Commit | None = postgres().begin_commit(self._connection, texts)
        try:
            transaction.commit()
        except Exception:
            if not is_lost(self._connection):
                raise
            if mark is not None:
                self._unsettled = (mark, told())
            self._lose(is_unsettled=mark is not None)

    def take_settled(self) -> Sequence[Told]:
        """What a lost commit has turned out to have left to do. Once."""
        settled, self._settled = self._settled, ()
        return settled

    def close(self) -> None:
        if self._connection is not None:
            let_go(self._connection)
            self._connection = None

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            let_go(connection)

    def _open(self) -> Connection:
        connection = self._engine.connect()
        if not self._is_postgres:
            return connection.execution_options(farcall_writes=True)
        try:
            self._backend = postgres().hold_database(
                connection, self._backend, is_shared=self._is_shared, revision=HEAD
            )
            if self._unsettled is not None:
                mark, told = self._unsettled
                was_committed = postgres().was_committed(connection, mark, is_shared=self._is_shared)
                self._unsettled = None
                if was_committed:
                    self._settled = told
                _logger.warning(
                    "The outcome of the commit that was under way when the database went is known",
                    extra={"event": "db.settled", "was_committed": was_committed},
                )
        except BaseException:
            let_go(connection)
            raise
        return connection

    def _lose(self, *, is_unsettled: bool) -> None:
        """Raises SessionLost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            let_go(connection)
        _logger.warning("The session with the database was lost", extra={"event": "db.lost", "in_commit": is_unsettled})
        raise SessionLost(is_unsettled=is_unsettled)

    def _went_away(self, exc: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            reason = reason_of(exc)
            _logger.error("The database does not answer", extra={"event": "db.away", "reason": reason})


def connect_reader(engine: Engine) -> Connection:
    """A connection for reading: all statements of a transaction see the same state."""
    connection = engine.connect()
    if _is_postgres(engine):
        connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return connection


def is_lost(connection: Connection) -> bool:
    """Whether the session is over, so that nothing more can be asked of it."""
    return _is_postgres(connection) and bool(postgres().is_lost(connection))


def is_text_fault(connection: Connection, exc: BaseException) -> bool:
    """Whether a text cannot be kept by this database."""
    return _is_postgres(connection) and bool(postgres().is_text_fault(exc))


def let_go(connection: Connection) -> None:
    """Close a connection in whatever state it is."""
    with contextlib.suppress(Exception):
        if is_lost(connection):
            connection.invalidate()
    with contextlib.suppress(Exception):
        connection.close()


def no_answer() -> ServiceUnavailable:
    """What callers are told; the log says more."""
    return ServiceUnavailable("The service's database does not answer just now. Send the request again in a moment.")


def reason_of(exc: BaseException) -> str:
    """One line for the operator; drivers repeat no password."""
    if isinstance(exc, FarcallError):
        return str(exc)
    text = str(getattr(exc, "orig", None) or exc)
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())[:500] or type(exc).__name__


def is_postgres_url(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def postgres() -> ModuleType:
    """The module `postgres`, loaded when a store is PostgreSQL. Raises StoreMisnamed if its driver is missing."""
    try:
        from farcall.service.db import postgres as module
    except ImportError as exc:
        raise StoreMisnamed(
            "A store on PostgreSQL needs the driver psycopg: pip install 'farcall[service,postgres]'."
        ) from exc
    return module


def _is_postgres(thing: Engine | Connection) -> bool:
    return thing.dialect.name == "postgresql"
