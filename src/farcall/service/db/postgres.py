"""What is particular to PostgreSQL: how its URL becomes connections, and the one writer's hold on the database.

The URL goes to libpq as it stands (so everything that `psql` understands works: `sslmode`, `service`, a password
file), with defaults that make a dead server noticed within half a minute. Passwords never leave this module: what
is shown comes from `display_url`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from farcall.service.db.errors import StoreBusy, StoreMisnamed, StoreReadOnly

__all__ = [
    "Commit",
    "begin_commit",
    "display_url",
    "hold_database",
    "is_lost",
    "is_refusal",
    "is_text_fault",
    "make_postgres_engine",
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
_LOCK_TIMEOUT: Final = "10s"


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


# --- The one writer ----------------------------------------------------------------------------------------------


def hold_database(connection: Connection, old_backend: int | None = None, *, wait: bool = True) -> int:
    """Make this session the only writer, until it ends. Returns its backend's process number.

    Args:
        old_backend: the backend of our own earlier session, which may not have noticed that we have left it; it is
            ended, so that nothing of it can be committed later.
        wait: for another session to end, a while; a service that was killed leaves one for a moment.

    Raises:
        StoreBusy: another session writes, and went on doing so while we waited.
        StoreReadOnly: the server is a standby.
        psycopg.OperationalError: the session is lost.
    """
    driver: Any = connection.connection.dbapi_connection
    try:
        if driver.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
            raise StoreReadOnly
        if not driver.execute(f"SELECT pg_try_advisory_lock({_KEY})").fetchone()[0]:
            if old_backend is not None:
                driver.execute(_END_HOLDER, [old_backend])
            if not wait:
                driver.rollback()
                raise StoreBusy(_holder(driver))
            driver.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            try:
                driver.execute(f"SELECT pg_advisory_lock({_KEY})")
            except errors.LockNotAvailable:
                driver.rollback()
                raise StoreBusy(_holder(driver)) from None
        return int(driver.info.backend_pid)
    finally:
        if not driver.closed:
            driver.rollback()  # a session's lock outlives its transaction


def begin_commit(connection: Connection) -> Commit | None:
    """To be called just before a commit. None if nothing was written."""
    driver: Any = connection.connection.dbapi_connection
    number = driver.execute("SELECT pg_current_xact_id_if_assigned()::text", prepare=True).fetchone()[0]
    return None if number is None else Commit(transaction=int(number), backend=driver.info.backend_pid)


def was_committed(connection: Connection, commit: Commit) -> bool:
    """Whether the transaction of a session that has ended was committed. The caller holds the database."""
    driver: Any = connection.connection.dbapi_connection
    try:
        state = driver.execute("SELECT pg_xact_status(%s::text::xid8)", [str(commit.transaction)]).fetchone()[0]
    except errors.InvalidParameterValue:  # in the future: this server is another one, which never saw it
        state = None
    finally:
        if not driver.closed:
            driver.rollback()
    return bool(state == "committed")


_SCHEMA: Final = "hashtext(current_schema())"
_KEY: Final = f"{_LOCK_SPACE}, {_SCHEMA}"
_HOLDERS: Final = (
    f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = {_LOCK_SPACE} "  # noqa: S608
    f"AND objid = {_SCHEMA}::oid AND objsubid = 2 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_END_HOLDER: Final = f"SELECT pg_terminate_backend(pid) FROM ({_HOLDERS}) AS holders WHERE pid = %s"  # noqa: S608


def _holder(driver: Any) -> str:
    row = driver.execute(
        f"SELECT pid, host(client_addr) FROM pg_stat_activity WHERE pid IN ({_HOLDERS})"  # noqa: S608  # constants
    ).fetchone()
    driver.rollback()
    if row is None:
        return "it has just gone"
    return f"PostgreSQL process {row[0]}" + (f", from {row[1]}" if row[1] else "")


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
