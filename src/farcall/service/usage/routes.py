"""HTTP of usage: as JSON, and as CSV for spreadsheets (ours)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Identity
from farcall.service.context import caller_of, service_of
from farcall.service.endpoints.store import find_endpoint
from farcall.service.usage import rules, store
from farcall.service.usage.rules import COLUMNS, DAY_S, DIMENSIONS, SCOPES, UsageQuery, csv_text, day_text
from farcall.service.usage.store import UsageRow
from farcall.service.web import queries
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.wire.errors import EndpointAccessForbidden, EndpointNotFound, Forbidden

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()


class UsageEntry(msgspec.Struct, kw_only=True):
    """A line. Members of what was not asked by are absent; a name that nobody knows any more is null.

    In place of a `username` that nobody knows any more stands the identity's id.
    """

    day: str | UnsetType = UNSET
    username: str | UnsetType = UNSET
    account: str | UnsetType | None = UNSET
    endpoint_id: str | UnsetType | None = UNSET
    endpoint_name: str | UnsetType | None = UNSET
    function_id: str | UnsetType | None = UNSET
    function_name: str | UnsetType | None = UNSET
    tasks: int
    succeeded: int
    failed: int
    cancelled: int
    run_seconds: float


class Usage(msgspec.Struct, kw_only=True):
    """GET /v3/usage: `since` and `until` are the whole days (UTC) that were counted, in Unix seconds."""

    scope: str
    since: float
    until: float
    rows: list[UsageEntry]


SHAPES: Final = (Usage,)


@router.get(
    "/v3/usage",
    **described(
        "Tasks that ended, their outcomes and how long they ran (ours); JSON, or CSV as text/csv",
        returns=Usage,
        errors=[Forbidden, EndpointNotFound, EndpointAccessForbidden],
        tag="usage",
        parameters=[
            {
                "name": "since",
                "in": "query",
                "description": "Unix seconds; whole days (UTC) are counted; by default a month before the end",
                "schema": {"type": "number"},
            },
            {
                "name": "until",
                "in": "query",
                "description": "Unix seconds, not included; by default now",
                "schema": {"type": "number"},
            },
            {
                "name": "by",
                "in": "query",
                "description": f"{', '.join(DIMENSIONS)}; several with commas; by default one row for all",
                "schema": {"type": "string"},
            },
            {
                "name": "scope",
                "in": "query",
                "description": "mine; endpoint: of everybody at one that one manages; all: for administrators",
                "schema": {"type": "string", "enum": list(SCOPES), "default": "mine"},
            },
            {
                "name": "endpoint_id",
                "in": "query",
                "description": "only there; a manager counts with its user endpoints",
                "schema": {"type": "string", "format": "uuid"},
            },
            {
                "name": "format",
                "in": "query",
                "schema": {"type": "string", "enum": ["json", "csv"], "default": "json"},
            },
        ],
    ),
)
async def get_usage(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    given = request.query_params
    scope = queries.one_of(given, "scope", SCOPES, "mine")
    is_csv = queries.one_of(given, "format", ("json", "csv"), "json") == "csv"
    first, last = rules.days_between(queries.time(given, "since"), queries.time(given, "until"), now=service.clock())
    query = UsageQuery(
        first_day=first,
        last_day=last,
        by=queries.choices(given, "by", DIMENSIONS),
        owner_ids=caller.linked if scope == "mine" else None,
        endpoint_id=queries.uuid(given, "endpoint_id"),
    )
    await _check_scope(request, scope, caller, query.endpoint_id)
    found = await service.db.read(store.read_usage, query)
    entries = [_members(row, query) for row in found]
    if is_csv:
        name = f"farcall-usage-{day_text(first)}--{day_text(last)}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return Response(csv_text(entries, query.by), 200, headers, "text/csv; header=present; charset=utf-8")
    usage = Usage(
        scope=scope,
        since=float(first * DAY_S),
        until=float((last + 1) * DAY_S),
        rows=[UsageEntry(**entry) for entry in entries],
    )
    return json_response(usage)


async def _check_scope(request: Request, scope: str, caller: Identity, endpoint_id: str | None) -> None:
    """See `rules.check_scope`."""
    endpoint = manager = None
    if scope == "endpoint" and endpoint_id is not None:
        db = service_of(request).db
        endpoint = await db.read(find_endpoint, endpoint_id)
        if endpoint is not None and endpoint.manager_id is not None:
            manager = await db.read(find_endpoint, endpoint.manager_id)
    rules.check_scope(scope, caller, endpoint_id, endpoint, manager)


def _members(row: UsageRow, query: UsageQuery) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for dimension in DIMENSIONS:
        if dimension in query.by:
            entry.update((column, getattr(row, column)) for column in COLUMNS[dimension])
    if row.day is not None:
        entry["day"] = day_text(row.day)
    return {
        **entry,
        "tasks": row.tasks,
        "succeeded": row.succeeded,
        "failed": row.failed,
        "cancelled": row.cancelled,
        "run_seconds": round(row.run_s, 3),
    }
