"""One change of the store by a command, whether or not a service runs on it.

It stands back: on SQLite it waits for its turn to write, and on PostgreSQL it takes no part in the writers' lock and
gives up its transaction, and tries again, rather than be in the way of a service.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, text

from farcall.service.db import sessions
from farcall.service.db.engine import make_engine
from farcall.service.db.errors import StoreError, StoreUnreachable
from farcall.service.db.migrations import check_schema
from farcall.service.db.migrations.plan import NEEDED
from farcall.service.db.upkeep import shown_url
from farcall.wire.errors import FarcallError

__all__ = ["SchemaMissing", "administer"]

T = TypeVar("T")

_LOCK_MS: Final = 400
"""PostgreSQL looks for deadlocks after a second; a command that waits no longer than this is never part of one."""
_TRIES: Final = 25


class SchemaMissing(StoreError):
    """The store has no tables yet, or those of an older release."""

    code = "SCHEMA_MISSING"

    def __init__(self, found: str | None) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        if self.found is None:
            return "The store has no tables yet. `farcall-service start` makes them; so does `farcall-service migrate`."
        return (
            f"The store's schema has revision {self.found}, and this release needs {NEEDED}. Stop the service, and "
            "start the new release, or run `farcall-service migrate`."
        )


def administer(url: str, run: Callable[..., T], *args: Any) -> T:
    """Run `run(connection, *args)` in one transaction. It may run more than once before it is committed.

    Raises:
        SchemaMissing: there is nothing to change yet.
        SchemaTooNew: the store is of a newer release.
        StoreError: the database does not let us in, or does not answer.
        FarcallError: what `run` raised; nothing is changed.
    """
    path = url.removeprefix("sqlite:///")
    if path != url and not os.path.exists(path):
        raise SchemaMissing(None)  # connecting would make the file
    engine = make_engine(url)
    try:
        for tries_left in reversed(range(_TRIES)):
            try:
                return _once(engine, url, run, *args)
            except _Waited:
                if not tries_left:
                    raise StoreUnreachable(shown_url(url), "a service was writing all the time; try again") from None
        raise AssertionError("unreachable")
    finally:
        engine.dispose()


class _Waited(Exception):
    """Somebody else held what we need for too long."""


def _once(engine: Engine, url: str, run: Callable[..., T], *args: Any) -> T:
    with _told_apart(url), engine.connect() as plain:
        connection = plain.execution_options(farcall_writes=True)
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_MS}ms'"))
            found = check_schema(connection)
            if found is None or found < NEEDED:
                raise SchemaMissing(found)
            return run(connection, *args)


@contextlib.contextmanager
def _told_apart(url: str) -> Iterator[None]:
    try:
        yield
    except FarcallError:
        raise
    except Exception as exc:
        if getattr(getattr(exc, "orig", None), "sqlstate", None) == "55P03":  # lock_not_available
            raise _Waited from exc
        if not _is_refusal(url, exc):
            raise
        raise StoreUnreachable(shown_url(url), sessions.reason_of(exc)) from exc


def _is_refusal(url: str, exc: Exception) -> bool:
    """Whether it is the database, rather than us, that cannot go on."""
    if sessions.is_postgres_url(url):
        return bool(sessions.postgres().is_refusal(exc))
    return type(exc).__name__ == "OperationalError"
