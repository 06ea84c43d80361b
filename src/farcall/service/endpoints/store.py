"""SQL of endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, insert, or_, select, update

from farcall.service.accounts.rules import Identity
from farcall.service.audit.rules import actor_of
from farcall.service.audit.store import record
from farcall.service.db.sql import Prepared, upsert
from farcall.service.db.tables import endpoint_shares, endpoints, groups, identities
from farcall.service.endpoints import rules
from farcall.service.endpoints.rules import Endpoint, NewEndpoint
from farcall.service.policies.store import find_grantees, find_policy, find_subscription
from farcall.service.web.bodies import encode_text
from farcall.wire.topology import command_queue, task_queue

__all__ = [
    "Registered",
    "Share",
    "StoredEndpoint",
    "add_endpoint",
    "delete_endpoint",
    "find_endpoint",
    "from_row",
    "list_endpoints",
    "lock_endpoint",
    "read_attached",
    "read_endpoint",
    "read_user_endpoints",
    "read_endpoint_queues",
    "register_again",
    "set_verified",
    "write_attached",
    "share_endpoint",
    "shares_of",
    "unshare_endpoint",
    "write_reports",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEndpoint:
    """An endpoint with everything that was told of it. Times are Unix seconds."""

    rights: Endpoint
    display_name: str | None
    description: str | None
    multi_user: bool
    high_assurance: bool
    subscription_id: str | None
    subscription_admin_verified: bool
    metadata: dict[str, Any]
    ip_address: str | None
    last_report: dict[str, Any] | None
    last_seen_at: float | None
    attached_at: float | None
    registered_at: float
    user_runtime: Mapping[str, Any] | None = None
    """Of user endpoints: what their user said of the Python that first submitted."""
    user_options: Mapping[str, Any] | None = None
    """Of user endpoints: what their user chose of the manager's options (`user_endpoint_config`)."""
    created_at: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """A registration that was stored: the generation of its broker login, and what its owner should know."""

    generation: int
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """An identity, or a group, that may run functions as the owner of an endpoint. `created_at`: Unix seconds."""

    id: str
    name: str
    is_group: bool
    created_at: float


def add_endpoint(
    conn: Connection,
    endpoint_id: str,
    caller: Identity,
    endpoint: NewEndpoint,
    ip_address: str | None,
    now: float,
    is_encrypted: bool = False,
    reached_host: str | None = None,
) -> Registered:
    """Store a first registration.

    Args:
        reached_host: by which name the agent reaches us.

    Raises:
        NotFound, InvalidRequest: see `rules.check_protection`.
    """
    warnings = _check_protection(conn, endpoint, caller, is_encrypted=is_encrypted)
    conn.execute(
        insert(endpoints).values(
            **_told(endpoint),
            id=endpoint_id,
            owner_id=caller.id,
            subscription_admin_verified=False,
            ip_address=ip_address,
            reached_host=reached_host,
            credential_generation=1,
            created_at=now,
            registered_at=now,
        )
    )
    record(
        conn, actor_of(caller, ip_address), "endpoint.register", "endpoint", endpoint_id, at=now, detail=_said(endpoint)
    )
    return Registered(generation=1, warnings=warnings)


def register_again(
    conn: Connection,
    endpoint_id: str,
    caller: Identity,
    endpoint: NewEndpoint,
    ip_address: str | None,
    now: float,
    is_encrypted: bool = False,
    reached_host: str | None = None,
) -> Registered:
    """Replace all that was told before; older broker logins are void.

    Raises:
        EndpointNotFound, EndpointAccessForbidden, ResourceLocked: see `rules.check_reregistration`.
        NotFound, InvalidRequest: see there, and `rules.check_protection`.
    """
    found = find_endpoint(conn, endpoint_id)
    rules.check_reregistration(found, endpoint_id, caller, endpoint, now=now)
    assert found is not None
    warnings = _check_protection(conn, endpoint, caller, is_encrypted=is_encrypted)
    generation = found.credential_generation + 1
    _set(
        conn,
        endpoint_id,
        **_told(endpoint),
        ip_address=ip_address,
        reached_host=reached_host,
        credential_generation=generation,
        locked_until=None,
        registered_at=now,
    )
    record(
        conn, actor_of(caller, ip_address), "endpoint.register", "endpoint", endpoint_id, at=now, detail=_said(endpoint)
    )
    return Registered(generation=generation, warnings=warnings)


def lock_endpoint(
    conn: Connection, endpoint_id: str, caller: Identity, now: float, lock_s: float, address: str | None = None
) -> Sequence[tuple[str, int]]:
    """Void the broker logins of an endpoint and of its user endpoints, and refuse registration for `lock_s`.

    Returns:
        Their ids and the generation that the next login will have; the endpoint itself first.

    Raises:
        EndpointNotFound, EndpointAccessForbidden: see `rules.check_end`.
    """
    found = rules.check_end(find_endpoint(conn, endpoint_id), endpoint_id, caller)
    generation = found.credential_generation + 1
    _set(conn, endpoint_id, credential_generation=generation, locked_until=now + lock_s)
    record(conn, actor_of(caller, address), "endpoint.stop", "endpoint", endpoint_id, at=now)
    return [(endpoint_id, generation), *_void_user_endpoints(conn, found, {})]


def delete_endpoint(
    conn: Connection, endpoint_id: str, caller: Identity, now: float, address: str | None = None
) -> Sequence[tuple[str, int]]:
    """Mark as deleted, with all user endpoints, and void the broker logins. What becomes of their tasks is the relay's
    business. Returns as `lock_endpoint`.

    Raises:
        EndpointNotFound, EndpointAccessForbidden: see `rules.check_end`.
    """
    found = rules.check_end(find_endpoint(conn, endpoint_id), endpoint_id, caller)
    generation = found.credential_generation + 1
    _set(conn, endpoint_id, credential_generation=generation, deleted_at=now)
    record(conn, actor_of(caller, address), "endpoint.delete", "endpoint", endpoint_id, at=now)
    return [(endpoint_id, generation), *_void_user_endpoints(conn, found, {"deleted_at": now})]


def _void_user_endpoints(conn: Connection, manager: Endpoint, more: Mapping[str, Any]) -> Sequence[tuple[str, int]]:
    if manager.direct:
        return []
    mine = (endpoints.c.manager_id == manager.id) & endpoints.c.deleted_at.is_(None)
    rows = conn.execute(select(endpoints.c.id, endpoints.c.credential_generation).where(mine)).all()
    generation = endpoints.c.credential_generation + 1
    conn.execute(update(endpoints).where(mine).values(credential_generation=generation, **more))
    return [(row.id, row.credential_generation + 1) for row in rows]


def set_verified(conn: Connection, endpoint_id: str, caller: Identity, is_verified: bool) -> None:
    """Raises EndpointNotFound, Forbidden."""
    rules.check_verify(caller)
    found = find_endpoint(conn, endpoint_id)
    if found is None or found.is_deleted:
        rules.check_view(found, endpoint_id, caller)
    _set(conn, endpoint_id, subscription_admin_verified=is_verified)


def share_endpoint(
    conn: Connection,
    endpoint_id: str,
    caller: Identity,
    users: Sequence[str],
    of_groups: Sequence[str],
    now: float,
    address: str | None = None,
) -> Sequence[Share]:
    """Let people and groups, by name or id, run functions as the endpoint's owner. Returns all who may.

    Raises:
        EndpointNotFound, EndpointAccessForbidden: see `rules.check_share`.
        NotFound: one of them does not exist.
    """
    rules.check_share(find_endpoint(conn, endpoint_id), endpoint_id, caller)
    user_ids, group_ids = find_grantees(conn, users, of_groups)
    for grantee_id in (*user_ids, *group_ids):
        key = {"endpoint_id": endpoint_id, "grantee_id": grantee_id}
        upsert(conn, endpoint_shares, key, {"is_group": grantee_id in group_ids, "created_at": now})
    detail = {"identities": user_ids, "groups": group_ids}
    record(conn, actor_of(caller, address), "endpoint.share", "endpoint", endpoint_id, at=now, detail=detail)
    return _shares(conn, endpoint_id)


def unshare_endpoint(
    conn: Connection,
    endpoint_id: str,
    caller: Identity,
    users: Sequence[str],
    of_groups: Sequence[str],
    now: float,
    address: str | None = None,
) -> Sequence[Share]:
    """Take that back; from everybody if nobody is named. What was submitted before still runs. Returns who still may.

    Raises:
        EndpointNotFound, EndpointAccessForbidden: see `rules.check_manage`.
        NotFound: one of them does not exist.
    """
    rules.check_manage(find_endpoint(conn, endpoint_id), endpoint_id, caller)
    user_ids, group_ids = find_grantees(conn, users, of_groups)
    ids = [*user_ids, *group_ids] or [share.id for share in _shares(conn, endpoint_id)]
    where = (endpoint_shares.c.endpoint_id == endpoint_id, endpoint_shares.c.grantee_id.in_(ids))
    conn.execute(delete(endpoint_shares).where(*where))
    detail = {"ids": ids}
    record(conn, actor_of(caller, address), "endpoint.unshare", "endpoint", endpoint_id, at=now, detail=detail)
    return _shares(conn, endpoint_id)


def shares_of(conn: Connection, endpoint_id: str, caller: Identity) -> Sequence[Share]:
    """With whom an endpoint is shared, people first, each by name. Raises EndpointNotFound, EndpointAccessForbidden."""
    rules.check_manage(find_endpoint(conn, endpoint_id), endpoint_id, caller)
    return _shares(conn, endpoint_id)


def _shares(conn: Connection, endpoint_id: str) -> Sequence[Share]:
    rows = conn.execute(_SHARES_WITH_NAMES, {"id": endpoint_id}).all()
    found = [
        Share(
            id=row.grantee_id,
            name=row.group_name if row.is_group else row.username,
            is_group=bool(row.is_group),
            created_at=row.created_at,
        )
        for row in rows
        if (row.group_name if row.is_group else row.username) is not None  # a group may be gone
    ]
    return sorted(found, key=lambda share: (share.is_group, share.name))


def _check_protection(
    conn: Connection, endpoint: NewEndpoint, caller: Identity, *, is_encrypted: bool
) -> Sequence[str]:
    policy = None if endpoint.policy_id is None else find_policy(conn, endpoint.policy_id)
    subscription = None if endpoint.subscription_id is None else find_subscription(conn, endpoint.subscription_id)
    return rules.check_protection(endpoint, caller, policy, subscription, is_encrypted=is_encrypted)


def find_endpoint(conn: Connection, endpoint_id: str, caller: Identity | None = None) -> Endpoint | None:
    """What decisions need to know, deleted or not.

    Args:
        caller: whose right to see or use it is in question; None: it is not.
    """
    row = _FIND.first(conn, id=endpoint_id)
    return None if row is None else _with_shares(conn, _rights(row), caller)


def _with_shares(conn: Connection, endpoint: Endpoint, caller: Identity | None) -> Endpoint:
    if caller is None or rules.is_manager(endpoint, caller):
        return endpoint  # most are used by their owners, who need not be looked for among the others
    shares = _SHARES.all(conn, id=endpoint.id)
    if not shares:
        return endpoint
    return replace(
        endpoint,
        shared_with=frozenset(row.grantee_id for row in shares if not row.is_group),
        shared_groups=frozenset(row.grantee_id for row in shares if row.is_group),
    )


def read_endpoint(conn: Connection, endpoint_id: str, caller: Identity | None = None) -> StoredEndpoint | None:
    """Everything, deleted or not. `caller`: as for `find_endpoint`."""
    row = conn.execute(_READ, {"id": endpoint_id}).first()
    return None if row is None else _stored(row, _with_shares(conn, _rights(row), caller))


def from_row(row: Any) -> StoredEndpoint:  # a row with the columns of `endpoints`
    """Without `shared_with` and `shared_groups`."""
    return _stored(row, _rights(row))


def _stored(row: Any, rights: Endpoint) -> StoredEndpoint:  # a whole row
    return StoredEndpoint(
        rights=rights,
        display_name=row.display_name,
        description=row.description,
        multi_user=bool(row.multi_user),
        high_assurance=bool(row.high_assurance),
        subscription_id=row.subscription_id,
        subscription_admin_verified=bool(row.subscription_admin_verified),
        metadata=msgspec.json.decode(row.metadata_json),
        ip_address=row.ip_address,
        last_report=None if row.last_report_json is None else msgspec.json.decode(row.last_report_json),
        last_seen_at=row.last_seen_at,
        attached_at=row.attached_at,
        registered_at=row.registered_at,
        user_runtime=None if row.user_runtime_json is None else msgspec.json.decode(row.user_runtime_json),
        user_options=None if row.user_options_json is None else msgspec.json.decode(row.user_options_json),
        created_at=row.created_at,
    )


def read_user_endpoints(conn: Connection, manager_id: str) -> Sequence[StoredEndpoint]:
    """The user endpoints of a manager that were not deleted, in the order in which they were first asked for."""
    rows = conn.execute(_READ_USER_ENDPOINTS, {"manager": manager_id}).all()
    return [from_row(row) for row in rows]


def list_endpoints(conn: Connection, caller: Identity, own_only: bool) -> Sequence[Mapping[str, Any]]:
    """id, name, display_name and owner_id of the caller's endpoints, or of all that the caller may see; the order
    is that of registration.
    """
    columns = (
        endpoints.c.id,
        endpoints.c.name,
        endpoints.c.display_name,
        endpoints.c.owner_id,
        endpoints.c.public,
        endpoints.c.admins_json,
    )
    statement = (
        select(*columns)
        .where(endpoints.c.deleted_at.is_(None), endpoints.c.manager_id.is_(None))
        .order_by(endpoints.c.created_at)
    )
    if own_only:
        statement = statement.where(endpoints.c.owner_id.in_(caller.linked))
    else:
        mine = [*caller.linked, *caller.groups]
        shared = exists().where(endpoint_shares.c.endpoint_id == endpoints.c.id, endpoint_shares.c.grantee_id.in_(mine))
        statement = statement.where(
            or_(
                endpoints.c.owner_id.in_(caller.linked),
                endpoints.c.public.is_(True),
                shared,
                # Admins are few and kept as text of quoted ids.
                *(endpoints.c.admins_json.contains(each, autoescape=True) for each in caller.linked),
            )
        )
    rows = conn.execute(statement).all()
    return [row._asdict() for row in rows]


def write_reports(conn: Connection, reports: Sequence[tuple[str, str, float]]) -> None:
    """Keep the latest status reports: (endpoint id, JSON object, Unix seconds of its arrival)."""
    conn.execute(
        _REPORT, [{"which": endpoint_id, "report": report, "seen_at": at} for endpoint_id, report, at in reports]
    )


def write_attached(conn: Connection, changes: Mapping[str, float | None]) -> None:
    """Note since when the queues of endpoints have a consumer (Unix seconds; None: they have none)."""
    came = [{"which": endpoint_id, "since": since} for endpoint_id, since in changes.items() if since is not None]
    went = [{"which": endpoint_id} for endpoint_id, since in changes.items() if since is None]
    for statement, rows in ((_CAME, came), (_WENT, went)):
        if rows:
            conn.execute(statement, rows)


def read_attached(conn: Connection) -> Sequence[tuple[str, float, dict[str, Any] | None, float | None]]:
    """The endpoints whose queue has a consumer: id, since when, the last report, and when that came."""
    return [
        (row[0], row[1], None if row[2] is None else msgspec.json.decode(row[2]), row[3])
        for row in conn.execute(_READ_ATTACHED).all()
    ]


def read_endpoint_queues(conn: Connection) -> Mapping[str, str]:
    """The queue that each endpoint reads: of all that were not deleted."""
    rows = conn.execute(select(endpoints.c.id, endpoints.c.direct).where(endpoints.c.deleted_at.is_(None)))
    return {row.id: task_queue(row.id) if row.direct else command_queue(row.id) for row in rows}


def _set(conn: Connection, endpoint_id: str, **values: Any) -> None:
    conn.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))


def _told(endpoint: NewEndpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "display_name": endpoint.display_name,
        "description": endpoint.description,
        "public": endpoint.public,
        "multi_user": endpoint.multi_user,
        "high_assurance": endpoint.high_assurance,
        "authentication_policy_id": endpoint.policy_id,
        "direct": endpoint.direct,
        "subscription_id": endpoint.subscription_id,
        "allowed_functions_json": endpoint.allowed_functions and encode_text(endpoint.allowed_functions),
        "admins_json": endpoint.admins and encode_text(endpoint.admins),
        "metadata_json": encode_text(endpoint.metadata),
    }


def _said(endpoint: NewEndpoint) -> dict[str, Any]:
    """What the audit table keeps of a registration."""
    return {
        "name": endpoint.name,
        "public": endpoint.public,
        "admins": list(endpoint.admins or ()),
        "authentication_policy": endpoint.policy_id,
        "high_assurance": endpoint.high_assurance,
    }


_which = endpoints.c.id == bindparam("id")
_FIND = Prepared(
    select(
        endpoints.c.id,
        endpoints.c.owner_id,
        endpoints.c.name,
        endpoints.c.direct,
        endpoints.c.public,
        endpoints.c.admins_json,
        endpoints.c.allowed_functions_json,
        endpoints.c.credential_generation,
        endpoints.c.locked_until,
        endpoints.c.deleted_at,
        endpoints.c.multi_user,
        endpoints.c.manager_id,
        endpoints.c.high_assurance,
        endpoints.c.authentication_policy_id,
        endpoints.c.subscription_id,
    ).where(_which)
)
_SHARES = Prepared(
    select(endpoint_shares.c.grantee_id, endpoint_shares.c.is_group).where(
        endpoint_shares.c.endpoint_id == bindparam("id")
    )
)
_SHARES_WITH_NAMES = (
    select(endpoint_shares, identities.c.username, groups.c.name.label("group_name"))
    .join_from(endpoint_shares, identities, identities.c.id == endpoint_shares.c.grantee_id, isouter=True)
    .join(groups, groups.c.id == endpoint_shares.c.grantee_id, isouter=True)
    .where(endpoint_shares.c.endpoint_id == bindparam("id"))
)
_READ = select(endpoints).where(_which)
_READ_USER_ENDPOINTS = (
    select(endpoints)
    .where(endpoints.c.manager_id == bindparam("manager"), endpoints.c.deleted_at.is_(None))
    .order_by(endpoints.c.created_at, endpoints.c.id)
)
_REPORT = (
    update(endpoints)
    .where(
        endpoints.c.id == bindparam("which"),
        # Several relays take reports in; one may come to write later than its successor.
        or_(endpoints.c.last_seen_at.is_(None), endpoints.c.last_seen_at <= bindparam("seen_at")),
    )
    .values(last_report_json=bindparam("report"), last_seen_at=bindparam("seen_at"))
)
_CAME = update(endpoints).where(endpoints.c.id == bindparam("which")).values(attached_at=bindparam("since"))
# Most that are said to have none had none before.
_WENT = (
    update(endpoints)
    .where(endpoints.c.id == bindparam("which"), endpoints.c.attached_at.is_not(None))
    .values(attached_at=None)
)
_READ_ATTACHED = select(
    endpoints.c.id, endpoints.c.attached_at, endpoints.c.last_report_json, endpoints.c.last_seen_at
).where(endpoints.c.attached_at.is_not(None), endpoints.c.deleted_at.is_(None))


def _rights(row: Any) -> Endpoint:  # a row with the columns of _FIND
    allowed = row.allowed_functions_json
    return Endpoint(
        id=row.id,
        owner_id=row.owner_id,
        name=row.name,
        direct=bool(row.direct),
        public=bool(row.public),
        admins=frozenset(msgspec.json.decode(row.admins_json)) if row.admins_json else frozenset(),
        allowed_functions=frozenset(msgspec.json.decode(allowed)) if allowed else None,
        credential_generation=row.credential_generation,
        locked_until=row.locked_until,
        is_deleted=row.deleted_at is not None,
        multi_user=bool(row.multi_user),
        manager_id=row.manager_id,
        high_assurance=bool(row.high_assurance),
        policy_id=row.authentication_policy_id,
        subscription_id=row.subscription_id,
    )
