"""HTTP of what went on at an endpoint, for charts. Ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.context import caller_of, service_of
from farcall.service.endpoints import store as endpoints
from farcall.service.endpoints.sight import Sight, visible
from farcall.service.history.rules import CARRY_S, HOUR_S, MINUTE_S, Entry, Point, points, summed
from farcall.service.history.store import read_entries
from farcall.service.web import queries
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.wire.errors import EndpointAccessForbidden, EndpointNotFound, InvalidRequest

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()
_STEPS: Final = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_POINTS: Final = 240
"""At most, if the caller does not choose the step."""
_POINTS_LIMIT: Final = 3000


class HistoryPoint(msgspec.Struct, kw_only=True):
    """One step: `at` is where it begins (Unix seconds).

    Numbers of workers and tasks are means over the step, and null where the endpoint was away; `submitted`,
    `succeeded`, `failed` count tasks in it.
    """

    at: int
    workers: float | None
    idle_workers: float | None
    outstanding: float | None
    pending: float | None
    submitted: int
    succeeded: int
    failed: int


class History(msgspec.Struct, kw_only=True):
    """GET /v3/endpoints/{id}/history. Of a manager: its user endpoints together."""

    endpoint_id: str
    since: int
    until: int
    step_s: int
    points: list[HistoryPoint]


SHAPES: Final = (HistoryPoint, History)


@router.get(
    "/v3/endpoints/{endpoint_id}/history",
    **described(
        "What went on at an endpoint, in steps (ours)",
        returns=History,
        errors=[EndpointNotFound, EndpointAccessForbidden],
        tag="endpoints",
        parameters=[
            {
                "name": "since",
                "in": "query",
                "description": "Unix seconds; by default an hour before `until`",
                "schema": {"type": "number"},
            },
            {"name": "until", "in": "query", "description": "by default now", "schema": {"type": "number"}},
            {
                "name": "step_s",
                "in": "query",
                "description": "a multiple of 60; by default so that there are at most 240 steps. Older times are kept "
                "per hour, and answered so",
                "schema": {"type": "integer", "minimum": MINUTE_S, "maximum": 24 * HOUR_S},
            },
            {
                "name": "user_endpoint_id",
                "in": "query",
                "description": "of a manager: only this one of its user endpoints",
                "schema": {"type": "string", "format": "uuid"},
            },
        ],
    ),
)
async def get_history(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    since, until, step_s = _range(request)
    sight = await visible(request, endpoint_id, caller)
    ids = await _concerned(request, sight)
    found = await service.db.read(read_entries, ids, since - CARRY_S, until)
    # A manager may have a thousand user endpoints, whose charts take a second together: not on the event loop.
    chart = await asyncio.to_thread(_chart, found, since, until, step_s)
    return json_response(
        History(
            endpoint_id=sight.stored.rights.id,
            since=since,
            until=until,
            step_s=step_s,
            points=[_document(point) for point in chart],
        )
    )


def _chart(found: Mapping[str, Sequence[Entry]], since: int, until: int, step_s: int) -> Sequence[Point]:
    """All of them as one; empty steps if there are none."""
    return summed([points(each, since=since, until=until, step_s=step_s) for each in found.values() or ((),)])


async def _concerned(request: Request, sight: Sight) -> Sequence[str]:
    """The endpoint itself; of a manager those of its user endpoints that the caller may see."""
    rights, wanted = sight.stored.rights, queries.uuid(request.query_params, "user_endpoint_id")
    if rights.direct:
        return [rights.id] if wanted in (None, rights.id) else []
    users = await service_of(request).db.read(endpoints.read_user_endpoints, rights.id)
    mine = [user.rights.id for user in users if sight.can_manage or user.rights.owner_id in sight.caller.linked]
    return [each for each in mine if wanted in (None, each)]


def _range(request: Request) -> tuple[int, int, int]:
    """Where the first step begins, where the last one ends (now, if that is earlier), and the step.

    Raises:
        InvalidRequest: these are no times, or there are too many steps between them.
    """
    service = service_of(request)
    now = service.clock()
    until = min(queries.time(request.query_params, "until") or now, now)
    since = queries.time(request.query_params, "since")
    since = until - HOUR_S if since is None else max(since, now - service.settings.history_hours_s - HOUR_S)
    if since >= until:
        raise InvalidRequest("query parameter 'since' must be before 'until' and in the past, in Unix seconds.")
    fitting = (step for step in _STEPS if (until - since) / step <= _POINTS)
    step_s = queries.whole(
        request.query_params, "step_s", default=next(fitting, _STEPS[-1]), least=MINUTE_S, most=24 * HOUR_S
    )
    if step_s % MINUTE_S:
        raise InvalidRequest(f"query parameter 'step_s' must be a multiple of {MINUTE_S}, not {step_s}.")
    if since < now - service.settings.history_minutes_s:
        step_s = -(-step_s // HOUR_S) * HOUR_S  # that long ago only hours are known
    if (until - since) / step_s > _POINTS_LIMIT:
        raise InvalidRequest(
            f"between 'since' and 'until' there are more than {_POINTS_LIMIT} steps of {step_s} s; choose a longer "
            "'step_s', or less time."
        )
    return int(since // step_s) * step_s, int(until), step_s


def _document(point: Point) -> HistoryPoint:
    workers, idle, outstanding, pending = point.gauges
    return HistoryPoint(
        at=point.at,
        workers=workers,
        idle_workers=idle,
        outstanding=outstanding,
        pending=pending,
        submitted=point.submitted,
        succeeded=point.succeeded,
        failed=point.failed,
    )
