"""SQL of user endpoints: made by submissions, read for start commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, exists, insert, select

from farcall.service.db.sql import Prepared
from farcall.service.db.tables import endpoints, identities, task_is_open, tasks
from farcall.service.managers.commands import StartOrder, Submitter
from farcall.service.web.bodies import encode_text

__all__ = [
    "StoredOrder",
    "ensure_user_endpoint",
    "is_user_endpoint_away",
    "manager_of",
    "read_start_order",
    "submitter_of",
    "user_endpoints_of",
    "user_endpoints_with_open_tasks",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredOrder:
    """All that a start command is made of.

    Attributes:
        generation: of the user endpoint's broker login.
        reached_host: the host by which the manager reached this service when it registered.
    """

    order: StartOrder
    generation: int
    reached_host: str | None


def ensure_user_endpoint(
    conn: Connection,
    user_endpoint_id: str,
    *,
    manager_id: str,
    owner_id: str,
    name: str,
    high_assurance: bool,
    options: Mapping[str, Any] | None,
    runtime_json: str | None,
    now: float,
) -> bool:
    """Make the user endpoint's row, if it is not there. Returns whether it was made.

    Args:
        owner_id: who submitted.
        high_assurance: as of the manager.
        runtime_json: of the first submission; the id holds what matters of it.
    """
    if _IS_THERE.scalar(conn, id=user_endpoint_id) is not None:
        return False
    conn.execute(
        insert(endpoints).values(
            id=user_endpoint_id,
            owner_id=owner_id,
            name=name,
            public=False,
            multi_user=False,
            high_assurance=high_assurance,
            direct=True,
            subscription_admin_verified=False,
            metadata_json="{}",
            credential_generation=1,
            created_at=now,
            registered_at=now,
            manager_id=manager_id,
            user_options_json=encode_text(options) if options else None,
            user_runtime_json=runtime_json,
        )
    )
    return True


def read_start_order(conn: Connection, user_endpoint_id: str) -> StoredOrder | None:
    """What a user endpoint is started with; None if it, or its manager, was deleted."""
    row = conn.execute(_ORDER, {"id": user_endpoint_id}).first()
    if row is None:
        return None
    # A manager without privilege runs everything as its owner, and trusts nobody else.
    as_whom = row.owner_id if row.multi_user else row.manager_owner_id
    order = StartOrder(
        manager_id=row.manager_id,
        user_endpoint_id=user_endpoint_id,
        submitter=submitter_of(conn, as_whom),
        options=_object(row.user_options_json),
        runtime=_object(row.user_runtime_json),
    )
    return StoredOrder(order=order, generation=row.credential_generation, reached_host=row.reached_host)


def submitter_of(conn: Connection, identity_id: str) -> Submitter:
    """Somebody, as managers are told."""
    found = conn.execute(_WHO, {"id": identity_id}).one()
    linked = conn.execute(_LINKED, {"person": found.person_id, "owner": identity_id}).all()
    # That identity comes first: a mapping takes the first one that maps.
    linked = sorted(linked, key=lambda identity: identity.id != identity_id)
    return Submitter(
        identity_id=identity_id,
        username=found.username,
        identity_set=[_identity_document(identity) for identity in linked],
    )


def manager_of(conn: Connection, endpoint_id: str) -> str | None:
    """Who starts this endpoint; None if it starts by itself."""
    found: str | None = conn.execute(_MANAGER, {"id": endpoint_id}).scalar()
    return found


def is_user_endpoint_away(conn: Connection, endpoint_id: str) -> bool:
    """Whether this is a user endpoint of which no process has written down that it is attached."""
    return conn.execute(_AWAY, {"id": endpoint_id}).first() is not None


def user_endpoints_of(conn: Connection, manager_id: str) -> Sequence[str]:
    """All user endpoints of a manager that are not deleted."""
    return conn.execute(_OF_MANAGER, {"manager": manager_id}).scalars().all()


def user_endpoints_with_open_tasks(
    conn: Connection, manager_id: str, user_endpoint_id: str | None = None
) -> Sequence[str]:
    """The user endpoints of a manager that have unfinished tasks; `user_endpoint_id`: only whether this one has."""
    statement = _OF_MANAGER.where(exists().where(tasks.c.endpoint_id == endpoints.c.id, task_is_open))
    if user_endpoint_id is not None:
        statement = statement.where(endpoints.c.id == user_endpoint_id)
    return conn.execute(statement, {"manager": manager_id}).scalars().all()


def _identity_document(row: Any) -> dict[str, Any]:
    """Source: wire protocol, start commands: what identity mappers look at."""
    provider = row.provider
    return {
        "sub": row.id,
        "id": row.id,
        "username": row.username,
        "preferred_username": row.username,
        "email": row.email,
        "name": row.display_name or row.username,
        "organization": row.organization,
        "identity_provider": provider,
        "identity_provider_display_name": provider,
        "status": "used",
    }


def _object(text: str | None) -> dict[str, Any]:
    return {} if text is None else msgspec.json.decode(text, type=dict[str, Any])


_IS_THERE = Prepared(select(endpoints.c.id).where(endpoints.c.id == bindparam("id")))
_MANAGER = select(endpoints.c.manager_id).where(endpoints.c.id == bindparam("id"))
_AWAY = select(endpoints.c.id).where(
    endpoints.c.id == bindparam("id"), endpoints.c.manager_id.is_not(None), endpoints.c.attached_at.is_(None)
)
_OF_MANAGER = select(endpoints.c.id).where(
    endpoints.c.manager_id == bindparam("manager"), endpoints.c.deleted_at.is_(None)
)
_manager = endpoints.alias("manager")
_ORDER = (
    select(
        endpoints.c.manager_id,
        endpoints.c.owner_id,
        endpoints.c.user_options_json,
        endpoints.c.user_runtime_json,
        endpoints.c.credential_generation,
        _manager.c.multi_user,
        _manager.c.owner_id.label("manager_owner_id"),
        _manager.c.reached_host,
    )
    .join_from(endpoints, _manager, _manager.c.id == endpoints.c.manager_id)
    .where(endpoints.c.id == bindparam("id"), endpoints.c.deleted_at.is_(None), _manager.c.deleted_at.is_(None))
)
_WHO = select(identities.c.username, identities.c.person_id).where(identities.c.id == bindparam("id"))
_LINKED = select(
    identities.c.id,
    identities.c.username,
    identities.c.email,
    identities.c.display_name,
    identities.c.organization,
    identities.c.provider,
).where((identities.c.id == bindparam("owner")) | (identities.c.person_id == bindparam("person")))
