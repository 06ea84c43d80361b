"""SQL of tasks as their owner sees them: submission, documents, groups, cancellation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, select, update

from farcall.service.accounts.rules import Identity
from farcall.service.audit.rules import actor_of
from farcall.service.audit.store import record
from farcall.service.db.sql import Insert, Prepared, PreparedIn, next_numbers
from farcall.service.db.tables import (
    endpoints,
    idempotency_keys,
    submissions,
    task_groups,
    task_is_open,
    task_payloads,
    task_results,
    tasks,
)
from farcall.service.endpoints.rules import Endpoint
from farcall.service.endpoints.store import find_endpoint
from farcall.service.functions.rules import Function
from farcall.service.functions.store import find_functions, note_runs, read_codes
from farcall.service.managers.rules import user_endpoint_id, user_endpoint_name
from farcall.service.managers.store import ensure_user_endpoint
from farcall.service.policies.store import check_policy_of
from farcall.service.relay.store import (
    REF_COLUMNS,
    Recorded,
    StoredTask,
    SubmissionHeaders,
    end_tasks,
    task_ref,
)
from farcall.service.tasks import rules
from farcall.service.tasks.rules import Group, SubmissionPlan
from farcall.service.web.bodies import encode_text
from farcall.wire.errors import ApiError, TaskGroupNotFound
from farcall.wire.rest import SubmitResponse
from farcall.wire.states import TaskState

__all__ = [
    "GroupTask",
    "StoredResult",
    "Submitted",
    "TaskRow",
    "cancel_task",
    "check_results",
    "count_by_state",
    "count_open",
    "read_group",
    "read_results",
    "read_tasks",
    "submit",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """A stored submission.

    Attributes:
        endpoint_id: whose queue the tasks go to.
        manager_id: who starts that endpoint; None if it starts by itself.
        tasks: as they are to be published; empty if the answer is a repetition.
        codes: the functions whose code the caller did not have.
    """

    response: SubmitResponse
    endpoint_id: str
    manager_id: str | None = None
    tasks: Sequence[StoredTask] = ()
    headers: SubmissionHeaders | None = None
    codes: dict[str, str] | None = None
    queue_owner_id: str | None = None
    """Whose group queue must exist before the answer; None if none was asked for."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task without its result. Times are Unix seconds.

    Attributes:
        policy_id: of the authentication policy that whoever reads the result must satisfy: that of its endpoint, if
            it is one for high assurance; "" if that has none any more; None: none is needed.
    """

    seq: int
    id: str
    owner_id: str
    state: TaskState
    created_at: float
    completed_at: float | None
    data_chars: int
    endpoint_id: str = ""
    policy_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredResult:
    """How a task ended."""

    data: str
    error_code: str | None
    error_message: str | None
    details: dict[str, Any] | None
    transitions: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class GroupTask:
    """A task of a group, as the group's document lists it."""

    id: str
    created_at: float


def submit(
    conn: Connection,
    plan: SubmissionPlan,
    known_codes: Collection[str],
    now: float,
    admit: Callable[[str, int], None] | None = None,
    address: str | None = None,
    is_recorded: bool = True,
) -> Submitted:
    """Store a submission, or find the answer that was given to the same request before.

    Args:
        known_codes: functions whose code the relay has in memory.
        admit: raises if the endpoint cannot take so many more tasks; not asked for a repetition.
        address: where the request came from.
        is_recorded: whether the audit table shall know of it.

    Raises:
        ApiError: see `rules.check_submission`, `rules.check_replay`. Nothing is written then.
        LoginRequired: see `policies.rules.check_policy`.
    """
    repeated = _answered_before(conn, plan)
    if repeated is not None:
        return repeated
    found = find_functions(conn, plan.function_ids)
    group = _find_group(conn, plan.group_id)
    endpoint = rules.check_submission(plan, find_endpoint(conn, plan.endpoint_id, plan.caller), found, group)
    if endpoint.policy_id is not None:
        what = f"running functions on endpoint {endpoint.id}"
        check_policy_of(conn, endpoint.policy_id, plan.caller, now=now, what=what)
    runtime_json = None if plan.user_runtime is None else encode_text(plan.user_runtime)
    queue_id = plan.endpoint_id if endpoint.direct else _user_endpoint_id(plan)
    if admit is not None:
        admit(queue_id, len(plan.calls))
    if not endpoint.direct:
        _ensure_user_endpoint(conn, plan, endpoint, queue_id, runtime_json, now)
    response = plan.response
    if endpoint.high_assurance:
        response = replace(response, ha_warning=rules.ha_warning(endpoint, found))
        note_runs(conn, [each.id for each in found.values() if each.ha_endpoint_id is not None], now)
    if is_recorded:
        _record(conn, plan, address, now)
    _write_group(conn, plan, group, now)
    stored = _write_tasks(conn, plan, found, queue_id, now)
    headers = _write_submission(conn, plan, runtime_json, stored[0].seq)
    if plan.idempotency_key is not None:
        _REMEMBER.run(conn, [(plan.caller.id, plan.idempotency_key, encode_text(response), now)])
    return Submitted(
        response=response,
        endpoint_id=queue_id,
        manager_id=None if endpoint.direct else endpoint.id,
        tasks=stored,
        headers=headers,
        codes=read_codes(conn, [each for each in plan.function_ids if each not in known_codes]),
        queue_owner_id=plan.caller.id if plan.create_queue else None,
    )


def cancel_task(
    conn: Connection, task_id: str, caller: Identity, code: str, text: str, now: float
) -> tuple[TaskState, Recorded]:
    """End a task as cancelled, unless it has ended. Returns its state, and what was written.

    Raises:
        TaskNotFound: unknown, or somebody else's.
    """
    row = conn.execute(_REF, {"id": task_id}).first()
    rules.check_task(row.owner_id if row else None, task_id, caller)
    assert row is not None
    ref = task_ref(row)
    recorded = end_tasks(conn, [ref], TaskState.CANCELLED, code, text, now)
    return (TaskState.CANCELLED if recorded.ended else ref.state), recorded


def read_tasks(conn: Connection, task_ids: Sequence[str], owner_ids: Collection[str]) -> dict[str, TaskRow]:
    """The tasks among these that a person owns by any of their identities; others and unknown ones are left out."""
    found: dict[str, TaskRow] = {}
    for row in _TASKS.all(conn, task_ids):
        if row.owner_id not in owner_ids:
            continue
        found[row.id] = TaskRow(
            row.seq,
            row.id,
            row.owner_id,
            TaskState(row.state),
            row.created_at,
            row.completed_at,
            row.data_chars or 0,
            row.endpoint_id,
            (row.policy_id or "") if row.high_assurance else None,
        )
    return found


def read_results(conn: Connection, task_seqs: Sequence[int]) -> dict[int, StoredResult]:
    """The results of these tasks, by the task's number."""
    found: dict[int, StoredResult] = {}
    for row in _RESULTS.all(conn, task_seqs):
        found[row.task_seq] = StoredResult(
            row.data,
            row.error_code,
            row.error_message,
            _object_or_none(row.details_json),
            _object_or_none(row.transitions_json),
        )
    return found


def _object_or_none(text: str | None) -> dict[str, Any] | None:
    """What an endpoint sent beside a result; what cannot be read must not make the result unreadable."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def read_group(conn: Connection, group_id: str, caller: Identity) -> tuple[Group, Sequence[GroupTask]]:
    """A task group and its tasks in the order of submission.

    Raises:
        TaskGroupNotFound: unknown, or somebody else's.
    """
    group = _find_group(conn, group_id)
    if group is None or group.owner_id != caller.id:
        raise TaskGroupNotFound(f"There is no task group {group_id} of yours at this service.")
    return group, [GroupTask(*row) for row in conn.execute(_GROUP_TASKS, {"group": group_id}).all()]


def count_by_state(conn: Connection) -> dict[str, int]:
    """How many tasks are in each state."""
    rows = conn.execute(select(tasks.c.state, func.count()).group_by(tasks.c.state)).all()
    return {row[0]: row[1] for row in rows}


def count_open(conn: Connection, endpoint_id: str) -> int:
    """How many tasks of an endpoint have not ended."""
    found: int = conn.execute(_COUNT_OPEN, {"endpoint": endpoint_id}).scalar_one()
    return found


def _find_group(conn: Connection, group_id: str) -> Group | None:
    row = _GROUP.first(conn, id=group_id)
    return None if row is None else Group(id=row.id, owner_id=row.owner_id, has_queue=bool(row.has_queue))


def _record(conn: Connection, plan: SubmissionPlan, address: str | None, now: float) -> None:
    detail = {"task_group_id": plan.group_id, "tasks": len(plan.calls), "functions": list(plan.function_ids[:100])}
    record(conn, actor_of(plan.caller, address), "task.submit", "endpoint", plan.endpoint_id, at=now, detail=detail)


def check_results(conn: Connection, found: Sequence[TaskRow], caller: Identity, now: float) -> None:
    """Whether the caller may read the results of these tasks of theirs: those for high assurance want the policy
    of their endpoint satisfied now.

    Raises:
        LoginRequired, Forbidden, Conflict: see `policies.store.check_policy_of`; member `task_ids` of the error
            lists the tasks that it is about.
    """
    by_policy: dict[str, list[TaskRow]] = {}
    for task in found:
        if task.policy_id is not None and task.state.is_terminal:
            by_policy.setdefault(task.policy_id, []).append(task)
    for policy_id, guarded in by_policy.items():
        what = f"reading results of the high-assurance endpoint {guarded[0].endpoint_id}"
        try:
            check_policy_of(conn, policy_id, caller, now=now, what=what)
        except ApiError as exc:
            exc.detail["task_ids"] = [task.id for task in guarded]
            raise


def _write_group(conn: Connection, plan: SubmissionPlan, group: Group | None, now: float) -> None:
    if group is None:
        _ADD_GROUP.run(conn, [(plan.group_id, plan.caller.id, plan.create_queue, 0, now)])
    elif plan.create_queue and not group.has_queue:
        conn.execute(update(task_groups).where(task_groups.c.id == group.id).values(has_queue=True))


def _answered_before(conn: Connection, plan: SubmissionPlan) -> Submitted | None:
    """The answer to the same request, if it was given one. Raises Conflict, see `rules.check_replay`."""
    if plan.idempotency_key is None:
        return None
    earlier = _EARLIER.scalar(conn, who=plan.caller.id, what=plan.idempotency_key)
    if earlier is None:
        return None
    response = msgspec.json.decode(earlier, type=SubmitResponse)
    rules.check_replay(plan, response)
    return Submitted(
        response=response,
        endpoint_id=plan.endpoint_id,
        queue_owner_id=plan.caller.id if plan.create_queue else None,
    )


def _write_tasks(
    conn: Connection, plan: SubmissionPlan, functions: Mapping[str, Function], queue_id: str, now: float
) -> Sequence[StoredTask]:
    """The tasks of a plan, with numbers of their own, in the queue of `queue_id`."""
    first = next_numbers(conn, "tasks", len(plan.calls))
    stored = [
        StoredTask(
            first + at,
            call.task_id,
            call.function_id,
            functions[call.function_id].code_chars + len(call.payload),
            call.payload,
            first,
            now,
        )
        for at, call in enumerate(plan.calls)
    ]
    caller_id, group_id, state = plan.caller.id, plan.group_id, TaskState.RECEIVED.value
    _ADD_TASKS.run(
        conn,
        [
            (each.seq, each.id, first, group_id, caller_id, queue_id, each.function_id, state, each.size_chars, now)
            for each in stored
        ],
    )
    _ADD_PAYLOADS.run(conn, [(each.seq, each.payload) for each in stored])
    return stored


def _user_endpoint_id(plan: SubmissionPlan) -> str:
    return user_endpoint_id(
        plan.endpoint_id,
        plan.caller.id,
        plan.user_endpoint_config,
        python_version=plan.python_version,
        runtime=plan.user_runtime,
    )


def _ensure_user_endpoint(
    conn: Connection, plan: SubmissionPlan, manager: Endpoint, queue_id: str, runtime_json: str | None, now: float
) -> None:
    ensure_user_endpoint(
        conn,
        queue_id,
        manager_id=plan.endpoint_id,
        owner_id=plan.caller.id,
        name=user_endpoint_name(plan.endpoint_id, queue_id),
        high_assurance=manager.high_assurance,
        options=plan.user_endpoint_config,
        runtime_json=runtime_json,
        now=now,
    )


def _write_submission(
    conn: Connection, plan: SubmissionPlan, runtime_json: str | None, first_seq: int
) -> SubmissionHeaders:
    headers = SubmissionHeaders(
        encode_text(plan.resource_specification) if plan.resource_specification else None,
        encode_text(plan.result_serializers) if plan.result_serializers else None,
        plan.python_version,
    )
    _ADD_SUBMISSION.run(
        conn,
        [
            (
                first_seq,
                first_seq + len(plan.calls) - 1,
                runtime_json,
                headers.resource_specification_json,
                headers.result_serializers_json,
                encode_text(plan.user_endpoint_config) if plan.user_endpoint_config else None,
                headers.python_version,
                plan.caller.id,
                plan.endpoint_id,
            )
        ],
    )
    return headers


_ADD_TASKS = Insert(
    tasks,
    (
        "seq",
        "id",
        "submission_seq",
        "group_id",
        "owner_id",
        "endpoint_id",
        "function_id",
        "state",
        "size_chars",
        "created_at",
    ),
)
_ADD_PAYLOADS = Insert(task_payloads, ("seq", "payload"))
_ADD_SUBMISSION = Insert(
    submissions,
    (
        "first_seq",
        "last_seq",
        "user_runtime_json",
        "resource_specification_json",
        "result_serializers_json",
        "user_endpoint_config_json",
        "python_version",
        "owner_id",
        "endpoint_id",
    ),
)
_ADD_GROUP = Insert(task_groups, ("id", "owner_id", "has_queue", "delivered_seq", "created_at"))
_REMEMBER = Insert(idempotency_keys, ("identity_id", "key", "response_json", "created_at"))
_EARLIER = Prepared(
    select(idempotency_keys.c.response_json).where(
        idempotency_keys.c.identity_id == bindparam("who"), idempotency_keys.c.key == bindparam("what")
    )
)
_GROUP = Prepared(
    select(task_groups.c.id, task_groups.c.owner_id, task_groups.c.has_queue).where(task_groups.c.id == bindparam("id"))
)
_GROUP_TASKS = (
    select(tasks.c.id, tasks.c.created_at).where(tasks.c.group_id == bindparam("group")).order_by(tasks.c.seq)
)
_COUNT_OPEN = select(func.count()).select_from(tasks).where(tasks.c.endpoint_id == bindparam("endpoint"), task_is_open)
_REF = select(*REF_COLUMNS).where(tasks.c.id == bindparam("id"))
_managers = endpoints.alias("managers")  # whose policy is their user endpoints', too
_TASKS = PreparedIn(
    lambda ids: (
        select(
            tasks.c.seq,
            tasks.c.id,
            tasks.c.owner_id,
            tasks.c.state,
            tasks.c.created_at,
            tasks.c.completed_at,
            task_results.c.data_chars,
            tasks.c.endpoint_id,
            endpoints.c.high_assurance,
            func.coalesce(_managers.c.authentication_policy_id, endpoints.c.authentication_policy_id).label(
                "policy_id"
            ),
        )
        .join_from(tasks, task_results, task_results.c.task_seq == tasks.c.seq, isouter=True)
        .join(endpoints, endpoints.c.id == tasks.c.endpoint_id, isouter=True)
        .join(_managers, _managers.c.id == endpoints.c.manager_id, isouter=True)
        .where(tasks.c.id.in_(ids))
    )
)
_RESULTS = PreparedIn(lambda seqs: select(task_results).where(task_results.c.task_seq.in_(seqs)))
