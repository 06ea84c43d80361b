"""HTTP of listings of tasks, and of one task with all that is known of it (ours: the protocol has neither)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Identity
from farcall.service.context import Service, caller_of, service_of
from farcall.service.endpoints.store import StoredEndpoint
from farcall.service.ids import canonical_uuid
from farcall.service.tasks import listing_store as store
from farcall.service.tasks import rules
from farcall.service.tasks.listing_rules import (
    DEFAULT_LIMIT,
    LARGEST_LIMIT,
    STATES,
    TaskQuery,
    kind_of_result,
    query_from,
    timeline,
)
from farcall.service.tasks.listing_store import ListedTask, Outcome, TaskDetail
from farcall.service.tasks.routes import check_results
from farcall.service.tasks.waiting import Place, Situation, why_waiting
from farcall.service.web.bodies import json_response
from farcall.service.web.cursors import cursor_text, page_parameters
from farcall.service.web.openapi import described
from farcall.wire.errors import ApiError, TaskNotFound
from farcall.wire.states import TaskState

__all__ = ["SHAPES", "ListedTaskDocument", "listed_document", "read_page", "router"]

router: Final = APIRouter()
_STEPS: Final = 20
"""Of an answer that finds little: each looks at some ten thousand tasks."""


class ListedTaskDocument(msgspec.Struct, kw_only=True):
    """A task in a listing. Times are Unix seconds.

    `endpoint_id` is what was submitted to; `user_endpoint_id` where it runs, if a manager started that for it.
    `error_code` is null for high assurance.
    """

    task_id: str
    state: str
    endpoint_id: str
    endpoint_name: str | None
    user_endpoint_id: str | None
    function_id: str
    function_name: str | None
    task_group_id: str
    submitted_at: float
    ended_at: float | None
    error_code: str | None


class TaskListing(msgspec.Struct, kw_only=True):
    """GET /v3/tasks: newest first. There are more as long as `next_cursor` is not null, even if a page is short."""

    tasks: list[ListedTaskDocument]
    next_cursor: str | None


class TimelineEntry(msgspec.Struct, kw_only=True):
    """A step: `by` is `service`, `endpoint` or `worker`, by whose clock `at` is; null: since when is not known."""

    state: str
    at: float | None
    by: str


class TaskError(msgspec.Struct, kw_only=True):
    """Why a task failed. `traceback` is null if `text` says it all; both are the endpoint's text, not markup."""

    code: str
    text: str
    traceback: str | None


class TaskResult(msgspec.Struct, kw_only=True):
    """What a task returned, unopened: how large, and how it is written (`kind_meaning` in words)."""

    size_bytes: int
    kind: str | None
    kind_meaning: str | None


class Withheld(msgspec.Struct, kw_only=True):
    """Why error and result are not shown: the policy of a high-assurance endpoint. `authorization_parameters` says
    which login would help; null: none.
    """

    code: str
    text: str
    policy_id: str | None
    authorization_parameters: dict[str, Any] | None


class TaskPage(ListedTaskDocument, kw_only=True):
    """GET /v3/tasks/{id}. `attempts`: how often its execution began, as the endpoint tells with the result; null until
    then, for a task that the service ended, and where the endpoint does not tell.
    """

    timeline: list[TimelineEntry]
    waiting_because: str | None
    error: TaskError | None
    result: TaskResult | None
    withheld: Withheld | None
    attempts: int | None
    can_cancel: bool
    resource_specification: Any
    user_endpoint_config: Any


SHAPES: Final = (TaskListing, TaskPage)


@router.get(
    "/v3/tasks",
    **described(
        "One's own tasks, newest first (ours)",
        returns=TaskListing,
        tag="tasks",
        parameters=[
            {
                "name": "state",
                "in": "query",
                "description": f"{', '.join(STATES)}; several with commas",
                "schema": {"type": "string"},
            },
            {
                "name": "endpoint_id",
                "in": "query",
                "description": "an endpoint, a manager or a user endpoint",
                "schema": {"type": "string", "format": "uuid"},
            },
            {"name": "function_id", "in": "query", "schema": {"type": "string", "format": "uuid"}},
            {"name": "task_group_id", "in": "query", "schema": {"type": "string", "format": "uuid"}},
            {
                "name": "since",
                "in": "query",
                "description": "submitted then or later; Unix seconds",
                "schema": {"type": "number"},
            },
            {
                "name": "until",
                "in": "query",
                "description": "submitted before; Unix seconds",
                "schema": {"type": "number"},
            },
            *page_parameters(default=DEFAULT_LIMIT, most=LARGEST_LIMIT),
        ],
    ),
)
async def list_tasks(request: Request) -> Response:
    caller = await caller_of(request)
    query = query_from(request.query_params, caller.linked)
    found, next_before = await read_page(service_of(request), query)
    return json_response(
        TaskListing(
            tasks=[listed_document(each) for each in found],
            next_cursor=None if next_before is None else cursor_text(next_before),
        )
    )


@router.get(
    "/v3/tasks/{task_id}",
    **described(
        "One task: its way so far, why it waits, how it ended (ours)",
        returns=TaskPage,
        errors=[TaskNotFound],
        tag="tasks",
    ),
)
async def get_task_page(request: Request, task_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    task_id = canonical_uuid(task_id, "the task id in the path")
    found = await service.db.read(store.read_detail, task_id, caller.linked)
    if found is None:
        rules.check_task(None, task_id, caller)
    assert found is not None
    withheld = await _withheld(request, caller, found)
    return json_response(_page(service, found, withheld))


async def read_page(service: Service, query: TaskQuery, steps: int = _STEPS) -> tuple[Sequence[ListedTask], int | None]:
    """Tasks of a query, newest first, and where the next page begins; None: there is none."""
    found: list[ListedTask] = []
    before = query.before_seq
    for at in range(steps):
        size = store.NEXT_STEP if at else store.FIRST_STEP  # most pages are full after the first
        step = await service.db.read(store.read_step, query, before, query.limit - len(found), size)
        found += step.tasks
        before = step.next_before
        if before is None or len(found) >= query.limit:
            break
    return found, before


def listed_document(task: ListedTask) -> ListedTaskDocument:
    """A line of a listing."""
    return ListedTaskDocument(**_members(task))


def _members(task: ListedTask) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "state": task.state.value,
        "endpoint_id": task.endpoint_id,
        "endpoint_name": task.endpoint_name,
        "user_endpoint_id": task.user_endpoint_id,
        "function_id": task.function_id,
        "function_name": task.function_name,
        "task_group_id": task.group_id,
        "submitted_at": task.created_at,
        "ended_at": task.completed_at,
        "error_code": task.error_code,
    }


async def _withheld(request: Request, caller: Identity, found: TaskDetail) -> Withheld | None:
    """What keeps the caller from reading how a task of high assurance ended."""
    try:
        await check_results(request, caller, [found.row])
    except ApiError as exc:
        parameters = exc.detail.get("authorization_parameters")
        return Withheld(
            code=exc.wire_code,
            text=exc.message,
            policy_id=exc.detail.get("policy_id"),
            authorization_parameters=parameters if isinstance(parameters, dict) else None,
        )
    return None


def _page(service: Service, found: TaskDetail, withheld: Withheld | None) -> TaskPage:
    listed, row = found.listed, found.row
    outcome = None if withheld is not None else found.outcome
    details: Mapping[str, Any] = {} if outcome is None else outcome.details
    attempts = details.get("attempts")
    steps = timeline(
        row.state,
        created_at=row.created_at,
        completed_at=row.completed_at,
        taken_at=found.taken_at,
        started_at=found.started_at,
        told={} if outcome is None else outcome.transitions,
    )
    members = _members(listed)
    if outcome is not None:
        members["error_code"] = outcome.error_code
    return TaskPage(
        **members,
        timeline=[TimelineEntry(state=step.state, at=step.at, by=step.by) for step in steps],
        waiting_because=_waiting_because(service, found),
        error=None if outcome is None or row.state is TaskState.SUCCESS else _error(outcome),
        result=_result(outcome) if outcome is not None and row.state is TaskState.SUCCESS else None,
        withheld=withheld,
        attempts=attempts if isinstance(attempts, int) and not isinstance(attempts, bool) else None,
        can_cancel=not row.state.is_terminal,
        resource_specification=found.resource_specification,
        user_endpoint_config=found.user_endpoint_config,
    )


def _error(outcome: Outcome) -> TaskError:
    text = outcome.error_message or ""
    return TaskError(
        code=outcome.error_code or "",
        text=text or outcome.text,
        traceback=outcome.text if outcome.text != text else None,
    )


def _result(outcome: Outcome) -> TaskResult:
    kind, meaning = kind_of_result(outcome.head) or (None, None)
    return TaskResult(size_bytes=outcome.size_bytes, kind=kind, kind_meaning=meaning)


def _waiting_because(service: Service, found: TaskDetail) -> str | None:
    if found.row.state.is_terminal or found.endpoint is None:
        return None
    situation = Situation(
        state=found.row.state,
        endpoint=_place(service, found.endpoint),
        manager=None if found.manager is None else _place(service, found.manager),
        ahead=found.ahead,
        kept_until=found.row.created_at + service.settings.task_lifetime_s,
    )
    return why_waiting(situation, now=service.clock())


def _place(service: Service, stored: StoredEndpoint) -> Place:
    report, reported_at = service.online.latest(stored)
    seen = [at for at in (reported_at, stored.last_seen_at) if at is not None]
    return Place(
        id=stored.rights.id,
        name=stored.rights.name,
        is_online=service.online.is_online(stored),
        is_deleted=stored.rights.is_deleted,
        seen_at=max(seen, default=None),
        workers=_whole(report, "total_workers"),
        idle_workers=_whole(report, "idle_workers"),
        locked_until=stored.rights.locked_until,
    )


def _whole(report: Mapping[str, Any] | None, name: str) -> int | None:
    value = (report or {}).get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
