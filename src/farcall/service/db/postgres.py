"""What is particular to PostgreSQL: how its URL becomes connections, and who may write when: one process alone, or
several that share the database and take turns.

The URL goes to libpq as it stands (so everything that `psql` understands works: `sslmode`, `service`, a password
file), with defaults that make a dead server noticed within half a minute. Passwords never leave this module: what
is shown comes from `display_url`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from farcall.service.db.errors import StoreBusy, StoreMisnamed, StoreReadOnly

__all__ = [
    "CHANNEL",
    "LOCKS_HERE",
    "SCHEMA",
    "Commit",
    "begin_commit",
    "display_url",
    "hold_database",
    "is_lost",
    "is_refusal",
    "is_text_fault",
    "listen",
    "make_postgres_engine",
    "migrating",
    "running_code",
    "take_notifications",
    "take_turn",
    "was_committed",
]

_DEFAULTS: Final = {
    "connect_timeout": "10",
    "fallback_application_name": "farcall",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_LOCK_SPACE: Final = 0x46415243
"""First half of our advisory locks' keys; the second is the schema, so that databases can be shared by schema."""
_TURN_SPACE: Final = 0x46415254
_CODE_SPACE: Final = 0x46410000
"""And the number of the schema's revision that a process was written for."""
_MIGRATION_SPACE: Final = 0x46415255
_LOCK_TIMEOUT: Final = "10s"
_STALLED_S: Final = 15
"""Waiting for a turn longer than this takes it from a holder whose transaction is as old. Who is idle in its
transaction is ended by the server after a third of that; this is for one that was stopped while it sent rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What tells afterwards whether a transaction was committed: its number, and the session it ran in."""

    transaction: int
    backend: int


def display_url(url: str) -> str:
    """Where the store is, without passwords.

    Raises:
        StoreMisnamed: libpq does not understand the URL. The text holds nothing of it.
    """
    known = _parse(url)
    hosts, ports = str(known.get("host", "")).split(","), str(known.get("port", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    where = ",".join(_host_and_port(host, port) for host, port in zip(hosts, ports, strict=False))
    user = f"{known['user']}@" if known.get("user") else ""
    return f"postgresql://{user}{where}/{known.get('dbname', '')}"


def make_postgres_engine(url: str) -> Engine:
    """An engine of sessions that commit durably. Raises StoreMisnamed."""
    known = _parse(url)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in known}
    conninfo = make_conninfo(url, **missing, client_encoding="utf8")

    def connect() -> Any:
        return psycopg.connect(conninfo, context=engine.dialect._psycopg_adapters_map)  # type: ignore[attr-defined]

    engine = create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=NullPool,  # each thread keeps its own, and throws it away when it is lost
        isolation_level="READ COMMITTED",
        hide_parameters=True,
    )
    event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: Any, _record: Any) -> None:
    # A server or role may have chosen speed over durability; an accepted task must survive a crash of the server.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def is_lost(connection: Connection) -> bool:
    """Whether the session is over, so that nothing more can be asked of it."""
    if connection.invalidated or connection.closed:
        return True
    return bool(connection.connection.dbapi_connection.closed)  # type: ignore[union-attr]  # psycopg's own


def is_refusal(exc: BaseException) -> bool:
    """Whether the server, or the way to it, is behind an error."""
    return isinstance(getattr(exc, "orig", exc), psycopg.Error)


def is_text_fault(exc: BaseException) -> bool:
    """Whether a value cannot be kept by PostgreSQL: text with a NUL in it, or longer than its column."""
    return isinstance(getattr(exc, "orig", exc), psycopg.DataError)


# --- Who writes --------------------------------------------------------------------------------------------------


def hold_database(
    connection: Connection,
    old_backend: int | None = None,
    *,
    wait: bool = True,
    is_shared: bool = False,
    revision: str | None = None,
) -> int:
    """Make this session a writer, until it ends: the only one, or one of those that take turns (`take_turn`).
    Returns its backend's process number.

    Args:
        old_backend: the backend of our own earlier session, which may not have noticed that we have left it; it is
            ended, so that nothing of it can be committed later.
        wait: for another session to end, a while; a service that was killed leaves one for a moment.
        is_shared: others may write, too, if they say the same.
        revision: the schema's, that this process was written for; told to who migrates (`running_code`).

    Raises:
        StoreBusy: another session writes, and went on doing so while we waited.
        StoreReadOnly: the server is a standby.
        psycopg.OperationalError: the session is lost.
    """
    driver: Any = connection.connection.dbapi_connection
    suffix = "_shared" if is_shared else ""
    try:
        if driver.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
            raise StoreReadOnly
        if old_backend is not None and is_shared:
            driver.execute(_END_HOLDER, [old_backend])
        if not driver.execute(f"SELECT pg_try_advisory_lock{suffix}({_KEY})").fetchone()[0]:
            if old_backend is not None:
                driver.execute(_END_HOLDER, [old_backend])
            if not wait:
                driver.rollback()
                raise StoreBusy(_holder(driver))
            driver.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            try:
                driver.execute(f"SELECT pg_advisory_lock{suffix}({_KEY})")
            except errors.LockNotAvailable:
                driver.rollback()
                raise StoreBusy(_holder(driver)) from None
        if revision is not None:
            driver.execute(f"SELECT pg_advisory_lock_shared({_CODE_SPACE + int(revision)}, {SCHEMA})")
        if is_shared:
            # Who is stopped in the middle of a transaction must not keep the turn.
            driver.execute(f"SET idle_in_transaction_session_timeout = '{_STALLED_S // 3}s'")
            driver.execute(f"SET lock_timeout = '{_STALLED_S}s'")
            driver.commit()  # what is set in a transaction that is rolled back is not
        return int(driver.info.backend_pid)
    finally:
        if not driver.closed:
            driver.rollback()  # a session's lock outlives its transaction


def take_turn(connection: Connection) -> bool:
    """Wait until no other process is in a transaction that writes; the turn is ours until this one ends.

    Returns:
        False if it could not be had. A holder that has stalled has been ended by then, so that others can go on.
    """
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.execute(_TAKE_TURN, prepare=True)
    except errors.LockNotAvailable:
        driver.rollback()
        driver.execute(_END_STALLED, [_STALLED_S])
        return False
    return True


def begin_commit(connection: Connection, texts: Sequence[str] = ()) -> Commit | None:
    """To be called just before a commit. None if nothing was written.

    Args:
        texts: what the commit tells all sessions that `listen`, each below 8000 bytes.
    """
    driver: Any = connection.connection.dbapi_connection
    if texts:
        row = driver.execute(_BEGIN_COMMIT_AND_TELL, [list(texts)], prepare=True).fetchone()
    else:
        row = driver.execute("SELECT pg_current_xact_id_if_assigned()::text", prepare=True).fetchone()
    return None if row[0] is None else Commit(transaction=int(row[0]), backend=driver.info.backend_pid)


def was_committed(connection: Connection, commit: Commit, *, is_shared: bool = False) -> bool:
    """Whether the transaction of a session that has ended was committed. The caller holds the database.

    Args:
        is_shared: the session may not have noticed yet that it was ended; its turn is over when it has.
    """
    driver: Any = connection.connection.dbapi_connection
    try:
        if is_shared:
            driver.execute(_TAKE_TURN)
        state = driver.execute("SELECT pg_xact_status(%s::text::xid8)", [str(commit.transaction)]).fetchone()[0]
    except errors.InvalidParameterValue:  # in the future: this server is another one, which never saw it
        state = None
    finally:
        if not driver.closed:
            driver.rollback()
    return bool(state == "committed")


def running_code(connection: Connection) -> list[str]:
    """The revisions of the schema that the processes that use the database now were written for, ascending."""
    driver: Any = connection.connection.dbapi_connection
    rows = driver.execute(_RUNNING_CODE).fetchall()
    driver.rollback()
    return [f"{row[0]:04}" for row in rows]


@contextlib.contextmanager
def migrating(connection: Connection) -> Iterator[list[str]]:
    """Be the only one who changes the schema, beside services that run; yields `running_code`. A service of a release
    that does not say what it was written for counts as of revision 0001.

    Raises:
        StoreReadOnly: the server is a standby.
    """
    driver: Any = connection.connection.dbapi_connection
    if driver.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
        raise StoreReadOnly
    # A change that waits for somebody makes everybody wait behind it.
    driver.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    driver.execute(f"SELECT pg_advisory_lock({_MIGRATION_SPACE}, {SCHEMA})")
    of_others = f"SELECT count(*) FROM ({_HOLDERS}) AS holders WHERE pid <> pg_backend_pid()"  # noqa: S608
    writers = driver.execute(of_others).fetchone()[0]
    driver.commit()
    try:
        yield running_code(connection) or ["0001"] * bool(writers)
    finally:
        if not driver.closed:
            driver.rollback()
            driver.execute(f"SELECT pg_advisory_unlock({_MIGRATION_SPACE}, {SCHEMA})")
            driver.commit()


SCHEMA: Final = "hashtext(current_schema())"
_KEY: Final = f"{_LOCK_SPACE}, {SCHEMA}"
LOCKS_HERE: Final = (
    "SELECT pid, classid::bigint AS space, objid::bigint AS number FROM pg_locks WHERE locktype = 'advisory' "
    "AND granted AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""A query: the advisory locks that are held in this database."""
_HOLDERS: Final = (
    f"SELECT pid FROM ({LOCKS_HERE}) AS locks WHERE space = {_LOCK_SPACE} "  # noqa: S608  # constants, here and below
    f"AND number = {SCHEMA}::oid::bigint"
)
_END_HOLDER: Final = f"SELECT pg_terminate_backend(pid) FROM ({_HOLDERS}) AS holders WHERE pid = %s"  # noqa: S608
_TAKE_TURN: Final = f"SELECT pg_advisory_xact_lock({_TURN_SPACE}, {SCHEMA})"
_END_STALLED: Final = (
    f"SELECT pg_terminate_backend(pid) FROM ({LOCKS_HERE}) AS locks JOIN pg_stat_activity USING (pid) "  # noqa: S608
    f"WHERE space = {_TURN_SPACE} AND number = {SCHEMA}::oid::bigint "
    f"AND clock_timestamp() - xact_start >= make_interval(secs => %s)"
)
_RUNNING_CODE: Final = (
    f"SELECT DISTINCT space - {_CODE_SPACE} FROM ({LOCKS_HERE}) AS locks "  # noqa: S608
    f"WHERE space BETWEEN {_CODE_SPACE} AND {_CODE_SPACE + 9999} "
    f"AND number = {SCHEMA}::oid::bigint ORDER BY 1"
)


def _holder(driver: Any) -> str:
    row = driver.execute(
        f"SELECT pid, host(client_addr) FROM pg_stat_activity WHERE pid IN ({_HOLDERS})"  # noqa: S608
    ).fetchone()
    driver.rollback()
    if row is None:
        return "it has just gone"
    return f"PostgreSQL process {row[0]}" + (f", from {row[1]}" if row[1] else "")


# --- Telling and hearing -----------------------------------------------------------------------------------------

CHANNEL: Final = f"'farcall_' || {SCHEMA}::oid"
_BEGIN_COMMIT_AND_TELL: Final = (
    "SELECT pg_current_xact_id_if_assigned()::text, "  # noqa: S608
    f"(SELECT count(pg_notify({CHANNEL}, text)) FROM unnest(%s::text[]) AS text)"
)


def listen(connection: Connection, heard: Callable[[str], None]) -> None:
    """From now on this session, which is outside of any transaction, hears what commits tell.

    Args:
        heard: called with each text while a statement is executed. What comes in between is for
            `take_notifications`.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.add_notify_handler(lambda notification: heard(notification.payload))
    channel = driver.execute(f"SELECT {CHANNEL}").fetchone()[0]
    driver.execute(f'LISTEN "{channel}"')


def take_notifications(connection: Connection) -> list[str]:
    """What has come in since; does not wait. Raises psycopg.OperationalError if the session is over."""
    driver: Any = connection.connection.dbapi_connection
    driver.pgconn.consume_input()
    texts = []
    while (notification := driver.pgconn.notifies()) is not None:
        texts.append(notification.extra.decode())
    if driver.closed:
        raise psycopg.OperationalError("the session is over")
    return texts


# --- The URL -----------------------------------------------------------------------------------------------------


def _parse(url: str) -> dict[str, Any]:
    try:
        known = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        raise StoreMisnamed(_UNCLEAR) from None  # libpq's text repeats the URL
    ports = str(known.get("port") or "0").split(",")
    if any(port and not port.isdigit() for port in ports) or "@" in str(known.get("dbname", "")):
        raise StoreMisnamed(_UNCLEAR)
    return known


_UNCLEAR: Final = (
    "The store's URL cannot be understood. It is postgresql://USER@HOST:PORT/DATABASE; characters other than letters, "
    "digits, '-', '.', '_' and '~' in a name or password are written as %XX (a slash is %2F, an at-sign %40)."
)


def _host_and_port(host: str, port: str) -> str:
    shown = f"[{host}]" if ":" in host else host.replace("/", "%2F")
    return f"{shown}:{port}" if port else shown
