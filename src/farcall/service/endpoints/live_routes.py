"""HTTP of what goes on at an endpoint: an answer when it changes. Ours."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.context import caller_of, service_of
from farcall.service.endpoints.live import LiveDocument, Watch
from farcall.service.endpoints.sight import Sight, visible
from farcall.service.web import queries
from farcall.service.web.openapi import described
from farcall.wire.errors import EndpointAccessForbidden, EndpointNotFound, RateLimited

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()
SHAPES: Final = (LiveDocument,)
_WAIT_S: Final = 25
_LONGEST_S: Final = 55
"""Proxies and load balancers give up after a minute."""


@router.get(
    "/v3/endpoints/{endpoint_id}/live",
    **described(
        "What goes on at an endpoint: at once, or when it is another than the caller knows (ours)",
        returns=LiveDocument,
        errors=[EndpointNotFound, EndpointAccessForbidden, RateLimited],
        tag="endpoints",
        parameters=[
            {
                "name": "after",
                "in": "query",
                "description": "`version` of the last answer: the next comes when it is another, or after `wait_s`",
                "schema": {"type": "string"},
            },
            {
                "name": "wait_s",
                "in": "query",
                "schema": {"type": "integer", "minimum": 0, "maximum": _LONGEST_S, "default": _WAIT_S},
            },
        ],
    ),
)
async def get_live(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    after = queries.text(request.query_params, "after")
    wait_s = queries.whole(request.query_params, "wait_s", default=_WAIT_S, most=_LONGEST_S)
    sight = await visible(request, endpoint_id, caller)
    async with service.live.watch(sight.stored.rights.id, caller) as watch:
        document = await _when_another(request, watch, sight, after, wait_s if after is not None else 0)
    return Response(document, media_type="application/json")


async def _when_another(request: Request, watch: Watch, sight: Sight, after: str | None, wait_s: float) -> bytes:
    """The document as the caller sees it, as soon as its version is not `after`; in the end anyhow."""
    service, loop = service_of(request), asyncio.get_running_loop()
    live = service.live
    until = loop.time() + wait_s
    snapshot = await watch.now()
    version, document = snapshot.shown_to(sight.caller, can_manage=sight.can_manage)
    if version != after or not wait_s:
        return document
    left = loop.create_task(_left(request))
    try:
        while version == after and not left.done() and not live.is_stopping and loop.time() < until:
            with watch.waiter() as changed:
                await asyncio.wait({changed, left}, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            snapshot = watch.snapshot if changed.done() and watch.snapshot is not None else await watch.now()
            version, _ = snapshot.shown_to(sight.caller, can_manage=sight.can_manage)
    finally:
        left.cancel()
    # That may have been a minute, and what was revoked meanwhile is void.
    sight = await visible(request, watch.endpoint_id, await service.authenticator.identify(request))
    return snapshot.shown_to(sight.caller, can_manage=sight.can_manage)[1]


async def _left(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
