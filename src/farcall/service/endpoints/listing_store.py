"""SQL of the list of endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, true

from farcall.service.accounts.rules import Identity
from farcall.service.db.sql import chunks
from farcall.service.db.tables import endpoint_shares, endpoints, identities
from farcall.service.endpoints.store import StoredEndpoint, from_row

__all__ = ["EndpointQuery", "Kind", "Listed", "ListedPage", "list_page", "names_of"]

Kind = Literal["direct", "manager", "user"]
"""Works a task queue itself; starts user endpoints; is one of those."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointQuery:
    """Which endpoints are wanted. None: whichever.

    Attributes:
        own_only: those that the caller owns.
        search: text in the name, the display name, the description or the owner's name, in any case; or an id.
        kind: None means those that people submit to, so no user endpoints.
        manager_id: user endpoints of this one.
        after: the last endpoint of the page before.
    """

    own_only: bool = False
    search: str | None = None
    kind: Kind | None = None
    is_online: bool | None = None
    multi_user: bool | None = None
    manager_id: str | None = None
    after: str | None = None
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One of them. `is_on_site`: the caller manages its manager."""

    stored: StoredEndpoint
    owner_name: str
    is_on_site: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedPage:
    """Some endpoints by name; how many there are in all; whether more follow."""

    endpoints: Sequence[Listed]
    total: int
    has_more: bool


def list_page(
    conn: Connection, caller: Identity, query: EndpointQuery, online: AbstractSet[str] | None = None
) -> ListedPage:
    """The endpoints that the caller may see, by name.

    Args:
        online: the endpoints that are; needed if the query asks about that.
    """
    conditions = _conditions(caller, query)
    if query.is_online is None:
        total = conn.execute(select(func.count()).select_from(_OF_OWNER).where(*conditions)).scalar_one()
        rows = conn.execute(_page([*conditions, _follows(query.after)], query.limit)).all()
    else:
        # Not every process finds in the database who is online, so all ids come, and few rows.
        statement = select(endpoints.c.id, _follows(query.after).label("follows")).select_from(_OF_OWNER)
        ids = conn.execute(statement.where(*conditions).order_by(*_KEY)).all()
        matching = [each for each in ids if (each.id in (online or ())) is query.is_online]
        total = len(matching)
        following = [each.id for each in matching if each.follows]
        rows = conn.execute(_page([endpoints.c.id.in_(following[: query.limit + 1])], query.limit)).all()
    found, has_more = rows[: query.limit], len(rows) > query.limit
    return ListedPage(endpoints=_listed(conn, caller, found), total=total, has_more=has_more)


def names_of(conn: Connection, identity_ids: AbstractSet[str]) -> Mapping[str, str]:
    """The user names of identities, by id."""
    names: dict[str, str] = {}
    for some in chunks(sorted(identity_ids), _IN_AT_ONCE):
        rows = conn.execute(select(identities.c.id, identities.c.username).where(identities.c.id.in_(some)))
        names.update((row.id, row.username) for row in rows)
    return names


_OF_OWNER = endpoints.join(identities, identities.c.id == endpoints.c.owner_id)
_manager = endpoints.alias("manager")
_IN_AT_ONCE = 500
_KEY = (func.lower(endpoints.c.name), endpoints.c.id)


def _conditions(caller: Identity, query: EndpointQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [endpoints.c.deleted_at.is_(None)]
    own = endpoints.c.owner_id.in_(caller.linked)
    if query.kind == "user" or query.manager_id is not None:
        conditions.append(endpoints.c.manager_id.is_not(None))
        if query.manager_id is not None:
            conditions.append(endpoints.c.manager_id == query.manager_id)
        managed = exists().where(_manager.c.id == endpoints.c.manager_id, _is_managed(_manager, caller))
        conditions.append(own if query.own_only else or_(own, managed))
    else:
        conditions.append(endpoints.c.manager_id.is_(None))
        conditions.append(own if query.own_only else or_(_is_managed(endpoints, caller), _is_open_to(caller)))
        if query.kind is not None:
            conditions.append(endpoints.c.direct.is_(query.kind == "direct"))
    if query.multi_user is not None:
        conditions.append(endpoints.c.multi_user.is_(query.multi_user))
    if query.search:
        conditions.append(_mentions(query.search))
    return conditions


def _is_managed(table: Any, caller: Identity) -> ColumnElement[bool]:  # `endpoints` or an alias
    # Admins are few and kept as text of quoted ids.
    named = (table.c.admins_json.contains(each, autoescape=True) for each in caller.linked)
    return or_(table.c.owner_id.in_(caller.linked), *named)


def _is_open_to(caller: Identity) -> ColumnElement[bool]:
    mine = [*caller.linked, *caller.groups]
    shared = exists().where(endpoint_shares.c.endpoint_id == endpoints.c.id, endpoint_shares.c.grantee_id.in_(mine))
    return or_(endpoints.c.public.is_(True), shared)


def _mentions(text: str) -> ColumnElement[bool]:
    searched = (endpoints.c.name, endpoints.c.display_name, endpoints.c.description, identities.c.username)
    is_id = endpoints.c.id == text.strip().lower()
    return or_(*(column.icontains(text, autoescape=True) for column in searched), is_id)


def _follows(after: str | None) -> ColumnElement[bool]:
    """Whether an endpoint comes behind this one in the order."""
    if after is None:
        return true()
    last = endpoints.alias("last")
    name = select(func.lower(last.c.name)).where(last.c.id == after).scalar_subquery()
    return or_(_KEY[0] > name, and_(_KEY[0] == name, endpoints.c.id > after))


def _page(conditions: Sequence[ColumnElement[bool]], limit: int) -> Any:  # a Select
    return (
        select(endpoints, identities.c.username.label("owner_name"))
        .select_from(_OF_OWNER)
        .where(*conditions)
        .order_by(*_KEY)
        .limit(limit + 1)
    )


def _listed(conn: Connection, caller: Identity, rows: Sequence[Any]) -> list[Listed]:
    ids = [row.id for row in rows]
    shares = conn.execute(select(endpoint_shares).where(endpoint_shares.c.endpoint_id.in_(ids))).all()
    managers = {row.manager_id for row in rows if row.manager_id is not None}
    statement = select(_manager.c.id).where(_manager.c.id.in_(managers), _is_managed(_manager, caller))
    mine = set(conn.execute(statement).scalars()) if managers else set()
    listed = []
    for row in rows:
        stored = from_row(row)
        of_this = [share for share in shares if share.endpoint_id == row.id]
        rights = replace(
            stored.rights,
            shared_with=frozenset(share.grantee_id for share in of_this if not share.is_group),
            shared_groups=frozenset(share.grantee_id for share in of_this if share.is_group),
        )
        stored = replace(stored, rights=rights)
        listed.append(Listed(stored=stored, owner_name=row.owner_name, is_on_site=row.manager_id in mine))
    return listed
