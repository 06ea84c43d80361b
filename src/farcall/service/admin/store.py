"""SQL of what operators see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text

from farcall.service.accounts.rules import Cut, Identity, Kind
from farcall.service.admin import rules
from farcall.service.audit.rules import Actor, Entry
from farcall.service.audit.store import entry_from_row, record
from farcall.service.db.migrations import revision_of
from farcall.service.db.tables import audit, endpoints, groups, identities, oauth_clients, relays, tokens
from farcall.service.factors.store import remove_totp
from farcall.service.users.rules import Person
from farcall.service.users.store import find_people, one_person, set_admin, set_disabled, set_password, void_logins
from farcall.wire.errors import Conflict

__all__ = [
    "AuditQuery",
    "RelayRow",
    "StoreState",
    "UserQuery",
    "audit_page",
    "change_admin",
    "change_disabled",
    "end_logins",
    "give_password",
    "group_ids",
    "last_logins",
    "remove_factor",
    "store_state",
    "users_page",
]


# --- What there is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class UserQuery:
    """Which identities are wanted. None: whichever.

    Attributes:
        search: text in the user name, the display name or the e-mail address, in any case; or an id.
        after: the last one of the page before.
    """

    search: str | None = None
    kind: Kind | None = None
    is_disabled: bool | None = None
    is_admin: bool | None = None
    after: str | None = None
    limit: int


def users_page(conn: Connection, query: UserQuery) -> tuple[Sequence[Person], int, bool]:
    """Identities by user name; how many there are in all; whether more follow."""
    c = identities.c
    conditions: list[ColumnElement[bool]] = []
    if query.search:
        searched = (c.username, c.display_name, c.email)
        is_id = c.id == query.search.strip().lower()
        conditions.append(or_(*(column.icontains(query.search, autoescape=True) for column in searched), is_id))
    if query.kind is not None:
        conditions.append(c.kind == query.kind)
    if query.is_disabled is not None:
        conditions.append(c.disabled_at.is_not(None) if query.is_disabled else c.disabled_at.is_(None))
    if query.is_admin is not None:
        conditions.append(c.is_admin.is_(query.is_admin))
    total = conn.execute(select(func.count()).select_from(identities).where(*conditions)).scalar_one()
    if query.after is not None:
        last = identities.alias("last")
        conditions.append(c.username > select(last.c.username).where(last.c.id == query.after).scalar_subquery())
    statement = select(c.id).where(*conditions).order_by(c.username).limit(query.limit + 1)
    ids = conn.execute(statement).scalars().all()
    people = {person.id: person for person in find_people(conn, ids=ids[: query.limit])}
    return [people[each] for each in ids[: query.limit]], total, len(ids) > query.limit


def last_logins(conn: Connection, identity_ids: Sequence[str]) -> Mapping[str, float]:
    """When each of these was last given a token (Unix seconds); those that never were are left out."""
    statement = select(tokens.c.identity_id, func.max(tokens.c.created_at)).where(
        tokens.c.identity_id.in_(identity_ids)
    )
    return {row[0]: row[1] for row in conn.execute(statement.group_by(tokens.c.identity_id))}


def group_ids(conn: Connection, search: str | None, after: str | None, limit: int) -> tuple[Sequence[str], int, bool]:
    """Groups by name; how many there are in all; whether more follow. `after`: the last group of the page before."""
    c = groups.c
    key = func.lower(c.name)
    conditions: list[ColumnElement[bool]] = []
    if search:
        is_named = or_(c.name.icontains(search, autoescape=True), c.description.icontains(search, autoescape=True))
        conditions.append(or_(is_named, c.id == search.strip().lower()))
    total = conn.execute(select(func.count()).select_from(groups).where(*conditions)).scalar_one()
    if after is not None:
        last = groups.alias("last")
        conditions.append(key > select(func.lower(last.c.name)).where(last.c.id == after).scalar_subquery())
    ids = conn.execute(select(c.id).where(*conditions).order_by(key).limit(limit + 1)).scalars().all()
    return ids[:limit], total, len(ids) > limit


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditQuery:
    """Which entries are wanted. None: whichever.

    Attributes:
        action: this one, or all that begin with it if it ends in a dot.
        actor, object_id: id or, of an actor, name.
        before: number of the last entry of the page before.
    """

    action: str | None = None
    actor: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    before: int | None = None
    limit: int


def audit_page(conn: Connection, query: AuditQuery) -> Sequence[Entry]:
    """Entries, newest first; one more than the limit if there are more."""
    c = audit.c
    conditions: list[ColumnElement[bool]] = []
    if query.action is not None:
        is_prefix = query.action.endswith(".")
        conditions.append(c.action.startswith(query.action, autoescape=True) if is_prefix else c.action == query.action)
    if query.actor is not None:
        conditions.append(or_(c.actor_id == query.actor, func.lower(c.actor_name) == query.actor.lower()))
    if query.object_id is not None:
        conditions.append(c.object_id == query.object_id)
    if query.outcome is not None:
        conditions.append(c.outcome == query.outcome)
    if query.since is not None:
        conditions.append(c.at >= query.since)
    if query.until is not None:
        conditions.append(c.at < query.until)
    if query.before is not None:
        conditions.append(c.seq < query.before)
    rows = conn.execute(select(audit).where(*conditions).order_by(c.seq.desc()).limit(query.limit + 1))
    return [entry_from_row(row) for row in rows]


# --- What is done ------------------------------------------------------------------------------------------------


def change_disabled(
    conn: Connection, name: str, is_disabled: bool, caller: Identity, actor: Actor, now: float
) -> tuple[Person, Sequence[Cut]]:
    """Keep somebody out, or let them in again. Raises NotFound, Conflict."""
    person = one_person(conn, name, "")
    if is_disabled:
        rules.check_not_oneself(caller, person, "disable yourself")
    cuts = set_disabled(conn, person.id, is_disabled, actor=actor, now=now)
    return one_person(conn, person.id, ""), cuts


def change_admin(
    conn: Connection, name: str, is_admin: bool, caller: Identity, actor: Actor, now: float
) -> tuple[Person, Sequence[Cut]]:
    """Grant or take away the rights of an administrator. Raises NotFound, Conflict."""
    person = one_person(conn, name, "")
    if not is_admin:
        rules.check_not_oneself(caller, person, "take these rights away from yourself")
    set_admin(conn, person.id, is_admin, actor=actor, now=now)
    return one_person(conn, person.id, ""), ()


def give_password(
    conn: Connection, name: str, password_hash: str, caller: Identity, actor: Actor, now: float
) -> tuple[Person, Sequence[Cut]]:
    """A new password, to be changed at the next login; what was given out before is void.

    Raises:
        NotFound.
        Conflict: it is the caller.
        InvalidRequest: another provider vouches for it, or it is a program.
    """
    person = one_person(conn, name, "")
    rules.check_not_oneself(caller, person, "give yourself a new password here (your account's page does)")
    set_password(conn, person.id, password_hash, must_change=True, actor=actor, now=now)
    cuts = void_logins(conn, person.id, now=now)
    return one_person(conn, person.id, ""), cuts


def remove_factor(
    conn: Connection, name: str, caller: Identity, actor: Actor, now: float
) -> tuple[Person, Sequence[Cut]]:
    """Forget somebody's second factor and recovery codes. Raises NotFound, Conflict."""
    person = one_person(conn, name, "")
    rules.check_not_oneself(caller, person, "remove your own second factor here (your account's page does)")
    if not person.has_totp:
        raise Conflict(f"{person.username} has no second factor.")
    remove_totp(conn, person.id)
    detail = {"username": person.username}
    record(conn, actor, "user.totp-remove", "user", person.id, at=now, detail=detail)
    return one_person(conn, person.id, ""), ()


def end_logins(conn: Connection, name: str, caller: Identity, actor: Actor, now: float) -> tuple[Person, Sequence[Cut]]:
    """Void every token and login of somebody, who may log in again at once. Raises NotFound."""
    person = one_person(conn, name, "")
    cuts = void_logins(conn, person.id, now=now)
    detail = {"username": person.username}
    record(conn, actor, "user.log-out-everywhere", "user", person.id, at=now, detail=detail)
    return person, cuts


# --- How it goes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RelayRow:
    """A relay process among several. `silent_s`: since it was last heard of."""

    id: str
    host: str
    silent_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreState:
    """What the store says of itself and of what it holds.

    Attributes:
        size_bytes: on disk; None: it does not say.
        versions: endpoints that are not deleted, by the version of their agent.
    """

    version: str
    schema: str | None
    size_bytes: int | None
    endpoints: Mapping[str, int]
    versions: Mapping[str, int]
    people: int
    clients: int
    relays: Sequence[RelayRow]


def store_state(conn: Connection) -> StoreState:
    """Look; takes milliseconds at some ten thousand endpoints."""
    is_postgres = conn.dialect.name == "postgresql"
    if is_postgres:
        version = conn.execute(text("SHOW server_version")).scalar_one()
        size = conn.execute(text("SELECT pg_database_size(current_database())")).scalar()
        rows = conn.execute(
            select(relays, (text("extract(epoch FROM clock_timestamp())::float8 - beat_at AS silent_s"))).order_by(
                relays.c.host, relays.c.id
            )
        )
        members = [RelayRow(id=row.id, host=row.host, silent_s=row.silent_s) for row in rows]
    else:
        version = conn.execute(text("SELECT sqlite_version()")).scalar_one()
        pages = conn.execute(text("PRAGMA page_count")).scalar_one()
        size = pages * conn.execute(text("PRAGMA page_size")).scalar_one()
        members = []
    kinds, versions = _endpoint_counts(conn)
    is_active = identities.c.disabled_at.is_(None)
    people = select(func.count()).select_from(identities).where(is_active, identities.c.kind == "user")
    clients = select(func.count()).select_from(oauth_clients).where(oauth_clients.c.revoked_at.is_(None))
    return StoreState(
        version=str(version),
        schema=revision_of(conn),
        size_bytes=size,
        endpoints=kinds,
        versions=versions,
        people=conn.execute(people).scalar_one(),
        clients=conn.execute(clients).scalar_one(),
        relays=members,
    )


def _endpoint_counts(conn: Connection) -> tuple[dict[str, int], dict[str, int]]:
    c = endpoints.c
    told = c.metadata_json
    version: Any = (
        text("metadata_json::json->>'endpoint_version'")
        if conn.dialect.name == "postgresql"
        else func.json_extract(told, "$.endpoint_version")
    )
    is_there = c.deleted_at.is_(None)
    kinds = {"direct": 0, "manager": 0, "user": 0}
    statement = select(c.direct, c.manager_id.is_not(None), func.count()).where(is_there)
    for direct, is_user, count in conn.execute(statement.group_by(c.direct, c.manager_id.is_not(None))):
        kinds["user" if is_user else "direct" if direct else "manager"] += count
    versions: dict[str, int] = {}
    statement = select(version, func.count()).select_from(endpoints).where(and_(is_there, c.manager_id.is_(None)))
    for found, count in conn.execute(statement.group_by(text("1"))):
        versions[str(found or "unknown")[:64]] = versions.get(str(found or "unknown")[:64], 0) + count
    return kinds, versions
