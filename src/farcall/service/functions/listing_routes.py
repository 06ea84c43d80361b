"""HTTP of listings of functions, and of one function with its text and its last runs (ours)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Identity
from farcall.service.context import caller_of, service_of
from farcall.service.functions import listing_store, rules, store
from farcall.service.functions.listing_store import ROLES, FunctionQuery, ListedFunction
from farcall.service.functions.source import SOURCE_MEMBER, source_of, versions_of
from farcall.service.ids import canonical_uuid
from farcall.service.tasks.listing_routes import ListedTaskDocument, listed_document, read_page
from farcall.service.tasks.listing_rules import TaskQuery
from farcall.service.web import queries
from farcall.service.web.bodies import json_response
from farcall.service.web.cursors import cursor_text, page_parameters, position_of
from farcall.service.web.openapi import described
from farcall.wire.errors import Forbidden, FunctionNotFound

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()
_DEFAULT_LIMIT, _LARGEST_LIMIT = 50, 500
_STEPS: Final = 20
_RECENT: Final = 10
_RECENT_STEPS: Final = 5


class FunctionOwner(msgspec.Struct, kw_only=True):
    """Whose function it is."""

    id: str
    username: str | None


class ListedFunctionDocument(msgspec.Struct, kw_only=True):
    """A function in a listing. Times are Unix seconds.

    `runs` and `last_run_at` are of tasks that ended: of everybody's for the owner, of one's own for others.
    """

    function_id: str
    name: str
    description: str | None
    registered_at: float
    owner: FunctionOwner
    is_mine: bool
    public: bool
    group_ids: list[str]
    ha_endpoint_id: str | None
    last_run_at: float | None
    runs: int


class FunctionListing(msgspec.Struct, kw_only=True):
    """GET /v3/functions: newest first. There are more as long as `next_cursor` is not null."""

    functions: list[ListedFunctionDocument]
    next_cursor: str | None


class FunctionVersions(msgspec.Struct, kw_only=True):
    """What it was registered with, as the client told."""

    python: str | None
    sdk: str | None
    dill: str | None


class SharedWith(msgspec.Struct, kw_only=True):
    """Who else may run it: `kind` is `everybody` or `group`."""

    kind: str
    id: str | None
    name: str | None


class FunctionPage(ListedFunctionDocument, kw_only=True):
    """GET /v3/functions/{id}. `source` is text, never markup; null where the service would have to unpickle it, and
    `source_note` says what to make of it. `recent_tasks` are the caller's, newest first.
    """

    source: str | None
    source_note: str
    versions: FunctionVersions
    metadata: dict[str, Any]
    shared_with: list[SharedWith]
    recent_tasks: list[ListedTaskDocument]


SHAPES: Final = (FunctionListing, FunctionPage)


@router.get(
    "/v3/functions",
    **described(
        "Functions: one's own, or those that others share (ours)",
        returns=FunctionListing,
        tag="functions",
        parameters=[
            {
                "name": "role",
                "in": "query",
                "description": "mine; shared: others', public or for a group of one's own",
                "schema": {"type": "string", "enum": ["mine", "shared"], "default": "mine"},
            },
            {
                "name": "search",
                "in": "query",
                "description": "must be in the name, whatever its case",
                "schema": {"type": "string", "maxLength": 256},
            },
            *page_parameters(default=_DEFAULT_LIMIT, most=_LARGEST_LIMIT),
        ],
    ),
)
async def list_functions(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    given = request.query_params
    limit = queries.limit(given, default=_DEFAULT_LIMIT, largest=_LARGEST_LIMIT)
    position = position_of(queries.text(given, queries.CURSOR), float, str)
    query = FunctionQuery(
        role=queries.one_of(given, "role", ROLES, "mine"),
        search=queries.text(given, "search"),
        before=None if position is None else (position[0], position[1]),
        limit=limit,
    )
    found: list[ListedFunction] = []
    before = query.before
    for _ in range(_STEPS):
        step = await service.db.read(listing_store.read_step, query, caller, before, query.limit - len(found))
        found += step.functions
        before = step.next_before
        if before is None or len(found) >= query.limit:
            break
    return json_response(
        FunctionListing(
            functions=[ListedFunctionDocument(**_members(each, caller)) for each in found],
            next_cursor=None if before is None else cursor_text(*before),
        )
    )


@router.get(
    "/v3/functions/{function_id}",
    **described(
        "One function: its text, who may run it, its last runs (ours)",
        returns=FunctionPage,
        errors=[FunctionNotFound, Forbidden],
        tag="functions",
    ),
)
async def get_function_page(request: Request, function_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    function_id = canonical_uuid(function_id, "the function id in the path")
    stored = await service.db.read(store.read_function, function_id)
    rules.check_read(stored.rights if stored else None, function_id, caller)
    listed = await service.db.read(listing_store.read_listed, function_id, caller)
    if stored is None or listed is None:  # deleted a moment ago
        raise FunctionNotFound(f"There is no function {function_id} any more.")
    groups = [] if listed.group_id is None else [listed.group_id]
    names = await service.db.read(listing_store.group_names, groups) if groups else {}
    mine = TaskQuery(owner_ids=caller.linked, function_id=function_id, limit=_RECENT)
    recent, _ = await read_page(service, mine, _RECENT_STEPS)
    metadata = stored.metadata or {}
    source = source_of(stored.code, metadata, is_protected=listed.ha_endpoint_id is not None)
    versions = versions_of(metadata)
    members = _members(listed, caller)
    members["description"] = stored.description
    return json_response(
        FunctionPage(
            **members,
            source=source.text,
            source_note=source.note,
            versions=FunctionVersions(python=versions.python, sdk=versions.sdk, dill=versions.dill),
            metadata={name: told for name, told in metadata.items() if name != SOURCE_MEMBER},
            shared_with=[
                *([SharedWith(kind="everybody", id=None, name=None)] if listed.public else []),
                *(SharedWith(kind="group", id=each, name=names.get(each)) for each in groups),
            ],
            recent_tasks=[listed_document(each) for each in recent],
        )
    )


def _members(function: ListedFunction, caller: Identity) -> dict[str, Any]:
    return {
        "function_id": function.id,
        "name": function.name,
        "description": function.description,
        "registered_at": function.created_at,
        "owner": FunctionOwner(id=function.owner_id, username=function.owner_name),
        "is_mine": function.owner_id in caller.linked,
        "public": function.public,
        "group_ids": [] if function.group_id is None else [function.group_id],
        "ha_endpoint_id": function.ha_endpoint_id,
        "last_run_at": function.last_run_at,
        "runs": function.runs,
    }
