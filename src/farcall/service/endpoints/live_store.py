"""SQL of endpoints that are being looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, or_, select

from farcall.service.db.sql import PreparedIn
from farcall.service.db.tables import endpoints
from farcall.service.endpoints.listing_store import names_of
from farcall.service.endpoints.store import StoredEndpoint, read_endpoint, read_user_endpoints

__all__ = ["Signs", "read_signs", "read_watched"]

Signs = tuple[str | None, float | None, float | None, int, float | None]
"""Of an endpoint: its manager, when it last reported, since when it is attached, its login's generation, and when it
was deleted.
"""


def read_watched(
    conn: Connection, endpoint_id: str
) -> tuple[StoredEndpoint, Sequence[tuple[StoredEndpoint, str | None]]] | None:
    """An endpoint and, if it is a manager, its user endpoints, each with its owner's name; None: there is no such."""
    stored = read_endpoint(conn, endpoint_id)
    if stored is None:
        return None
    users = () if stored.rights.direct else read_user_endpoints(conn, endpoint_id)
    names = names_of(conn, {user.rights.owner_id for user in users})
    return stored, [(user, names.get(user.rights.owner_id)) for user in users]


def read_signs(conn: Connection, endpoint_ids: Sequence[str]) -> Mapping[str, Signs]:
    """What tells that something changed at these endpoints or their user endpoints, by id."""
    return {row[0]: tuple(row[1:]) for row in _SIGNS.all(conn, endpoint_ids)}


_SIGNS = PreparedIn(
    lambda ids: select(
        endpoints.c.id,
        endpoints.c.manager_id,
        endpoints.c.last_seen_at,
        endpoints.c.attached_at,
        endpoints.c.credential_generation,
        endpoints.c.deleted_at,
    ).where(or_(endpoints.c.id.in_(ids), endpoints.c.manager_id.in_(ids)))
)
