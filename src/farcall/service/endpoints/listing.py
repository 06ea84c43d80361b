"""HTTP of the list of endpoints and of one endpoint as people see them, in the console and in scripts. Ours.

Who sees what is as for the routes that clients of the ecosystem use (`routes`).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Identity
from farcall.service.context import caller_of, service_of
from farcall.service.endpoints import listing_store, rules
from farcall.service.endpoints.documents import integer_of, text_of
from farcall.service.endpoints.listing_store import EndpointQuery, Kind, Listed
from farcall.service.endpoints.sight import visible
from farcall.service.endpoints.store import StoredEndpoint
from farcall.service.web import queries
from farcall.service.web.bodies import json_response
from farcall.service.web.cursors import page_parameters
from farcall.service.web.openapi import described
from farcall.wire.errors import EndpointAccessForbidden, EndpointNotFound

__all__ = ["SHAPES", "Owner", "router"]

router: Final = APIRouter()


class Owner(msgspec.Struct, kw_only=True):
    """Whose something is."""

    id: str
    username: str


class EndpointSummary(msgspec.Struct, kw_only=True):
    """One endpoint of GET /v3/endpoints. What is not known is null; times are Unix seconds.

    `kind`: `direct` runs tasks itself; `manager` starts user endpoints, which run them; `user` is one of those.
    `can_manage`: the caller has its owner's rights; `can_use`: the caller may submit to it (its authentication policy
    may still ask for another login). Numbers are those of its last report; a manager reports none.
    """

    endpoint_id: str
    name: str
    display_name: str | None
    kind: str
    multi_user: bool
    manager_id: str | None
    owner: Owner
    is_mine: bool
    can_manage: bool
    can_use: bool
    status: str
    hostname: str | None
    ip_address: str | None
    local_user: str | None
    total_workers: int | None
    idle_workers: int | None
    outstanding_tasks: int | None
    pending_tasks: int | None
    managers: int | None
    high_assurance: bool
    public: bool
    last_report: float | None


class EndpointPage(msgspec.Struct, kw_only=True):
    """GET /v3/endpoints. `total`: how many match in all; `next_cursor`: for the next page, null if there is none."""

    endpoints: list[EndpointSummary]
    total: int
    next_cursor: str | None


class EndpointDetail(EndpointSummary, kw_only=True):
    """GET /v3/endpoints/{id}: also what was said when it was registered.

    `endpoint_config` is for those who manage it; `user_config_template` and `user_config_schema` also for those who may
    submit, since they have to give the options. `user_endpoint_config`, of a user endpoint: the options it was started
    with, for its user and who manages its manager.
    """

    description: str | None
    endpoint_version: str | None
    python_version: str | None
    sdk_version: str | None
    created_at: float
    registered_at: float
    attached_at: float | None
    engine_type: str | None
    provider_type: str | None
    authentication_policy: str | None
    subscription_uuid: str | None
    subscription_admin_verified: bool
    allowed_functions: list[str] | None
    endpoint_config: str | None
    user_config_template: str | None
    user_config_schema: Any
    user_endpoint_config: dict[str, Any] | None


SHAPES: Final = (Owner, EndpointSummary, EndpointPage, EndpointDetail)
_DEFAULT_LIMIT: Final = 100
_LARGEST_LIMIT: Final = 500
_KINDS: Final[tuple[Kind, ...]] = ("direct", "manager", "user")


@router.get(
    "/v3/endpoints",
    **described(
        "Endpoints that the caller may see, by name (ours)",
        returns=EndpointPage,
        tag="endpoints",
        parameters=[
            {
                "name": "role",
                "in": "query",
                "description": "any: all that the caller may see; owner: the caller's own",
                "schema": {"type": "string", "enum": ["any", "owner"], "default": "any"},
            },
            {
                "name": "search",
                "in": "query",
                "description": "text in name, display name, description or owner's name; or an id",
                "schema": {"type": "string"},
            },
            {"name": "online", "in": "query", "schema": {"type": "boolean"}},
            {"name": "multi_user", "in": "query", "schema": {"type": "boolean"}},
            {
                "name": "kind",
                "in": "query",
                "description": "without it: `direct` and `manager`; `user`: one's own user endpoints, and those of "
                "managers that one manages",
                "schema": {"type": "string", "enum": list(_KINDS)},
            },
            {
                "name": "manager_id",
                "in": "query",
                "description": "only user endpoints of this manager",
                "schema": {"type": "string", "format": "uuid"},
            },
            *page_parameters(default=_DEFAULT_LIMIT, most=_LARGEST_LIMIT),
        ],
    ),
)
async def list_endpoints(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    given = request.query_params
    kind = queries.one_of(given, "kind", ("", *_KINDS), "")
    query = EndpointQuery(
        own_only=queries.one_of(given, "role", ("any", "owner"), "any") == "owner",
        search=queries.text(given, "search"),
        kind=next((each for each in _KINDS if each == kind), None),
        is_online=queries.boolean(given, "online"),
        multi_user=queries.boolean(given, "multi_user"),
        manager_id=queries.uuid(given, "manager_id"),
        after=queries.uuid(given, queries.CURSOR),
        limit=queries.limit(given, default=_DEFAULT_LIMIT, largest=_LARGEST_LIMIT),
    )
    online = frozenset(await service.online.online()) if query.is_online is not None else None
    page = await service.db.read(listing_store.list_page, caller, query, online)
    entries = [EndpointSummary(**_summary(request, caller, each)) for each in page.endpoints]
    cursor = entries[-1].endpoint_id if page.has_more and entries else None
    return json_response(EndpointPage(endpoints=entries, total=page.total, next_cursor=cursor))


@router.get(
    "/v3/endpoints/{endpoint_id}",
    **described(
        "One endpoint, with what its user or its owner wants to know (ours)",
        returns=EndpointDetail,
        errors=[EndpointNotFound, EndpointAccessForbidden],
        tag="endpoints",
    ),
)
async def get_endpoint(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    sight = await visible(request, endpoint_id, caller)
    stored = sight.stored
    owner_name = (await service.db.read(listing_store.names_of, {stored.rights.owner_id})).get(
        stored.rights.owner_id, ""
    )
    is_on_site = sight.can_manage and not rules.is_manager(stored.rights, caller)
    summary = _summary(request, caller, Listed(stored=stored, owner_name=owner_name, is_on_site=is_on_site))
    report = service.online.latest(stored)[0] or {}
    told, with_options = stored.metadata, summary["can_manage"] or summary["can_use"]
    allowed = stored.rights.allowed_functions
    return json_response(
        EndpointDetail(
            **summary,
            description=stored.description,
            endpoint_version=text_of(told, "endpoint_version"),
            python_version=text_of(told, "python_version"),
            sdk_version=text_of(told, "sdk_version"),
            created_at=stored.created_at,
            registered_at=stored.registered_at,
            attached_at=stored.attached_at,
            engine_type=text_of(report, "engine_type"),
            provider_type=text_of(report, "provider_type"),
            authentication_policy=stored.rights.policy_id,
            subscription_uuid=stored.subscription_id,
            subscription_admin_verified=stored.subscription_admin_verified,
            allowed_functions=None if allowed is None else sorted(allowed),
            endpoint_config=text_of(told, "endpoint_config") if summary["can_manage"] else None,
            user_config_template=text_of(told, "user_config_template") if with_options else None,
            user_config_schema=told.get("user_config_schema") if with_options else None,
            user_endpoint_config=dict(stored.user_options) if stored.user_options and summary["can_manage"] else None,
        )
    )


def _summary(request: Request, caller: Identity, listed: Listed) -> dict[str, Any]:
    """The members of `EndpointSummary`."""
    stored, rights, online = listed.stored, listed.stored.rights, service_of(request).online
    report, reported_at = online.latest(stored)
    numbers = report or {}
    return {
        "endpoint_id": rights.id,
        "name": rights.name,
        "display_name": stored.display_name,
        "kind": _kind(stored),
        "multi_user": rights.multi_user,
        "manager_id": rights.manager_id,
        "owner": Owner(id=rights.owner_id, username=listed.owner_name),
        "is_mine": rights.owner_id in caller.linked,
        "can_manage": listed.is_on_site or rules.is_manager(rights, caller),
        "can_use": _can_use(stored, caller),
        "status": "online" if online.is_online(stored) else "offline",
        "hostname": text_of(stored.metadata, "hostname"),
        "ip_address": stored.ip_address,
        "local_user": text_of(stored.metadata, "local_user") or text_of(numbers, "posix_username"),
        "total_workers": integer_of(numbers, "total_workers"),
        "idle_workers": integer_of(numbers, "idle_workers"),
        "outstanding_tasks": integer_of(numbers, "outstanding_tasks"),
        "pending_tasks": integer_of(numbers, "pending_tasks"),
        "managers": integer_of(numbers, "managers"),
        "high_assurance": rights.high_assurance,
        "public": rights.public,
        "last_report": reported_at,
    }


def _kind(stored: StoredEndpoint) -> Kind:
    if stored.rights.manager_id is not None:
        return "user"
    return "direct" if stored.rights.direct else "manager"


def _can_use(stored: StoredEndpoint, caller: Identity) -> bool:
    try:
        rules.check_use(stored.rights, stored.rights.id, caller)
    except EndpointAccessForbidden:
        return False
    return True
