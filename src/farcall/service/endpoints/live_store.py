"""SQL of endpoints that are being looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, ScalarSelect, func, or_, select

from farcall.service.db.sql import PreparedIn
from farcall.service.db.tables import endpoints, usage
from farcall.service.endpoints.listing_store import names_of
from farcall.service.endpoints.store import StoredEndpoint, read_endpoint, read_user_endpoints
from farcall.service.managers.store import user_endpoints_with_open_tasks

__all__ = ["Signs", "UserRow", "Watched", "read_signs", "read_users", "read_watched"]

Signs = tuple[str | None, float | None, float | None, int, float | None, float | None]
"""Of an endpoint: its manager, when it last reported, since when it is attached, its login's generation, when it was
deleted, and when a task of it last ended.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class UserRow:
    """A user endpoint of a manager: with its owner's name, and whether tasks of it have not ended."""

    stored: StoredEndpoint
    owner_name: str | None
    has_open_tasks: bool


class Watched(NamedTuple):
    """An endpoint that somebody looks at; if it is a manager, with its user endpoints.

    `last_ended_at`: when a task of it last ended, Unix seconds; None: none has, as far as usage goes back.
    """

    stored: StoredEndpoint
    users: Sequence[UserRow]
    last_ended_at: float | None


def read_watched(conn: Connection, endpoint_id: str) -> Watched | None:
    """None: there is no such endpoint."""
    stored = read_endpoint(conn, endpoint_id)
    if stored is None:
        return None
    users = () if stored.rights.direct else read_users(conn, endpoint_id)
    last = conn.execute(select(_last_ended()).where(endpoints.c.id == endpoint_id)).scalar()
    return Watched(stored, users, last)


def read_users(conn: Connection, manager_id: str) -> Sequence[UserRow]:
    """The user endpoints of a manager that were not deleted, in the order in which they were first asked for."""
    users = read_user_endpoints(conn, manager_id)
    names = names_of(conn, {user.rights.owner_id for user in users})
    busy = frozenset(user_endpoints_with_open_tasks(conn, manager_id))
    return [
        UserRow(stored=user, owner_name=names.get(user.rights.owner_id), has_open_tasks=user.rights.id in busy)
        for user in users
    ]


def read_signs(conn: Connection, endpoint_ids: Sequence[str]) -> Mapping[str, Signs]:
    """What tells that something changed at these endpoints or their user endpoints, by id."""
    return {row[0]: tuple(row[1:]) for row in _SIGNS.all(conn, endpoint_ids)}


def _last_ended() -> ScalarSelect[float | None]:
    # Of its last day with usage, so that there is little to look through however long it has worked.
    days = usage.alias("days")
    last_day = select(func.max(days.c.day)).where(days.c.endpoint_id == endpoints.c.id).scalar_subquery()
    of_it = usage.c.endpoint_id == endpoints.c.id
    found = select(func.max(usage.c.last_at)).where(of_it, usage.c.day == last_day)
    return found.correlate(endpoints).scalar_subquery()


_SIGNS = PreparedIn(
    lambda ids: select(
        endpoints.c.id,
        endpoints.c.manager_id,
        endpoints.c.last_seen_at,
        endpoints.c.attached_at,
        endpoints.c.credential_generation,
        endpoints.c.deleted_at,
        _last_ended().label("last_ended_at"),
    ).where(or_(endpoints.c.id.in_(ids), endpoints.c.manager_id.in_(ids)))
)
