"""HTTP about the service and the caller: version, login check, broker credential, what an operator wants to see."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall import __version__
from farcall.service.accounts.rules import bearer_token, token_hash
from farcall.service.accounts.store import broker_generation, ping, revoke_broker_credential, revoke_token
from farcall.service.cluster.signals import CredentialRevoked, TokenRevoked
from farcall.service.context import caller_of, host_of, service_of
from farcall.service.tasks.store import count_by_state
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.wire.errors import Forbidden, InvalidRequest, NotFound, ServiceUnavailable
from farcall.wire.rest import ResultConnection
from farcall.wire.topology import BrokerUser, UserKind, group_queue_prefix
from farcall.wire.versions import API_VERSION, MIN_ENDPOINT_VERSION, MIN_SDK_VERSION

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()


class WhoAmI(msgspec.Struct, kw_only=True):
    """GET /v3/whoami (ours)."""

    identity_id: str
    username: str
    is_admin: bool


class VersionDocument(msgspec.Struct, kw_only=True):
    """GET /v2/version?service=all. `farcall` is ours."""

    api: str
    min_sdk_version: str
    min_ep_version: str
    min_endpoint_version: str
    farcall: str
    git_sha: str = ""


class Health(msgspec.Struct, kw_only=True):
    """GET /healthz."""

    status: str
    version: str


class ServiceStatus(msgspec.Struct, kw_only=True):
    """GET /v3/service (ours). Counters are since the start; `started_at` is in Unix seconds."""

    version: str
    started_at: float
    endpoints_online: list[str]
    tasks: dict[str, int]
    results: dict[str, int]


SHAPES: Final = (WhoAmI, VersionDocument, Health, ServiceStatus, ResultConnection)
_TEXT: Final = {"type": "string"}


@router.get(
    "/v2/version",
    **described(
        "Version of the interface: text, or everything with `service=all`",
        returns={"oneOf": [_TEXT, {"$ref": "#/components/schemas/VersionDocument"}]},
        tag="service",
        open_to_all=True,
        parameters=[{"name": "service", "in": "query", "schema": {"type": "string", "enum": ["api", "all"]}}],
    ),
)
async def get_version(request: Request) -> Response:
    wanted = request.query_params.get("service", "api")
    if wanted not in ("api", "all"):
        raise InvalidRequest(f"query parameter 'service' must be 'api' or 'all', not {wanted[:40]!r}.")
    if wanted == "api":
        return json_response(API_VERSION)
    return json_response(
        VersionDocument(
            api=API_VERSION,
            min_sdk_version=MIN_SDK_VERSION,
            min_ep_version=MIN_ENDPOINT_VERSION,
            min_endpoint_version=MIN_ENDPOINT_VERSION,
            farcall=__version__,
        )
    )


@router.get(
    "/v2/authenticate", **described("Check the token; the answer is the user name", returns=_TEXT, tag="service")
)
async def authenticate(request: Request) -> Response:
    return json_response((await caller_of(request)).username)


@router.get("/v2/whoami", **described("Who the token belongs to (ours)", returns=WhoAmI, tag="service"))
@router.get("/v3/whoami", **described("Who the token belongs to (ours)", returns=WhoAmI, tag="service"))
async def whoami(request: Request) -> Response:
    caller = await caller_of(request)
    return json_response(WhoAmI(identity_id=caller.id, username=caller.username, is_admin=caller.is_admin))


@router.post(
    "/v3/logout",
    **described("Revoke the token of this request (ours)", returns={"type": "object"}, tag="service"),
)
async def logout(request: Request) -> Response:
    service = service_of(request)
    caller = await caller_of(request)
    key = token_hash(bearer_token(request.headers.get("authorization")) or "")
    await service.db.write(revoke_token, key, service.clock(), announce=lambda _: [TokenRevoked(key)])
    service.authenticator.forget(key)
    # Broker logins belong to the identity, not to one token: its other sessions are cut too, and log in again.
    generation = await service.db.write(
        revoke_broker_credential, caller.id, announce=lambda made: [CredentialRevoked(caller.id, made)]
    )
    service.relay.credential_revoked(caller.id, generation)
    return json_response({})


@router.get(
    "/v2/get_amqp_result_connection_url",
    **described("Where and how to read results", returns=ResultConnection, tag="service"),
)
async def get_result_connection(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    # Read anew: the caller may be remembered from before the credential was revoked.
    user = BrokerUser(kind=UserKind.SDK, id=caller.id, generation=caller.credential_generation)
    generation = await service.db.read(broker_generation, user)
    user = BrokerUser(kind=UserKind.SDK, id=caller.id, generation=generation or 0)
    return json_response(
        ResultConnection(
            reader_queues=True,
            queue_prefix=group_queue_prefix(caller.id),
            connection_url=service.broker_url(user, host_of(request)),
        )
    )


@router.get("/healthz", **described("Whether the service can serve", returns=Health, tag="service", open_to_all=True))
async def get_health(request: Request) -> Response:
    try:
        await service_of(request).db.read(ping)
    except Exception as exc:
        raise ServiceUnavailable("The service cannot read its database.") from exc
    return json_response(Health(status="ok", version=__version__))


@router.get(
    "/v3/service",
    **described("What goes on (administrators; ours)", returns=ServiceStatus, errors=[Forbidden], tag="service"),
)
async def get_service_status(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    if not caller.is_admin:
        raise Forbidden("Only an administrator of this service may see this.")
    return json_response(
        ServiceStatus(
            version=__version__,
            started_at=service.started_at,
            endpoints_online=await service.online.online(),
            tasks=await service.db.read(count_by_state),
            results=asdict(service.relay.intake.counters),
        )
    )


@router.api_route(
    "/v2/containers{rest:path}", methods=["GET", "POST", "PUT", "DELETE", "HEAD"], include_in_schema=False
)
async def containers(rest: str) -> Response:
    raise NotFound(
        "This service does not build container images. Name an existing image in the endpoint's config.yaml."
    )
