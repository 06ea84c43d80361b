"""The documents of the routes for operators. Times are Unix seconds; what is not known is null."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = [
    "SHAPES",
    "AuditEntry",
    "AuditPage",
    "BrokerHealth",
    "ClientPage",
    "ClientSummary",
    "DiskHealth",
    "GivenPassword",
    "GroupMember",
    "GroupPage",
    "GroupSummary",
    "NewUser",
    "ProcessHealth",
    "QueueDepth",
    "RelayHealth",
    "ServiceHealth",
    "StoreHealth",
    "UserPage",
    "UserSummary",
]


class UserSummary(msgspec.Struct, kw_only=True):
    """One identity.

    `kind`: `user`, or `client` for a program with a secret. `provider`: who vouches for it, null: this service.
    `person_id` is the same for linked identities. `last_login_at`: when it was last given a token that is still known.
    """

    id: str
    username: str
    kind: str
    display_name: str | None
    email: str | None
    organization: str | None
    provider: str | None
    person_id: str
    is_admin: bool
    has_password: bool
    has_totp: bool
    created_at: float
    disabled_at: float | None
    last_login_at: float | None = None


class UserPage(msgspec.Struct, kw_only=True):
    """GET /v3/admin/users, by user name."""

    users: list[UserSummary]
    total: int
    next_cursor: str | None


class NewUser(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v3/admin/users. `username` without domain, or with the local one."""

    username: str
    display_name: str | None = None
    email: str | None = None
    organization: str | None = None


class GivenPassword(msgspec.Struct, kw_only=True):
    """A password that is shown only now, and has to be changed at the next login."""

    user: UserSummary
    password: str


class ClientSummary(msgspec.Struct, kw_only=True):
    """One registered program. `owner_id`: who answers for it, null: whoever runs the service."""

    client_id: str
    name: str
    is_confidential: bool
    redirect_uris: list[str]
    owner_id: str | None
    created_at: float
    revoked_at: float | None


class ClientPage(msgspec.Struct, kw_only=True):
    """GET /v3/admin/clients, by name."""

    clients: list[ClientSummary]
    total: int
    next_cursor: str | None


class GroupMember(msgspec.Struct, kw_only=True):
    """Somebody in a group; `role`: `member` or `manager`."""

    identity_id: str
    username: str
    role: str


class GroupSummary(msgspec.Struct, kw_only=True):
    """One group, with its members by name."""

    id: str
    name: str
    description: str | None
    created_at: float
    members: list[GroupMember]


class GroupPage(msgspec.Struct, kw_only=True):
    """GET /v3/admin/groups, by name."""

    groups: list[GroupSummary]
    total: int
    next_cursor: str | None


class AuditEntry(msgspec.Struct, kw_only=True):
    """One thing that somebody did, or was refused (`outcome`: `done`, `refused`)."""

    seq: int
    at: float
    actor_id: str | None
    actor_name: str
    action: str
    object_kind: str | None
    object_id: str | None
    address: str | None
    outcome: str
    detail: dict[str, Any]


class AuditPage(msgspec.Struct, kw_only=True):
    """GET /v3/admin/audit, newest first."""

    entries: list[AuditEntry]
    next_cursor: str | None


class StoreHealth(msgspec.Struct, kw_only=True):
    """The database: `kind` is `sqlite` or `postgresql`; `schema` the revision of the tables."""

    kind: str
    is_up: bool
    version: str | None
    schema: str | None
    size_bytes: int | None


class QueueDepth(msgspec.Struct, kw_only=True):
    """Messages in the broker, by kind of queue."""

    kind: str
    waiting: int
    unacknowledged: int


class BrokerHealth(msgspec.Struct, kw_only=True):
    """The broker: `kind` is `embedded` or `rabbitmq`; `address` without a password."""

    kind: str
    is_up: bool
    address: str | None
    queues: list[QueueDepth]


class RelayHealth(msgspec.Struct, kw_only=True):
    """A relay process, of several. `silent_s`: since it was last heard of; above 10 it is taken for dead."""

    id: str
    host: str
    silent_s: float


class ProcessHealth(msgspec.Struct, kw_only=True):
    """The process that answers. `slots`: how many 64ths of the endpoints it feeds."""

    hostname: str
    pid: int
    role: str
    version: str
    python_version: str
    started_at: float
    memory_bytes: int | None
    cpu_s: float
    open_files: int | None
    slots: int | None
    oldest_unstored_result_s: float
    tasks_accepted: int
    tasks_succeeded: int
    tasks_failed: int
    requests_refused: int
    results_dropped: int


class DiskHealth(msgspec.Struct, kw_only=True):
    """The file system of the data directory."""

    path: str
    total_bytes: int
    free_bytes: int


class ServiceHealth(msgspec.Struct, kw_only=True):
    """GET /v3/admin/health. `faults` says in words what is wrong; empty if nothing is (`ready`).

    `endpoints` counts by `direct`, `manager`, `user`; `endpoint_versions` by version of the agent. `tasks` counts by
    state. `certificate_expires_at`: of this service's own; null without TLS.
    """

    ready: bool
    faults: list[str]
    now: float
    version: str
    api_version: str
    store: StoreHealth
    broker: BrokerHealth
    process: ProcessHealth
    relays: list[RelayHealth]
    disk: DiskHealth | None
    endpoints: dict[str, int]
    endpoints_online: int
    endpoint_versions: dict[str, int]
    tasks: dict[str, int]
    users: int
    clients: int
    certificate_expires_at: float | None


SHAPES: Final = (
    AuditEntry,
    AuditPage,
    BrokerHealth,
    ClientPage,
    ClientSummary,
    DiskHealth,
    GivenPassword,
    GroupMember,
    GroupPage,
    GroupSummary,
    NewUser,
    ProcessHealth,
    QueueDepth,
    RelayHealth,
    ServiceHealth,
    StoreHealth,
    UserPage,
    UserSummary,
)
