"""The documents in which endpoints are shown, and how they are made of what is stored and reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farcall.service.endpoints.store import StoredEndpoint

__all__ = [
    "AllowedFunctions",
    "ConsoleDocument",
    "EndpointDocument",
    "EndpointEntry",
    "EndpointLock",
    "EndpointStatus",
    "UserEndpoint",
    "console_document",
    "integer_of",
    "text_of",
    "endpoint_document",
]


class EndpointEntry(msgspec.Struct, kw_only=True):
    """One line of GET /v2/endpoints."""

    uuid: str
    name: str
    display_name: str | None
    owner: str


class EndpointDocument(msgspec.Struct, kw_only=True):
    """GET /v2/endpoints/{id}. What an agent did not tell is null.

    `credential_generation` (ours) is the number at the end of the broker user name that counts.
    """

    uuid: str
    name: str
    display_name: str | None
    multi_user: bool
    high_assurance: bool
    public: bool
    endpoint_config: str | None
    user_config_template: str | None
    user_config_schema: Any
    description: str | None
    hostname: str | None
    local_user: str | None
    ip_address: str | None
    endpoint_version: str | None
    sdk_version: str | None
    python_version: str | None
    subscription_uuid: str | None
    subscription_admin_verified: bool
    owner: str
    credential_generation: int
    authentication_policy: str | None = None


class EndpointStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """GET /v2/endpoints/{id}/status. `details` is the last status report, `last_report` when it came (Unix seconds)."""

    status: str
    details: dict[str, Any]
    last_report: float | None = None


class EndpointLock(msgspec.Struct, kw_only=True):
    """POST …/lock: Unix seconds in v3, ISO 8601 text in v2."""

    endpoint_id: str
    lock_expiration_timestamp: float | str


class AllowedFunctions(msgspec.Struct, kw_only=True):
    """GET /v3/endpoints/{id}/allowed_functions."""

    endpoint_id: str
    restricted: bool
    functions: list[str]


class UserEndpoint(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What runs tasks: the endpoint itself, or a manager's user endpoint. What its engine does not report is left out.

    `identity_id` and `username` (ours): whose it is.
    """

    user_endpoint_id: str
    active: bool
    identity_id: str
    username: str | None = None
    python_version: str | None = None
    endpoint_version: str | None = None
    client_sdk_versions: list[str] | None = None
    posix_pid: int | None = None
    posix_username: str | None = None
    start_time_iso: str | None = None
    start_time_unix: float | None = None
    last_heartbeat_unix: float | None = None
    running_task_count: int | None = None
    queued_task_count: int | None = None
    executed_task_count: int | None = None
    total_worker_count: int | None = None
    idle_worker_count: int | None = None
    total_node_count: int | None = None
    node_info: dict[str, Any] | None = None
    engine_type: str | None = None
    provider_type: str | None = None
    account: str | None = None
    queue: str | None = None
    config: str | None = None


class ConsoleDocument(msgspec.Struct, kw_only=True):
    """GET /v3/endpoints/{id}/console."""

    user_endpoints: list[UserEndpoint]


def endpoint_document(stored: StoredEndpoint, *, with_config: bool, with_template: bool) -> EndpointDocument:
    """An endpoint as REST shows it.

    Args:
        with_config: also its configuration, which may name things that are nobody else's business.
        with_template: also what configurations of user endpoints are made of, and what options may be.
    """
    told, rights = stored.metadata, stored.rights
    return EndpointDocument(
        uuid=rights.id,
        name=rights.name,
        display_name=stored.display_name,
        multi_user=stored.multi_user,
        high_assurance=stored.high_assurance,
        authentication_policy=stored.rights.policy_id,
        public=rights.public,
        endpoint_config=text_of(told, "endpoint_config") if with_config else None,
        user_config_template=text_of(told, "user_config_template") if with_template else None,
        user_config_schema=told.get("user_config_schema") if with_template else None,
        description=stored.description,
        hostname=text_of(told, "hostname"),
        local_user=text_of(told, "local_user"),
        ip_address=stored.ip_address,
        endpoint_version=text_of(told, "endpoint_version"),
        sdk_version=text_of(told, "sdk_version"),
        python_version=text_of(told, "python_version"),
        subscription_uuid=stored.subscription_id,
        subscription_admin_verified=stored.subscription_admin_verified,
        owner=rights.owner_id,
        credential_generation=rights.credential_generation,
    )


def console_document(
    stored: StoredEndpoint,
    report: Mapping[str, Any] | None,
    reported_at: float | None,
    *,
    is_online: bool,
    owner_name: str | None,
    with_config: bool,
) -> UserEndpoint:
    """What the last status report of an endpoint or user endpoint says, in the console's words.

    Source: wire protocol, `global_state`; members are taken only where they have the expected type.
    """
    state = report or {}
    total, outstanding, pending = (_number(state, key) for key in ("total_tasks", "outstanding_tasks", "pending_tasks"))
    nodes = state.get("node_info")
    node = _some_node(nodes) or state
    sdk = text_of(stored.user_runtime or {}, "globus_compute_sdk_version")
    running = None if outstanding is None else max(0, int(outstanding - (pending or 0)))
    executed = None if total is None or outstanding is None else max(0, int(total - outstanding))
    return UserEndpoint(
        user_endpoint_id=stored.rights.id,
        active=is_online,
        identity_id=stored.rights.owner_id,
        username=owner_name,
        python_version=text_of(stored.metadata, "python_version") or text_of(node, "python_version"),
        endpoint_version=text_of(stored.metadata, "endpoint_version") or text_of(node, "endpoint_version"),
        client_sdk_versions=None if sdk is None else [sdk],
        posix_pid=integer_of(state, "posix_pid"),
        posix_username=text_of(state, "posix_username"),
        start_time_iso=text_of(state, "start_iso"),
        start_time_unix=_number(state, "start_unix"),
        last_heartbeat_unix=reported_at,
        running_task_count=running,
        queued_task_count=integer_of(state, "pending_tasks"),
        executed_task_count=executed,
        total_worker_count=integer_of(state, "total_workers"),
        idle_worker_count=integer_of(state, "idle_workers"),
        total_node_count=integer_of(state, "managers"),
        node_info=dict(nodes) if isinstance(nodes, Mapping) else None,
        engine_type=text_of(state, "engine_type"),
        provider_type=text_of(state, "provider_type"),
        account=text_of(state, "account"),
        queue=text_of(state, "queue"),
        config=text_of(state, "config_raw") if with_config else None,
    )


def _some_node(nodes: Any) -> Mapping[str, Any]:
    """One of the nodes in a report; all of them run the same."""
    for listed in nodes.values() if isinstance(nodes, Mapping) else ():
        for node in listed if isinstance(listed, list) else ():
            if isinstance(node, Mapping):
                return node
    return {}


def text_of(members: Mapping[str, Any], key: str) -> str | None:
    value = members.get(key)
    return value if isinstance(value, str) else None


def _number(members: Mapping[str, Any], key: str) -> float | None:
    value = members.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 2**53:
        return None
    return value


def integer_of(members: Mapping[str, Any], key: str) -> int | None:
    value = _number(members, key)
    return None if value is None else int(value)
