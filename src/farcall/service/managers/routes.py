"""HTTP of single user endpoints. Ours."""

from __future__ import annotations

from typing import Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.cluster.signals import of_ends
from farcall.service.context import Service, caller_of, peer_of, service_of
from farcall.service.ids import canonical_uuid
from farcall.service.managers.commands import stop_command
from farcall.service.managers.stop_store import ToStop, plan_stop
from farcall.service.relay.store import end_tasks_of_endpoint
from farcall.service.web import queries
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.wire.errors import Conflict, EndpointAccessForbidden, EndpointNotFound

__all__ = ["ENDPOINT_STOPPED", "SHAPES", "router"]

router: Final = APIRouter()
ENDPOINT_STOPPED: Final = "ENDPOINT_STOPPED"


class StoppedUserEndpoint(msgspec.Struct, kw_only=True):
    """POST /v3/endpoints/{id}/stop: its manager was told, and so many unfinished tasks have failed."""

    user_endpoint_id: str
    manager_id: str
    tasks_failed: int


SHAPES: Final = (StoppedUserEndpoint,)


@router.post(
    "/v3/endpoints/{endpoint_id}/stop",
    **described(
        "Stop a user endpoint, by its user or by who manages its manager; its unfinished tasks fail (ours)",
        returns=StoppedUserEndpoint,
        errors=[EndpointNotFound, EndpointAccessForbidden, Conflict],
        tag="endpoints",
        parameters=[
            {
                "name": "reason",
                "in": "query",
                "description": "shown to its user",
                "schema": {"type": "string"},
            }
        ],
    ),
)
async def stop_user_endpoint(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = canonical_uuid(endpoint_id, "the endpoint id in the path")
    reason = queries.text(request.query_params, "reason")
    now = service.clock()
    wanted = await service.db.write(plan_stop, endpoint_id, caller, reason, now, peer_of(request))
    said = f"{caller.username} stopped it" + (f": {reason}" if reason else "")
    # First the tasks: with some left, the user endpoint would be started again as soon as it has ended.
    failed = await _fail_tasks(service, wanted, said)
    command = stop_command(wanted.manager_id, endpoint_id, wanted.by, said, now=service.clock())
    service.relay.command(wanted.manager_id, command)
    return json_response(
        StoppedUserEndpoint(user_endpoint_id=endpoint_id, manager_id=wanted.manager_id, tasks_failed=failed)
    )


async def _fail_tasks(service: Service, wanted: ToStop, said: str) -> int:
    text = (
        f"Task {{task_id}} was not finished when its user endpoint {wanted.user_endpoint_id} was stopped "
        f"({said}). Submit it again to have another one started."
    )
    total = 0
    while True:
        recorded = await service.db.write(
            end_tasks_of_endpoint,
            wanted.user_endpoint_id,
            service.settings.sweep_batch,
            ENDPOINT_STOPPED,
            text,
            service.clock(),
            then=service.relay.ended_here,
            announce=lambda recorded: of_ends((each.task for each in recorded.ended), withdrawn=True),
        )
        total += len(recorded.ended)
        if len(recorded.ended) < service.settings.sweep_batch:
            return total
