"""HTTP of functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Identity
from farcall.service.context import caller_of, peer_of, service_of
from farcall.service.functions import rules, store
from farcall.service.ids import canonical_uuid, new_id
from farcall.service.web.bodies import json_response, read_json
from farcall.service.web.openapi import described
from farcall.wire.errors import (
    EndpointAccessForbidden,
    EndpointNotFound,
    Forbidden,
    FunctionNotFound,
    PayloadTooLarge,
)
from farcall.wire.rest import FunctionRegistration

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()


class FunctionCreated(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Answer to a registration."""

    function_uuid: str
    ha_warning: str | None = None


class FunctionDocument(msgspec.Struct, kw_only=True):
    """GET /v2/functions/{id}."""

    function_uuid: str
    function_name: str
    function_code: str
    description: str | None
    metadata: dict[str, Any]


class Deleted(msgspec.Struct, kw_only=True):
    """Answer to a deletion. The number is the protocol's."""

    result: int = 302


@dataclass(frozen=True, kw_only=True)
class FunctionRegistrationV2:
    """POST /v2/functions: what clients of old releases send."""

    function_name: str
    function_code: str
    entry_point: str | None = None
    container_uuid: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    public: bool = False
    group: str | None = None


SHAPES: Final = (FunctionRegistration, FunctionRegistrationV2, FunctionCreated, FunctionDocument, Deleted)
_v3_body: Final = msgspec.json.Decoder(FunctionRegistration)
_v2_body: Final = msgspec.json.Decoder(FunctionRegistrationV2)


@router.post(
    "/v3/functions",
    **described(
        "Register a function",
        body=FunctionRegistration,
        returns=FunctionCreated,
        errors=[PayloadTooLarge, Forbidden, EndpointNotFound, EndpointAccessForbidden],
        tag="functions",
    ),
)
async def register_function(request: Request) -> Response:
    caller = await caller_of(request)
    return await _register(request, caller, await read_json(request, _v3_body))


@router.post(
    "/v2/functions",
    **described(
        "Register a function (clients of old releases)",
        body=FunctionRegistrationV2,
        returns=FunctionCreated,
        errors=[PayloadTooLarge, Forbidden],
        tag="functions",
    ),
)
async def register_function_v2(request: Request) -> Response:
    caller = await caller_of(request)
    old = await read_json(request, _v2_body)
    return await _register(
        request,
        caller,
        FunctionRegistration(
            function_name=old.function_name,
            function_code=old.function_code,
            meta=old.metadata,
            description=old.description,
            public=old.public,
            group=old.group,
        ),
    )


async def _register(request: Request, caller: Identity, wanted: FunctionRegistration) -> Response:
    service = service_of(request)
    function = rules.plan_registration(wanted, limit_bytes=service.settings.payload_limit_bytes)
    function_id = new_id()
    now = service.clock()
    await service.db.write(store.add_function, function_id, caller, function, now, peer_of(request))
    warning = None
    if function.ha_endpoint_id is not None:
        days = service.settings.ha_function_retention_s / 86400
        warning = (
            f"Function {function_id} runs only at the high-assurance endpoint {function.ha_endpoint_id}, and is "
            f"deleted {days:.3g} days after its last task."
        )
    return json_response(FunctionCreated(function_uuid=function_id, ha_warning=warning))


@router.get(
    "/v2/functions/{function_id}",
    **described("One function", returns=FunctionDocument, errors=[FunctionNotFound, Forbidden], tag="functions"),
)
async def get_function(request: Request, function_id: str) -> Response:
    caller = await caller_of(request)
    function_id = canonical_uuid(function_id, "the function id in the path")
    found = await service_of(request).db.read(store.read_function, function_id)
    rules.check_read(found.rights if found else None, function_id, caller)
    assert found is not None
    return json_response(
        FunctionDocument(
            function_uuid=function_id,
            function_name=found.name,
            function_code=found.code,
            description=found.description,
            metadata=found.metadata or {},
        )
    )


@router.delete(
    "/v2/functions/{function_id}",
    **described("Delete a function", returns=Deleted, errors=[FunctionNotFound, Forbidden], tag="functions"),
)
async def delete_function(request: Request, function_id: str) -> Response:
    caller = await caller_of(request)
    function_id = canonical_uuid(function_id, "the function id in the path")
    service = service_of(request)
    await service.db.write(store.delete_function, function_id, caller, service.clock(), peer_of(request))
    return json_response(Deleted())
