"""HTTP of tasks. The hot way of the service: bodies go straight into msgspec, and one write per request."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from farcall.service.accounts.rules import Identity, bearer_token, token_hash
from farcall.service.audit.rules import actor_of
from farcall.service.audit.store import record
from farcall.service.cluster.signals import Signal, TasksAdded, of_ends
from farcall.service.context import Service, caller_of, peer_of, service_of
from farcall.service.ids import canonical_uuid, new_id
from farcall.service.tasks import rules, store
from farcall.service.tasks.documents import (
    BatchStatus,
    BatchStatusRequest,
    CancelAnswer,
    GroupDocument,
    SubmitAnswerV2,
    SubmitRequestV2,
    SubmitResultV2,
    TaskDocument,
    group_document,
    task_document,
)
from farcall.service.tasks.replay import fingerprint
from farcall.service.tasks.rules import SubmissionPlan
from farcall.service.tasks.store import StoredResult, Submitted, TaskRow
from farcall.service.web.bodies import decode_json, json_response, read_json
from farcall.service.web.openapi import described
from farcall.wire.errors import (
    ApiError,
    Conflict,
    EndpointAccessForbidden,
    EndpointNotFound,
    EndpointQueueFull,
    Forbidden,
    FunctionNotFound,
    FunctionNotPermitted,
    InvalidRequest,
    LoginRequired,
    PayloadTooLarge,
    RateLimited,
    TaskGroupNotFound,
    TaskNotFound,
)
from farcall.wire.rest import IDEMPOTENCY_HEADER, SubmitRequest, SubmitResponse, to_document

__all__ = ["SHAPES", "TASK_CANCELLED", "check_results", "router"]

TASK_CANCELLED: Final = "TASK_CANCELLED"
_STATUS_LIMIT_IDS: Final = 100_000
_PAGE_TASKS: Final = 200
_PAGE_CHARS: Final = 8 * 1024 * 1024

_logger = logging.getLogger(__name__)
router: Final = APIRouter()
SHAPES: Final = (
    SubmitRequest,
    SubmitResponse,
    SubmitRequestV2,
    SubmitAnswerV2,
    TaskDocument,
    BatchStatusRequest,
    BatchStatus,
    GroupDocument,
    CancelAnswer,
)
_submission: Final = msgspec.json.Decoder(SubmitRequest)
_submission_v2: Final = msgspec.json.Decoder(SubmitRequestV2)
_batch_request: Final = msgspec.json.Decoder(BatchStatusRequest)
_encoder: Final = msgspec.json.Encoder()


@router.post(
    "/v3/endpoints/{endpoint_id}/submit",
    **described(
        "Submit tasks. They are stored when this answers; the endpoint may be away",
        body=SubmitRequest,
        returns=SubmitResponse,
        errors=[
            EndpointNotFound,
            FunctionNotFound,
            EndpointAccessForbidden,
            FunctionNotPermitted,
            LoginRequired,
            PayloadTooLarge,
            Conflict,
            RateLimited,
            EndpointQueueFull,
        ],
        tag="tasks",
        parameters=[
            {
                "name": IDEMPOTENCY_HEADER,
                "in": "header",
                "description": "a submission with a key that was used in the last day is answered as the first one was",
                "schema": {"type": "string", "maxLength": 255},
            }
        ],
    ),
)
async def submit(request: Request, endpoint_id: str) -> Response:
    begun, status = time.perf_counter(), 500
    try:
        response = await _answer_submission(request, endpoint_id)
        status = response.status_code
        return response
    except ApiError as exc:
        status = exc.http_status
        raise
    finally:
        service_of(request).relay.measures.submit_took(time.perf_counter() - begun, status)


@router.post(
    "/v2/submit",
    **described(
        "Submit tasks (clients of old releases)",
        body=SubmitRequestV2,
        returns=SubmitAnswerV2,
        errors=[PayloadTooLarge],
        tag="tasks",
    ),
)
async def submit_v2(request: Request) -> Response:
    caller = await caller_of(request)
    wanted = await read_json(request, _submission_v2)
    group_id = new_id() if wanted.task_group_id is None else wanted.task_group_id
    group_id = canonical_uuid(group_id, "member 'task_group_id'")
    results: list[SubmitResultV2 | None] = [None] * len(wanted.tasks)
    by_target: dict[tuple[str, str], list[int]] = {}
    for at, (function_id, endpoint_id, _) in enumerate(wanted.tasks):
        by_target.setdefault((endpoint_id, function_id), []).append(at)
    for (endpoint_id, function_id), places in by_target.items():
        part = SubmitRequest(
            tasks={function_id: [wanted.tasks[at][2] for at in places]},
            create_queue=wanted.create_websocket_queue,
            task_group_id=group_id,
        )
        for at, result in zip(places, await _submit_part(request, caller, endpoint_id, part), strict=True):
            results[at] = result
    return json_response(
        SubmitAnswerV2(response="success", task_group_id=group_id, results=[each for each in results if each])
    )


@router.get(
    "/v2/tasks/{task_id}",
    **described(
        "One task, with its result", returns=TaskDocument, errors=[TaskNotFound, LoginRequired, Forbidden], tag="tasks"
    ),
)
async def get_task(request: Request, task_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    task_id = canonical_uuid(task_id, "the task id in the path")
    found = (await service.db.read(store.read_tasks, [task_id], caller.linked)).get(task_id)
    rules.check_task(found.owner_id if found else None, task_id, caller)
    assert found is not None
    await check_results(request, caller, [found])
    results = await _results(service, [found])
    return json_response(task_document(found, results.get(found.seq)))


@router.post(
    "/v2/batch_status",
    **described(
        "Many tasks, with their results",
        body=BatchStatusRequest,
        returns=BatchStatus,
        errors=[LoginRequired, Forbidden],
        tag="tasks",
    ),
)
async def get_batch_status(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    wanted = (await read_json(request, _batch_request)).task_ids
    if len(wanted) > _STATUS_LIMIT_IDS:
        raise InvalidRequest(f"member 'task_ids' may hold at most {_STATUS_LIMIT_IDS} ids, this one has {len(wanted)}.")
    ids = {canonical_uuid(text, f"member 'task_ids[{at}]'"): text for at, text in enumerate(wanted)}
    tasks = await service.db.read(store.read_tasks, list(ids), caller.linked)
    await check_results(request, caller, list(tasks.values()))
    pages = list(_pages([tasks[task_id] for task_id in ids if task_id in tasks]))
    if len(pages) > 1:
        return StreamingResponse(_stream_status(service, pages, ids), media_type="application/json")
    results = await _results(service, pages[0]) if pages else {}
    documents = {ids[task.id]: task_document(task, results.get(task.seq)) for page in pages for task in page}
    return json_response(BatchStatus(response="batch", results=documents))


@router.get(
    "/v2/taskgroup/{task_group_id}",
    **described("The tasks of a group", returns=GroupDocument, errors=[TaskGroupNotFound], tag="tasks"),
)
async def get_task_group(request: Request, task_group_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    group_id = canonical_uuid(task_group_id, "the task group id in the path")
    return Response(await service.db.read(_group_body, group_id, caller), media_type="application/json")


@router.post(
    "/v3/tasks/{task_id}/cancel",
    **described("Cancel a task that has not ended (ours)", returns=CancelAnswer, errors=[TaskNotFound], tag="tasks"),
)
async def cancel_task(request: Request, task_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    task_id = canonical_uuid(task_id, "the task id in the path")
    state, _ = await service.db.write(
        store.cancel_task,
        task_id,
        caller,
        TASK_CANCELLED,
        f"Task {task_id} was cancelled by {caller.username}.",
        service.clock(),
        then=lambda outcome: service.relay.ended_here(outcome[1]),
        announce=lambda outcome: of_ends((each.task for each in outcome[1].ended), withdrawn=True),
    )
    return json_response(CancelAnswer(task_id=task_id, status=state.value))


async def _answer_submission(request: Request, endpoint_id: str) -> Response:
    service, caller = service_of(request), await caller_of(request)
    endpoint_id = canonical_uuid(endpoint_id, "the endpoint id in the path")
    body = await request.body()
    key = rules.idempotency_key(request.headers.get(IDEMPOTENCY_HEADER))
    plan = _plan(service, caller, endpoint_id, decode_json(body, _submission), key)
    if key is not None:
        return _submit_answer(await _submit_judged(request, plan))
    response = await service.replay.answer_once(
        fingerprint(caller.id, endpoint_id, body), request.is_disconnected, lambda: _submit_judged(request, plan)
    )
    return _submit_answer(response)


def _submit_answer(response: SubmitResponse) -> Response:
    return json_response(response if response.ha_warning is not None else to_document(response))


async def _submit_judged(request: Request, plan: SubmissionPlan) -> SubmitResponse:
    """Store a submission; a refusal is recorded."""
    service, address = service_of(request), peer_of(request)
    try:
        try:
            return await _submit(service, plan, address)
        except LoginRequired:
            caller = await _seen_anew(request, plan.caller)
            if caller is None:
                raise
            return await _submit(service, replace(plan, caller=caller), address)
    except Forbidden as exc:
        await _note_refusal(request, plan.caller, "task.submit", plan.endpoint_id, exc)
        raise


async def check_results(request: Request, caller: Identity, found: Sequence[TaskRow]) -> None:
    """See `store.check_results`. A refusal is recorded."""
    guarded = [task for task in found if task.policy_id is not None]
    if not guarded:
        return
    service = service_of(request)
    try:
        try:
            await service.db.read(store.check_results, guarded, caller, service.clock())
        except LoginRequired:
            fresh = await _seen_anew(request, caller)
            if fresh is None:
                raise
            await service.db.read(store.check_results, guarded, fresh, service.clock())
    except Forbidden as exc:
        await _note_refusal(request, caller, "task.read", guarded[0].endpoint_id, exc)
        raise


async def _seen_anew(request: Request, caller: Identity) -> Identity | None:
    """The caller, if they have proved themselves again since we looked last; what is remembered of tokens may be a
    minute old.
    """
    service = service_of(request)
    service.authenticator.forget(token_hash(bearer_token(request.headers.get("authorization")) or ""))
    fresh = await service.authenticator.identify(request)
    return None if fresh.authentications == caller.authentications else fresh


async def _note_refusal(request: Request, caller: Identity, action: str, endpoint_id: str, exc: Forbidden) -> None:
    service, actor = service_of(request), actor_of(caller, peer_of(request))
    detail = {"code": exc.wire_code, "policy_id": exc.detail.get("policy_id")}
    noted = partial(record, at=service.clock(), outcome="refused", detail=detail)
    await service.db.write(noted, actor, action, "endpoint", endpoint_id)


def _plan(
    service: Service, caller: Identity, endpoint_id: str, request: SubmitRequest, key: str | None
) -> SubmissionPlan:
    return rules.plan_submission(
        request,
        endpoint_id,
        caller,
        payload_limit_bytes=service.settings.payload_limit_bytes,
        batch_limit=service.settings.batch_limit_tasks,
        idempotency_key=key,
    )


async def _submit(service: Service, plan: SubmissionPlan, address: str | None) -> SubmitResponse:
    """Store a submission; the relay hears of it before the caller does."""
    relay, queue_limit = service.relay, service.queue_limit

    def committed(submitted: Submitted) -> None:
        for function_id, code in (submitted.codes or {}).items():
            relay.codes.put(function_id, code)
        if submitted.queue_owner_id is not None:
            relay.group_submitted(submitted.queue_owner_id, submitted.response.task_group_id)
        if submitted.headers is not None:
            count = len(submitted.tasks)
            relay.measures.accepted += count
            queue_limit.submitted(submitted.endpoint_id, count)
            relay.submitted(submitted.endpoint_id, submitted.tasks, submitted.headers, submitted.manager_id)

    await queue_limit.prepare(plan.endpoint_id)
    try:
        submitted = await service.db.write(
            store.submit,
            plan,
            relay.codes,
            service.clock(),
            queue_limit.check,
            address,
            service.settings.audit_submissions,
            then=committed,
            announce=_added,
        )
    except EndpointQueueFull:
        relay.measures.queue_full += 1
        raise
    if submitted.manager_id is not None:
        await queue_limit.prepare(submitted.endpoint_id)  # known from the next submission on
    if _logger.isEnabledFor(logging.DEBUG):
        _logger.debug(
            "Tasks were accepted",
            extra={
                "event": "task.accepted",
                "task_ids": [task.id for task in submitted.tasks],
                "endpoint_id": plan.endpoint_id,
                "task_group_id": submitted.response.task_group_id,
                "identity_id": plan.caller.id,
            },
        )
    return submitted.response


def _added(submitted: Submitted) -> Sequence[Signal]:
    """What other processes are told of a submission; a repetition is none."""
    return [TasksAdded(submitted.endpoint_id, len(submitted.tasks))] if submitted.tasks else []


async def _submit_part(
    request: Request, caller: Identity, endpoint_id: str, part: SubmitRequest
) -> Sequence[SubmitResultV2]:
    """One function at one endpoint; what is refused is refused as a whole, and told task by task."""
    service = service_of(request)
    (function_id,) = part.tasks
    try:
        target = canonical_uuid(endpoint_id, "an endpoint id in member 'tasks'")
        response = await _submit_judged(request, _plan(service, caller, target, part, None))
    except ApiError as exc:
        failed = SubmitResultV2(status="Failed", http_status_code=exc.http_status, reason=exc.message)
        return [failed] * len(part.tasks[function_id])
    return [
        SubmitResultV2(status="Success", http_status_code=200, task_uuid=task_id)
        for task_id in response.tasks[function_id]
    ]


async def _results(service: Service, tasks: Sequence[TaskRow]) -> dict[int, StoredResult]:
    ended = [task.seq for task in tasks if task.state.is_terminal]
    return await service.db.read(store.read_results, ended) if ended else {}


def _pages(tasks: Sequence[TaskRow]) -> Iterator[Sequence[TaskRow]]:
    """Tasks in lists whose results fit into memory together."""
    page: list[TaskRow] = []
    chars = 0
    for task in tasks:
        if page and (len(page) >= _PAGE_TASKS or chars + task.data_chars > _PAGE_CHARS):
            yield page
            page, chars = [], 0
        page.append(task)
        chars += task.data_chars
    if page:
        yield page


async def _stream_status(
    service: Service, pages: Sequence[Sequence[TaskRow]], ids: dict[str, str]
) -> AsyncIterator[bytes]:
    """The document of `BatchStatus`, page by page."""
    comma = b'{"response":"batch","results":{'
    for page in pages:
        results = await _results(service, page)
        for task in page:
            yield comma + _encoder.encode(ids[task.id]) + b":"
            yield _encoder.encode(task_document(task, results.get(task.seq)))
            comma = b","
    yield b"}}"


def _group_body(conn: Any, group_id: str, caller: Identity) -> bytes:
    """Made on the reading thread: a group may have very many tasks."""
    group, tasks = store.read_group(conn, group_id, caller)
    return _encoder.encode(group_document(group, list(tasks)))
