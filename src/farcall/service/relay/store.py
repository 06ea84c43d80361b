"""SQL of the relay: pages for the feeds, results in, and what the sweeper throws away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Float, and_, bindparam, delete, exists, func, or_, select, update

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
from farcall.service.relay.moves import Move
from farcall.service.relay.results import (
    Accepted,
    Dropped,
    ParsedResult,
    TaskRef,
    decide,
    failure_result,
    result_message,
)
from farcall.service.usage.store import count_ends
from farcall.wire.states import TRANSITIONS, TaskState

__all__ = [
    "REF_COLUMNS",
    "EndedTask",
    "OutgoingResult",
    "Recorded",
    "StoredTask",
    "SubmissionHeaders",
    "Swept",
    "TaskPage",
    "adopt_endpoint",
    "deleted_endpoints_with_open_tasks",
    "end_tasks",
    "end_tasks_of_endpoint",
    "is_protected",
    "move_tasks",
    "note_taken",
    "read_last_ends",
    "read_result_page",
    "read_results",
    "read_ended",
    "read_task_page",
    "read_untaken_page",
    "record_results",
    "sweep_groups",
    "sweep_keys",
    "sweep_tasks",
    "task_ref",
    "write_delivered",
]


@dataclass(frozen=True, slots=True)
class SubmissionHeaders:
    """What the tasks of a submission have in common in their AMQP headers."""

    resource_specification_json: str | None
    result_serializers_json: str | None
    python_version: str | None


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task that is to be published."""

    seq: int
    id: str
    function_id: str
    size_chars: int
    payload: str
    submission_seq: int
    created_at: float


@dataclass(frozen=True, slots=True)
class OutgoingResult:
    """A result that is to be published to its task group."""

    seq: int
    task_id: str
    body: bytes
    completed_at: float
    is_protected: bool = False


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that has just ended, with its number in the order of results."""

    result_seq: int
    task: TaskRef
    result: ParsedResult


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch of results."""

    ended: Sequence[EndedTask]
    dropped: Sequence[Dropped]
    completed_at: float


@dataclass(frozen=True, slots=True)
class Swept:
    """One step of the sweeper.

    Attributes:
        ended: tasks that had outlived their time.
        deleted: how many tasks were forgotten.
        next_seq: where to go on; None if there is nothing more to look at.
    """

    ended: Sequence[EndedTask]
    deleted: int
    next_seq: int | None


# --- Pages ---------------------------------------------------------------------------------------------------


TaskPage = tuple[Sequence[StoredTask], Mapping[int, SubmissionHeaders], bool]
"""Tasks, the headers of their submissions by number, and whether these were the last."""


def read_task_page(conn: Connection, endpoint_id: str, after: int, count: int, size_chars: int) -> TaskPage:
    """The next tasks of an endpoint that have not ended, by ascending number."""
    return _read_task_page(conn, _TASK_SIZES, _TASK_PAGE, endpoint_id, after, count, size_chars)


def read_untaken_page(conn: Connection, endpoint_id: str, after: int, count: int, size_chars: int) -> TaskPage:
    """The same, but for those that the endpoint has taken (`note_taken`)."""
    return _read_task_page(conn, _UNTAKEN_SIZES, _UNTAKEN_PAGE, endpoint_id, after, count, size_chars)


def _read_task_page(
    conn: Connection, sizes_of: Prepared, page_of: Prepared, endpoint_id: str, after: int, count: int, size_chars: int
) -> TaskPage:
    sizes = sizes_of.all(conn, endpoint=endpoint_id, after=after, count=count)
    last, is_last = _cut(sizes, count, size_chars)
    if last is None:
        return [], {}, True
    rows = page_of.all(conn, endpoint=endpoint_id, after=after, last=last)
    page = [StoredTask(*row) for row in rows]
    of_submissions = _SHARED.all(conn, sorted({task.submission_seq for task in page}))
    shared = {row[0]: SubmissionHeaders(*row[1:]) for row in of_submissions}
    return page, shared, is_last


def read_result_page(
    conn: Connection, group_id: str, owner_id: str, after: int, count: int, size_chars: int, is_shared: bool = True
) -> tuple[Sequence[OutgoingResult], bool]:
    """The next results of a task group, and whether these were the last.

    Args:
        is_shared: leave out what the clients that share the group's queue have acknowledged.
    """
    delivered = _DELIVERED.scalar(conn, group=group_id, owner=owner_id)
    if delivered is None:
        return [], True
    if is_shared:
        after = max(after, delivered)
    sizes = _RESULT_SIZES.all(conn, group=group_id, after=after, count=count)
    last, is_last = _cut(sizes, count, size_chars)
    if last is None:
        return [], True
    rows = _RESULT_PAGE.all(conn, group=group_id, after=after, last=last)
    return [_outgoing(row) for row in rows], is_last


def read_results(conn: Connection, task_ids: Sequence[str]) -> Sequence[OutgoingResult]:
    """The results of these tasks, of those that have ended."""
    return [_outgoing(row) for row in _RESULTS_OF.all(conn, task_ids)]


def read_ended(conn: Connection, task_ids: Sequence[str]) -> Sequence[TaskRef]:
    """Those of these tasks that have ended."""
    return [ref for ref in _refs(conn, task_ids) if ref.state.is_terminal]


def read_last_ends(
    conn: Connection, count: int, codes: Sequence[str]
) -> Mapping[tuple[str, str], list[OutgoingResult]]:
    """Among the last `count` results those with one of these error codes: by owner and task group, oldest first."""
    newest = conn.execute(select(func.max(task_results.c.seq))).scalar() or 0
    found: dict[tuple[str, str], list[OutgoingResult]] = {}
    for row in conn.execute(_LAST_ENDS, {"after": newest - count, "codes": list(codes)}):
        found.setdefault((row.owner_id, row.group_id), []).append(_outgoing(row))
    return found


def _outgoing(row: Any) -> OutgoingResult:  # a row with the columns of _RESULT
    return OutgoingResult(
        row.seq,
        row.id,
        result_message(row.id, row.data, row.error_code, row.error_message, row.details_json),
        row.completed_at,
        bool(row.is_protected),
    )


def _cut(sizes: Sequence[Any], count: int, size_chars: int) -> tuple[int | None, bool]:
    """How far a page goes: the last number that fits, at least one, and whether nothing follows it."""
    if not sizes:
        return None, True
    total = 0
    for at, (_, size) in enumerate(sizes):
        total += size
        if total > size_chars and at > 0:
            return sizes[at - 1][0], False
    return sizes[-1][0], len(sizes) < count


is_protected: Final = (
    select(endpoints.c.high_assurance).where(endpoints.c.id == tasks.c.endpoint_id).scalar_subquery()
).label("is_protected")
"""Of a row of `tasks`: whether its endpoint is one for high assurance, which never changes."""

_next_open = and_(tasks.c.endpoint_id == bindparam("endpoint"), task_is_open, tasks.c.seq > bindparam("after"))
_task_sizes = select(tasks.c.seq, tasks.c.size_chars).order_by(tasks.c.seq).limit(bindparam("count"))
_task_page = (
    select(
        tasks.c.seq,
        tasks.c.id,
        tasks.c.function_id,
        tasks.c.size_chars,
        task_payloads.c.payload,
        tasks.c.submission_seq,
        tasks.c.created_at,
    )
    .join_from(tasks, task_payloads, task_payloads.c.seq == tasks.c.seq)
    .where(tasks.c.seq <= bindparam("last"))
    .order_by(tasks.c.seq)
)
_is_untaken = tasks.c.state == TaskState.RECEIVED.value
_TASK_SIZES, _TASK_PAGE = (Prepared(select_.where(_next_open)) for select_ in (_task_sizes, _task_page))
_UNTAKEN_SIZES, _UNTAKEN_PAGE = (
    Prepared(select_.where(_next_open, _is_untaken)) for select_ in (_task_sizes, _task_page)
)
_SHARED = PreparedIn(
    lambda seqs: select(
        submissions.c.first_seq,
        submissions.c.resource_specification_json,
        submissions.c.result_serializers_json,
        submissions.c.python_version,
    ).where(submissions.c.first_seq.in_(seqs))
)
_DELIVERED = Prepared(
    select(task_groups.c.delivered_seq).where(
        task_groups.c.id == bindparam("group"), task_groups.c.owner_id == bindparam("owner")
    )
)
_next_result = (task_results.c.group_id == bindparam("group")) & (task_results.c.seq > bindparam("after"))
_RESULT_SIZES = Prepared(
    select(task_results.c.seq, task_results.c.data_chars)
    .where(_next_result)
    .order_by(task_results.c.seq)
    .limit(bindparam("count"))
)
_RESULT = select(task_results, tasks.c.id, tasks.c.completed_at, is_protected).join_from(
    task_results, tasks, tasks.c.seq == task_results.c.task_seq
)
_RESULTS_OF = PreparedIn(lambda ids: _RESULT.where(tasks.c.id.in_(ids)).order_by(task_results.c.seq))
_LAST_ENDS = (
    _RESULT.add_columns(tasks.c.owner_id)
    .where(task_results.c.seq > bindparam("after"), task_results.c.error_code.in_(bindparam("codes", expanding=True)))
    .order_by(task_results.c.seq)
)
_RESULT_PAGE = Prepared(
    _RESULT.where(_next_result, task_results.c.seq <= bindparam("last")).order_by(task_results.c.seq)
)


# --- Ends ----------------------------------------------------------------------------------------------------


def record_results(conn: Connection, results: Sequence[ParsedResult], now: float) -> Recorded:
    """Store what endpoints sent: the first result of each task, from the endpoint that it belongs to."""
    refs = {ref.id: ref for ref in _refs(conn, sorted({result.task_id for result in results}))}
    verdicts = decide(results, refs)
    ended = _end(conn, [verdict for verdict in verdicts if isinstance(verdict, Accepted)], None, now)
    return Recorded(ended, [verdict for verdict in verdicts if isinstance(verdict, Dropped)], now)


def end_tasks(
    conn: Connection, refs: Sequence[TaskRef], state: TaskState, code: str, text: str, now: float
) -> Recorded:
    """End tasks by decision of the service, all for the same reason; those that have ended already stay as they are.

    Args:
        text: for the user; `{task_id}` in it is replaced.
    """
    results = [failure_result(ref.id, code, text.replace("{task_id}", ref.id)) for ref in refs]
    verdicts = decide(results, {ref.id: ref for ref in refs})
    ended = _end(conn, [verdict for verdict in verdicts if isinstance(verdict, Accepted)], state, now)
    return Recorded(ended, [], now)


def end_tasks_of_endpoint(conn: Connection, endpoint_id: str, count: int, code: str, text: str, now: float) -> Recorded:
    """End the oldest `count` tasks of an endpoint that have not ended, as failed."""
    found = conn.execute(_OPEN_REFS, {"endpoint": endpoint_id, "after": 0, "count": count}).all()
    return end_tasks(conn, [task_ref(row) for row in found], TaskState.FAILED, code, text, now)


def deleted_endpoints_with_open_tasks(conn: Connection) -> Sequence[str]:
    """Endpoints whose deletion is not finished."""
    return conn.execute(_UNFINISHED_DELETIONS).scalars().all()


def move_tasks(conn: Connection, moves: Mapping[str, Mapping[str, Move]]) -> None:
    """Note where tasks are, as their endpoint reports: endpoint → task → move, none of them to a terminal state.

    A move that the transition table does not allow (the task has ended meanwhile) is ignored.
    """
    rows: list[dict[str, Any]] = [
        {
            "which": task_id,
            "endpoint": endpoint_id,
            "to_state": move.state.value,
            "taken": move.taken_at,
            "started": move.started_at,
        }
        for endpoint_id, of_tasks in moves.items()
        for task_id, move in of_tasks.items()
        if not move.state.is_terminal
    ]
    for to_state in {row["to_state"] for row in rows}:
        conn.execute(_MOVES[to_state], [row for row in rows if row["to_state"] == to_state])


def note_taken(conn: Connection, seqs: Sequence[int]) -> None:
    """These tasks, by number, are in the custody of an agent (see `custody`); those that moved on stay as they are."""
    _TAKE.run(conn, seqs)


def adopt_endpoint(conn: Connection, endpoint_id: str, incarnation: str) -> bool:
    """Note which process works for an endpoint. If another one did, what that had taken waits again.

    Returns:
        Whether there was something.
    """
    if not conn.execute(_ADOPT, {"which": endpoint_id, "who": incarnation}).rowcount:
        return False
    return conn.execute(_GIVE_BACK, {"which": endpoint_id}).rowcount > 0


def _refs(conn: Connection, task_ids: Sequence[str]) -> list[TaskRef]:
    return [task_ref(row) for row in _REFS.all(conn, task_ids)]


def task_ref(row: Any) -> TaskRef:
    """Of a row that begins with `REF_COLUMNS`."""
    return TaskRef(row[0], row[1], row[2], row[3], row[4], TaskState(row[5]), bool(row[6]), row[7], row[8])


def _end(conn: Connection, accepted: Sequence[Accepted], state: TaskState | None, now: float) -> Sequence[EndedTask]:
    """Write the ends of tasks that have not ended. `state` overrides the results' own."""
    if not accepted:
        return []
    first = next_numbers(conn, "results", len(accepted))
    ended = [EndedTask(first + at, each.task, each.result) for at, each in enumerate(accepted)]
    _ADD_RESULTS.run(conn, [_result_row(each) for each in ended])
    by_state: dict[str, list[int]] = {}
    for each in ended:
        by_state.setdefault((state or each.result.state).value, []).append(each.task.seq)
    for to_state, seqs in by_state.items():
        _END.run(conn, seqs, to_state=to_state, now=now)
    _DROP_PAYLOADS.run(conn, [each.task.seq for each in ended])
    count_ends(conn, [(each.task, state or each.result.state, each.result.run_s or 0.0) for each in ended], now)
    return ended


def _result_row(ended: EndedTask) -> tuple[Any, ...]:
    result = ended.result
    return (
        ended.result_seq,
        ended.task.seq,
        ended.task.group_id,
        result.data,
        len(result.data),
        result.error_code,
        result.error_message,
        result.details_json,
        result.transitions_json,
    )


REF_COLUMNS: Final = (
    tasks.c.seq,
    tasks.c.id,
    tasks.c.group_id,
    tasks.c.owner_id,
    tasks.c.endpoint_id,
    tasks.c.state,
    is_protected,
    tasks.c.function_id,
    tasks.c.created_at,
)
_REFS = PreparedIn(lambda ids: select(*REF_COLUMNS).where(tasks.c.id.in_(ids)))
_OPEN_REFS = select(*REF_COLUMNS).where(_next_open).order_by(tasks.c.seq).limit(bindparam("count"))
_END = PreparedIn(
    lambda seqs: (
        update(tasks).where(tasks.c.seq.in_(seqs)).values(state=bindparam("to_state"), completed_at=bindparam("now"))
    )
)
_DROP_PAYLOADS = PreparedIn(lambda seqs: delete(task_payloads).where(task_payloads.c.seq.in_(seqs)))
_ADD_RESULTS = Insert(
    task_results,
    (
        "seq",
        "task_seq",
        "group_id",
        "data",
        "data_chars",
        "error_code",
        "error_message",
        "details_json",
        "transitions_json",
    ),
)
_MOVES = {
    to_state.value: update(tasks)
    .where(
        tasks.c.id == bindparam("which"),
        tasks.c.endpoint_id == bindparam("endpoint"),
        or_(*(tasks.c.state == before.value for before in TaskState if to_state in TRANSITIONS[before])),
    )
    .values(
        state=bindparam("to_state"),
        taken_at=func.coalesce(bindparam("taken", type_=Float), tasks.c.taken_at),
        started_at=func.coalesce(bindparam("started", type_=Float), tasks.c.started_at),
    )
    for to_state in TaskState
    if not to_state.is_terminal
}
_TAKE = PreparedIn(
    lambda seqs: update(tasks).where(tasks.c.seq.in_(seqs), _is_untaken).values(state=TaskState.WAITING_FOR_NODES.value)
)
_ADOPT = (
    update(endpoints)
    .where(
        endpoints.c.id == bindparam("which"),
        or_(endpoints.c.incarnation.is_(None), endpoints.c.incarnation != bindparam("who")),
    )
    .values(incarnation=bindparam("who"))
)
_GIVE_BACK = (
    update(tasks)
    .where(tasks.c.endpoint_id == bindparam("which"), task_is_open, tasks.c.state != TaskState.RECEIVED.value)
    .values(state=TaskState.RECEIVED.value)
)
_UNFINISHED_DELETIONS = select(endpoints.c.id).where(
    endpoints.c.deleted_at.is_not(None), exists().where(tasks.c.endpoint_id == endpoints.c.id, task_is_open)
)


# --- Deliveries and sweeping ---------------------------------------------------------------------------------


def write_delivered(conn: Connection, delivered: Mapping[str, int]) -> None:
    """Remember up to which result each group's client has acknowledged."""
    conn.execute(_SET_DELIVERED, [{"which": group_id, "seq": seq} for group_id, seq in delivered.items()])


def sweep_tasks(
    conn: Connection,
    from_seq: int,
    count: int,
    now: float,
    lifetime_s: float,
    retention_s: float,
    code: str,
    text: str,
) -> Swept:
    """Look at the `count` oldest tasks from `from_seq` on: end those that have outlived their time, and forget those
    whose result has been kept long enough. Numbers grow with time, so this never reads beyond the old ones.
    """
    page = conn.execute(_TASKS_FROM, {"from_seq": from_seq, "count": count}).all()
    oldest = now - min(lifetime_s, retention_s)
    rows = [row for row in page if row.created_at < oldest]
    if not rows:
        return Swept([], 0, None)
    overdue: list[TaskRef] = []
    gone: list[int] = []
    for row in rows:
        ref = task_ref(row)
        if not ref.state.is_terminal:
            if row.created_at < now - lifetime_s:
                overdue.append(ref)
        elif row.completed_at < now - retention_s:
            gone.append(ref.seq)
    for statement in _FORGET:
        statement.run(conn, gone)
    first, last = rows[0].submission_seq, rows[-1].seq
    conn.execute(_FORGET_SUBMISSIONS, {"first": first, "last": last})
    ended = end_tasks(conn, overdue, TaskState.FAILED, code, text, now).ended
    return Swept(ended, len(gone), last + 1 if len(rows) == count else None)


def sweep_groups(conn: Connection, count: int, before: float) -> int:
    """Forget at most `count` old task groups without tasks. Returns how many."""
    ids = conn.execute(_EMPTY_GROUPS, {"before": before, "count": count}).scalars().all()
    if ids:
        conn.execute(delete(task_groups).where(task_groups.c.id.in_(ids)))
    return len(ids)


def sweep_keys(conn: Connection, before: float) -> int:
    """Forget idempotency keys made before `before`. Returns how many."""
    return conn.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < before)).rowcount


_SET_DELIVERED = (
    update(task_groups)
    .where(task_groups.c.id == bindparam("which"), task_groups.c.delivered_seq < bindparam("seq"))
    .values(delivered_seq=bindparam("seq"))
)
_TASKS_FROM = (
    select(*REF_COLUMNS, tasks.c.completed_at, tasks.c.submission_seq)
    .where(tasks.c.seq >= bindparam("from_seq"))
    .order_by(tasks.c.seq)
    .limit(bindparam("count"))
)
_FORGET = (
    PreparedIn(lambda seqs: delete(task_results).where(task_results.c.task_seq.in_(seqs))),
    PreparedIn(lambda seqs: delete(task_payloads).where(task_payloads.c.seq.in_(seqs))),
    PreparedIn(lambda seqs: delete(tasks).where(tasks.c.seq.in_(seqs))),
)
_FORGET_SUBMISSIONS = delete(submissions).where(
    submissions.c.first_seq >= bindparam("first"),
    submissions.c.first_seq <= bindparam("last"),
    ~exists().where(tasks.c.seq >= submissions.c.first_seq, tasks.c.seq <= submissions.c.last_seq),
)
_EMPTY_GROUPS = (
    select(task_groups.c.id)
    .where(task_groups.c.created_at < bindparam("before"), ~exists().where(tasks.c.group_id == task_groups.c.id))
    .order_by(task_groups.c.created_at)
    .limit(bindparam("count"))
)
