"""Bringing a store's schema up to date, and finding out what is wrong with a store. For operators, before and beside
a service; nothing here is on the way of a task.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, delete, insert, text

from farcall.service.db import sessions
from farcall.service.db.engine import make_engine
from farcall.service.db.errors import StoreBusy, StoreError, StoreReadOnly, StoreUnreachable
from farcall.service.db.migrations import HEAD, SchemaTooNew, migrate, migration_sql, revision_of
from farcall.service.db.tables import settings
from farcall.wire.errors import FarcallError

__all__ = [
    "Finding",
    "check_store",
    "shown_url",
    "upgrade_sql",
    "upgrade_store",
]

_OLDEST_SERVER: Final = 15

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: a short name, stable, for scripts.
        text: what was found.
        remedy: what to do about it; empty if there is nothing to do.
    """

    what: str
    status: Status
    text: str
    remedy: str = ""


def shown_url(url: str) -> str:
    """The store's URL without a password. Raises StoreMisnamed."""
    return str(sessions.postgres().display_url(url)) if sessions.is_postgres_url(url) else url


def upgrade_store(url: str) -> bool:
    """Bring the schema to the newest revision, while no service uses the store. Returns whether that did anything.

    Raises:
        SchemaTooNew: a newer release has used it.
        StoreBusy: a service works on it (PostgreSQL).
        StoreUnreachable: the database refuses, or does not answer.
    """
    engine = make_engine(url)
    try:
        with _told_apart(url), contextlib.ExitStack() as closing:
            if sessions.is_postgres_url(url):
                connection = closing.enter_context(engine.connect())
                sessions.postgres().hold_database(connection)
            return migrate(engine)
    finally:
        engine.dispose()


def upgrade_sql(url: str) -> str:
    """The statements by which `upgrade_store` would change the store; empty if it is up to date."""
    path = url.removeprefix("sqlite:///")
    engine = make_engine(url)
    try:
        with _told_apart(url):
            if path != url and not os.path.exists(path):
                return migration_sql(engine, None)  # connecting would make the file
            with engine.connect() as connection:
                found = revision_of(connection)
            return "" if found == HEAD else migration_sql(engine, found)
    finally:
        engine.dispose()


def check_store(url: str) -> Sequence[Finding]:
    """Look at everything that a service needs of its store. Changes nothing."""
    try:
        where = shown_url(url)
        engine = make_engine(url)
    except StoreError as exc:
        return [Finding(what="store", status="failed", text=str(exc), remedy="Correct --store or FARCALL_STORE.")]
    path = url.removeprefix("sqlite:///")
    if path != url and not os.path.exists(path):
        return [
            Finding(what="store", status="ok", text=f"{where} does not exist yet; `farcall-service start` makes it.")
        ]
    try:
        with engine.connect() as connection:
            findings = [Finding(what="store", status="ok", text=f"{where} answers.")]
            if sessions.is_postgres_url(url):
                findings += _check_server(connection)
            findings += _check_schema(connection)
            return findings
    except Exception as exc:
        text_ = f"{where} cannot be used: {sessions.reason_of(exc)}"
        return [Finding(what="store", status="failed", text=text_, remedy=_remedy_of(exc))]
    finally:
        engine.dispose()


def _check_server(connection: Connection) -> Iterator[Finding]:
    version = _show(connection, "server_version")
    number = int(_show(connection, "server_version_num")) // 10000
    if number < _OLDEST_SERVER:
        remedy = f"Use PostgreSQL {_OLDEST_SERVER} or newer."
        yield Finding(what="server", status="failed", text=f"The server is PostgreSQL {version}.", remedy=remedy)
    else:
        yield Finding(what="server", status="ok", text=f"The server is PostgreSQL {version}.")
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar():
        remedy = "Name the primary, or name both and add target_session_attrs=read-write to the URL."
        yield Finding(what="primary", status="failed", text="The server is a standby.", remedy=remedy)
    encoding = _show(connection, "server_encoding")
    if encoding != "UTF8":
        remedy = "Make the database with ENCODING 'UTF8' TEMPLATE template0."
        yield Finding(what="encoding", status="failed", text=f"The database keeps text as {encoding}.", remedy=remedy)
    unsafe = [name for name in ("fsync", "full_page_writes") if _show(connection, name) == "off"]
    if unsafe:
        text_ = f"{' and '.join(unsafe)} off: a crash of the server or its machine can lose accepted tasks."
        remedy = "Turn both on in postgresql.conf."
        yield Finding(what="durability", status="warning", text=text_, remedy=remedy)
    connection.rollback()
    try:
        sessions.postgres().hold_database(connection, wait=False)
    except StoreBusy as exc:
        yield Finding(what="writer", status="ok", text=f"A service uses it ({exc.holder}).")
    except StoreReadOnly:
        pass  # told above


def _check_schema(connection: Connection) -> Iterator[Finding]:
    found = revision_of(connection)
    connection.rollback()
    if found is None:
        remedy = "`farcall-service start` makes the tables; so does `farcall-service migrate`."
        if connection.dialect.name == "postgresql" and not _may_create(connection):
            text_ = "There are no tables of Farcall in it, and this role may not make any."
            yield Finding(what="schema", status="failed", text=text_, remedy=_OWN_IT)
            return
        yield Finding(what="schema", status="ok", text="There are no tables of Farcall in it yet.", remedy=remedy)
        return
    if found > HEAD:
        yield Finding(what="schema", status="failed", text=str(SchemaTooNew(found)), remedy="Upgrade Farcall.")
        return
    if found < HEAD:
        text_ = f"The schema has revision {found}, and this release needs {HEAD}."
        remedy = "Stop the service and run `farcall-service migrate`, or start the new release, which does it."
        yield Finding(what="schema", status="warning", text=text_, remedy=remedy)
    else:
        yield Finding(what="schema", status="ok", text=f"The schema is up to date (revision {found}).")
    yield _try_to_write(connection)


def _try_to_write(connection: Connection) -> Finding:
    """Write a row, delete it, and take both back."""
    key = f"check-{uuid.uuid4()}"
    try:
        connection.execute(insert(settings).values(key=key, value=""))
        connection.execute(delete(settings).where(settings.c.key == key))
    except Exception as exc:
        text_ = f"It cannot be written to: {sessions.reason_of(exc)}"
        return Finding(what="write", status="failed", text=text_, remedy=_remedy_of(exc))
    finally:
        connection.rollback()
    return Finding(what="write", status="ok", text="It can be written to.")


def _may_create(connection: Connection) -> bool:
    try:
        return bool(connection.execute(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")).scalar())
    finally:
        connection.rollback()


def _show(connection: Connection, name: str) -> str:
    return str(connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar())


@contextlib.contextmanager
def _told_apart(url: str) -> Iterator[None]:
    """What a driver raises becomes an error for the operator. SQLite's stay what they are."""
    try:
        yield
    except FarcallError:
        raise
    except Exception as exc:
        if not sessions.is_postgres_url(url) or not sessions.postgres().is_refusal(exc):
            raise
        raise StoreUnreachable(shown_url(url), sessions.reason_of(exc)) from exc


def _remedy_of(exc: BaseException) -> str:
    reason: Any = sessions.reason_of(exc).lower()
    return next((remedy for sign, remedy in _REMEDIES if sign in reason), "See the server's log.")


_OWN_IT: Final = "Let the service's role own the database: ALTER DATABASE … OWNER TO …."
_REMEDIES: Final = (
    (
        "password authentication failed",
        "Correct the role or the password (PGPASSFILE, PGPASSWORD, FARCALL_STORE).",
    ),
    ("no password supplied", "Give the password by PGPASSFILE or PGPASSWORD, or within FARCALL_STORE."),
    ("no pg_hba.conf entry", "Allow this role, database and address in the server's pg_hba.conf, and reload it."),
    ("does not exist", "Make the role and the database: CREATE ROLE … LOGIN; CREATE DATABASE … OWNER …."),
    ("connection refused", "Start the server; check host, port and listen_addresses."),
    ("could not translate host name", "Correct the host name."),
    ("timeout", "Check that the host is right, and that no firewall is in between."),
    ("timed out", "Check that the host is right, and that no firewall is in between."),
    ("starting up", "Try again in a moment."),
    ("permission denied", _OWN_IT),
    ("read-only", "Name the primary, not a standby; check default_transaction_read_only."),
    ("certificate", "Check sslrootcert and sslmode in the URL."),
    ("ssl", "Check sslmode in the URL, and the server's ssl setting."),
    ("unable to open database file", "Check that the directory exists and that this user may write to it."),
)
