"""HTTP of endpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.cluster.signals import EndpointChange, EndpointChanged, Signal
from farcall.service.context import caller_of, host_of, peer_of, service_of
from farcall.service.endpoints import listing_store, live_store, rules, store
from farcall.service.endpoints.documents import (
    AllowedFunctions,
    ConsoleDocument,
    EndpointDocument,
    EndpointEntry,
    EndpointLock,
    EndpointStatus,
    console_document,
    endpoint_document,
)
from farcall.service.endpoints.live_store import UserRow
from farcall.service.endpoints.sight import existing, visible
from farcall.service.endpoints.store import Registered, Share, StoredEndpoint
from farcall.service.functions.routes import Deleted
from farcall.service.ids import canonical_uuid, new_id
from farcall.service.managers.commands import queue_infos
from farcall.service.web.bodies import json_response, read_json, without_nones
from farcall.service.web.openapi import described
from farcall.wire.errors import (
    EndpointAccessForbidden,
    EndpointNotFound,
    Forbidden,
    InvalidRequest,
    NotFound,
    ResourceLocked,
)
from farcall.wire.rest import EndpointRegistration, QueueInfo, RegistrationResponse, to_document
from farcall.wire.topology import BrokerUser, UserKind, command_queue

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()


class Verification(msgspec.Struct, kw_only=True):
    """PUT …/subscription-admin-verified, both ways."""

    subscription_admin_verified: bool


class Grantee(msgspec.Struct, kw_only=True):
    """Somebody with whom an endpoint is shared: `kind` is `identity` or `group`; `created_at` in Unix seconds."""

    kind: str
    id: str
    name: str
    created_at: float


class Shares(msgspec.Struct, kw_only=True):
    """With whom an endpoint is shared, and what that means."""

    endpoint_id: str
    shares: list[Grantee]
    notice: str


class SharesWanted(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """PUT …/shares: user names or ids, names or ids of groups. Those that have been there stay."""

    identities: list[str] = []
    groups: list[str] = []


SHAPES: Final = (
    Grantee,
    Shares,
    SharesWanted,
    EndpointRegistration,
    RegistrationResponse,
    EndpointEntry,
    EndpointDocument,
    EndpointStatus,
    EndpointLock,
    AllowedFunctions,
    ConsoleDocument,
    Verification,
)
_registration: Final = msgspec.json.Decoder(EndpointRegistration)
_verification: Final = msgspec.json.Decoder(Verification)
_shares_wanted: Final = msgspec.json.Decoder(SharesWanted)
_SHARE_NOTICE: Final = (
    "Whoever an endpoint is shared with runs any function there as its owner's account on that machine: with the "
    "owner's files, keys and jobs."
)
_SHARES_AT_ONCE: Final = 1000
_THERE: Final = [EndpointNotFound, EndpointAccessForbidden]


@router.post(
    "/v3/endpoints",
    **described(
        "Register an endpoint for the first time",
        body=EndpointRegistration,
        returns=RegistrationResponse,
        errors=[NotFound],
        tag="endpoints",
    ),
)
@router.post(
    "/v2/endpoints",
    **described(
        "Register an endpoint for the first time (clients of old releases)",
        body=EndpointRegistration,
        returns=RegistrationResponse,
        errors=[NotFound],
        tag="endpoints",
    ),
)
async def register_endpoint(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    plan = rules.plan_registration(await read_json(request, _registration))
    endpoint_id = new_id()
    registered = await service.db.write(
        store.add_endpoint,
        endpoint_id,
        caller,
        plan,
        peer_of(request),
        service.clock(),
        _is_encrypted(request),
        host_of(request),
        announce=_registration_of(endpoint_id, plan.direct),
    )
    service.relay.endpoint_registered(endpoint_id, registered.generation, is_direct=plan.direct)
    return _registered(request, endpoint_id, registered, is_direct=plan.direct)


@router.put(
    "/v3/endpoints/{endpoint_id}",
    **described(
        "Register an endpoint again: replaces what was told before, and ends an older process of it",
        body=EndpointRegistration,
        returns=RegistrationResponse,
        errors=[*_THERE, ResourceLocked, NotFound],
        tag="endpoints",
    ),
)
async def register_endpoint_again(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    plan = rules.plan_registration(await read_json(request, _registration))
    registered = await service.db.write(
        store.register_again,
        endpoint_id,
        caller,
        plan,
        peer_of(request),
        service.clock(),
        _is_encrypted(request),
        host_of(request),
        then=lambda outcome: service.relay.endpoint_registered(endpoint_id, outcome.generation, is_direct=plan.direct),
        announce=_registration_of(endpoint_id, plan.direct),
    )
    return _registered(request, endpoint_id, registered, is_direct=plan.direct)


@router.get(
    "/v2/endpoints",
    **described(
        "List endpoints",
        returns={"type": "array", "items": {"$ref": "#/components/schemas/EndpointEntry"}},
        tag="endpoints",
        parameters=[
            {
                "name": "role",
                "in": "query",
                "description": "owner: the caller's own; any: all that the caller may see",
                "schema": {"type": "string", "enum": ["owner", "any"], "default": "owner"},
            }
        ],
    ),
)
async def list_endpoints(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    role = request.query_params.get("role", "owner")
    if role not in ("owner", "any"):
        raise InvalidRequest(f"query parameter 'role' must be 'owner' or 'any', not {role[:40]!r}.")
    found = await service.db.read(store.list_endpoints, caller, role == "owner")
    return json_response(
        [
            EndpointEntry(uuid=each["id"], name=each["name"], display_name=each["display_name"], owner=each["owner_id"])
            for each in found
        ]
    )


@router.get(
    "/v2/endpoints/{endpoint_id}",
    **described("One endpoint", returns=EndpointDocument, errors=_THERE, tag="endpoints"),
)
async def get_endpoint(request: Request, endpoint_id: str) -> Response:
    caller = await caller_of(request)
    stored = (await visible(request, endpoint_id, caller)).stored
    document = endpoint_document(
        stored,
        with_config=rules.is_manager(stored.rights, caller),
        with_template=rules.may_see_template(stored.rights, caller),
    )
    return json_response(document)


@router.get(
    "/v2/endpoints/{endpoint_id}/status",
    **described("Whether an endpoint is online", returns=EndpointStatus, errors=_THERE, tag="endpoints"),
)
async def get_endpoint_status(request: Request, endpoint_id: str) -> Response:
    caller = await caller_of(request)
    stored = (await visible(request, endpoint_id, caller)).stored
    report, reported_at = _latest_report(request, stored)
    details = dict(report or {})
    if not rules.is_manager(stored.rights, caller):
        details.pop("config_raw", None)
    is_online = service_of(request).online.is_online(stored)
    status = "online" if is_online else "offline"
    return json_response(EndpointStatus(status=status, details=details, last_report=reported_at))


@router.post(
    "/v3/endpoints/{endpoint_id}/lock",
    **described(
        "Stop an endpoint remotely: cut its connections, and refuse its registration for a moment",
        returns=EndpointLock,
        errors=_THERE,
        tag="endpoints",
    ),
)
async def lock_endpoint(request: Request, endpoint_id: str) -> Response:
    endpoint_id, until = await _lock(request, endpoint_id)
    return json_response(EndpointLock(endpoint_id=endpoint_id, lock_expiration_timestamp=until))


@router.post(
    "/v2/endpoints/{endpoint_id}/lock",
    **described(
        "Stop an endpoint remotely (clients of old releases: time as text)",
        returns=EndpointLock,
        errors=_THERE,
        tag="endpoints",
    ),
)
async def lock_endpoint_v2(request: Request, endpoint_id: str) -> Response:
    endpoint_id, until = await _lock(request, endpoint_id)
    text = datetime.fromtimestamp(until, timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")
    return json_response(EndpointLock(endpoint_id=endpoint_id, lock_expiration_timestamp=text))


@router.delete(
    "/v2/endpoints/{endpoint_id}",
    **described("Delete an endpoint; its open tasks fail", returns=Deleted, errors=_THERE, tag="endpoints"),
)
@router.delete(
    "/v3/endpoints/{endpoint_id}",
    **described("Delete an endpoint; its open tasks fail", returns=Deleted, errors=_THERE, tag="endpoints"),
)
async def delete_endpoint(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    await service.db.write(
        store.delete_endpoint,
        endpoint_id,
        caller,
        service.clock(),
        peer_of(request),
        then=service.relay.endpoints_deleted,
        announce=_changed("deleted"),
    )
    return json_response(Deleted())


@router.get(
    "/v3/endpoints/{endpoint_id}/allowed_functions",
    **described(
        "The functions that an endpoint restricts itself to", returns=AllowedFunctions, errors=_THERE, tag="endpoints"
    ),
)
async def get_allowed_functions(request: Request, endpoint_id: str) -> Response:
    caller = await caller_of(request)
    stored = (await visible(request, endpoint_id, caller)).stored
    allowed = stored.rights.allowed_functions
    return json_response(
        AllowedFunctions(endpoint_id=stored.rights.id, restricted=allowed is not None, functions=sorted(allowed or ()))
    )


@router.get(
    "/v3/endpoints/{endpoint_id}/console",
    **described(
        "What works behind an endpoint, as last reported",
        returns=ConsoleDocument,
        errors=_THERE,
        tag="endpoints",
        parameters=[
            {"name": "user_endpoint_id", "in": "query", "schema": {"type": "string", "format": "uuid"}},
            {
                "name": "include_fields",
                "in": "query",
                "description": "comma-separated; `config` is shown only if it is named here",
                "schema": {"type": "string"},
            },
        ],
    ),
)
async def get_console(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    stored = await existing(request, endpoint_id, caller)
    if stored.rights.manager_id is None or not (await visible(request, endpoint_id, caller)).can_manage:
        rules.check_manage(stored.rights, stored.rights.id, caller)
    wanted = request.query_params.get("user_endpoint_id")
    wanted = None if wanted is None else canonical_uuid(wanted, "query parameter 'user_endpoint_id'")
    fields = [field.strip() for text in request.query_params.getlist("include_fields") for field in text.split(",")]
    entries = []
    for each in await _working(request, stored):
        report, reported_at = _latest_report(request, each.stored)
        is_online = service.online.is_online(each.stored)
        if each.stored.rights.manager_id is None:
            is_shown = report is not None
        else:  # who asks for one, or has asked one itself, is answered
            is_shown = each.stored.rights.id in (wanted, stored.rights.id) or rules.is_user_endpoint_shown(
                is_online=is_online, reported_at=reported_at, has_open_tasks=each.has_open_tasks
            )
        if is_shown and wanted in (None, each.stored.rights.id):
            entries.append(
                console_document(
                    each.stored,
                    report,
                    reported_at,
                    is_online=is_online,
                    owner_name=each.owner_name,
                    with_config="config" in fields,
                )
            )
    return json_response(ConsoleDocument(user_endpoints=entries))


@router.put(
    "/v3/endpoints/{endpoint_id}/subscription-admin-verified",
    **described(
        "Set the seal of the organisation (administrators of the service)",
        body=Verification,
        returns=Verification,
        errors=[EndpointNotFound, Forbidden],
        tag="endpoints",
    ),
)
async def set_verified(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    wanted = await read_json(request, _verification)
    await service.db.write(store.set_verified, endpoint_id, caller, wanted.subscription_admin_verified)
    return json_response(wanted)


@router.get(
    "/v3/endpoints/{endpoint_id}/shares",
    **described("With whom an endpoint is shared (ours)", returns=Shares, errors=_THERE, tag="endpoints"),
)
async def get_shares(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    return _shares(endpoint_id, await service.db.read(store.shares_of, endpoint_id, caller))


@router.put(
    "/v3/endpoints/{endpoint_id}/shares",
    **described(
        "Let people and groups run functions as the endpoint's owner (ours)",
        body=SharesWanted,
        returns=Shares,
        errors=[*_THERE, NotFound],
        tag="endpoints",
    ),
)
async def share_endpoint(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    wanted = await read_json(request, _shares_wanted)
    users, groups = wanted.identities, wanted.groups
    if not 0 < len(users) + len(groups) <= _SHARES_AT_ONCE:
        raise InvalidRequest(f"name 1 to {_SHARES_AT_ONCE} people or groups, in members 'identities' and 'groups'.")
    now = service.clock()
    found = await service.db.write(store.share_endpoint, endpoint_id, caller, users, groups, now, peer_of(request))
    return _shares(endpoint_id, found)


@router.delete(
    "/v3/endpoints/{endpoint_id}/shares",
    **described(
        "Share an endpoint no longer with these, or, if none is named, with anybody (ours)",
        returns=Shares,
        errors=[*_THERE, NotFound],
        tag="endpoints",
        parameters=[
            {
                "name": name,
                "in": "query",
                "description": "name or id; may be repeated",
                "schema": {"type": "array", "items": {"type": "string"}},
            }
            for name in ("identity", "group")
        ],
    ),
)
async def unshare_endpoint(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    query = request.query_params
    users, groups = query.getlist("identity"), query.getlist("group")
    now = service.clock()
    found = await service.db.write(store.unshare_endpoint, endpoint_id, caller, users, groups, now, peer_of(request))
    return _shares(endpoint_id, found)


def _shares(endpoint_id: str, found: Sequence[Share]) -> Response:
    shares = [
        Grantee(kind="group" if each.is_group else "identity", id=each.id, name=each.name, created_at=each.created_at)
        for each in found
    ]
    return json_response(Shares(endpoint_id=endpoint_id, shares=shares, notice=_SHARE_NOTICE))


def _id(text: str) -> str:
    return canonical_uuid(text, "the endpoint id in the path")


def _is_encrypted(request: Request) -> bool:
    """Whether nobody on the way can read what goes to us and to the broker."""
    nobody = BrokerUser(kind=UserKind.ENDPOINT, id="", generation=0)
    url = service_of(request).broker_url(nobody, host_of(request))
    return request.url.scheme == "https" and url.startswith("amqps:")


async def _working(request: Request, stored: StoredEndpoint) -> Sequence[UserRow]:
    """What may work tasks: a manager's user endpoints, or the endpoint itself."""
    service = service_of(request)
    if not stored.rights.direct:
        return await service.db.read(live_store.read_users, stored.rights.id)
    names = await service.db.read(listing_store.names_of, {stored.rights.owner_id})
    return [UserRow(stored=stored, owner_name=names.get(stored.rights.owner_id), has_open_tasks=False)]


def _latest_report(request: Request, stored: StoredEndpoint) -> tuple[dict[str, Any] | None, float | None]:
    return service_of(request).online.latest(stored)


async def _lock(request: Request, endpoint_id: str) -> tuple[str, float]:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = _id(endpoint_id)
    now, lock_s = service.clock(), service.settings.lock_s
    await service.db.write(
        store.lock_endpoint,
        endpoint_id,
        caller,
        now,
        lock_s,
        peer_of(request),
        then=service.relay.endpoints_locked,
        announce=_changed("locked"),
    )
    return endpoint_id, now + lock_s


def _changed(why: EndpointChange) -> Callable[[Sequence[tuple[str, int]]], Sequence[Signal]]:
    """What other processes are told of endpoints, given their ids and the new generation of their logins."""
    return lambda changed: [EndpointChanged(endpoint_id, generation, why) for endpoint_id, generation in changed]


def _registration_of(endpoint_id: str, is_direct: bool) -> Callable[[Registered], Sequence[Signal]]:
    """The same of a registration."""
    why: EndpointChange = "registered" if is_direct else "managing"
    return lambda registered: [EndpointChanged(endpoint_id, registered.generation, why)]


def _registered(request: Request, endpoint_id: str, registered: Registered, *, is_direct: bool) -> Response:
    """The answer to a registration. Source: wire protocol, endpoint registration, response."""
    user = BrokerUser(kind=UserKind.ENDPOINT, id=endpoint_id, generation=registered.generation)
    url = service_of(request).broker_url(user, host_of(request))
    infos = queue_infos(endpoint_id, url)
    answer = RegistrationResponse(
        endpoint_id=endpoint_id,
        heartbeat_queue_info=infos["heartbeat_queue_info"],
        result_queue_info=infos["result_queue_info"],
        task_queue_info=infos["task_queue_info"] if is_direct else None,
        command_queue_info=None if is_direct else QueueInfo(connection_url=url, queue=command_queue(endpoint_id)),
        warnings=list(registered.warnings),
    )
    return json_response(without_nones(to_document(answer)))
