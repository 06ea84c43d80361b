"""SQL of listings of one's own tasks, and of one task with all that is known of it.

Tasks are found by their submissions, of which there are few: the numbers of a submission's tasks are consecutive, and
numbers grow with time. What a filter leaves out is looked at all the same, so a page is made in steps (`read_step`),
each of a bounded number of tasks: however many there are, none takes long, and other readers get in between.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, bindparam, func, literal_column, select, true, update

from farcall.service.db.sql import Prepared, PreparedIn
from farcall.service.db.tables import endpoints, functions, submissions, task_is_open, task_results, tasks
from farcall.service.endpoints.store import StoredEndpoint, read_endpoint
from farcall.service.tasks.listing_rules import TaskQuery
from farcall.service.tasks.store import TaskRow, read_tasks
from farcall.service.tasks.waiting import COUNT_LIMIT
from farcall.wire.states import TaskState

__all__ = [
    "FIRST_STEP",
    "NEXT_STEP",
    "ListedTask",
    "Outcome",
    "Step",
    "TaskDetail",
    "fill_owners",
    "read_detail",
    "read_step",
]

FIRST_STEP: Final = 1_000
NEXT_STEP: Final = 10_000
_CLOCK_SLACK_S: Final = 60.0
"""Several processes write, each with its own clock."""
_TEXT_LIMIT_CHARS: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class ListedTask:
    """A line of a listing. Times are Unix seconds.

    Attributes:
        endpoint_id, endpoint_name: that was submitted to.
        user_endpoint_id: where it runs, if that is a user endpoint of it.
        error_code: None also where the endpoint is one for high assurance: then it is part of the result.
    """

    seq: int
    id: str
    state: TaskState
    endpoint_id: str
    endpoint_name: str | None
    user_endpoint_id: str | None
    function_id: str
    function_name: str | None
    group_id: str
    created_at: float
    completed_at: float | None
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """Some tasks, newest first, and below which number to look for more; None: there are none."""

    tasks: Sequence[ListedTask]
    next_before: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a task ended, as far as it may be told without opening the result.

    Attributes:
        head: the first characters of the value's text, of a task that succeeded.
        text: for the user, of one that did not: what its endpoint or the service says; a traceback, if the function
            raised.
    """

    error_code: str | None
    error_message: str | None
    head: str
    text: str
    size_bytes: int
    details: Mapping[str, Any]
    transitions: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDetail:
    """All that is known of a task.

    Attributes:
        row: for the question whether its result may be read (`store.check_results`).
        endpoint: in whose queue it is; None only if the database was tampered with.
        ahead: unfinished tasks of that queue with lower numbers, at most `waiting.COUNT_LIMIT` + 1.
    """

    listed: ListedTask
    row: TaskRow
    taken_at: float | None
    started_at: float | None
    endpoint: StoredEndpoint | None
    manager: StoredEndpoint | None
    outcome: Outcome | None
    ahead: int
    resource_specification: Any
    user_endpoint_config: Any


# --- Listing -------------------------------------------------------------------------------------------------


def read_step(conn: Connection, query: TaskQuery, before: int | None, count: int, size: int = NEXT_STEP) -> Step:
    """The newest `count` tasks that are wanted, of about the newest `size` of this person.

    Args:
        before: where the step before ended; None: the first one.
    """
    first, before = _bounds(conn, query, before)
    if first is None or before <= first:
        return Step([], None)
    if query.task_group_id is not None:
        return _group_step(conn, query, first, before, count, size)
    at = query.endpoint_id
    if at is not None:  # submissions know only what was submitted to
        at = conn.execute(_MANAGER, {"id": at}).scalar() or at
    found = _submissions(conn, query.owner_ids, at, before, size)
    found = [each for each in found if each[1] >= first]
    if not found:
        return Step([], None)
    lowest = found[-1][0]
    theirs = [
        submissions.c.owner_id.in_(sorted(query.owner_ids)),
        submissions.c.first_seq.between(lowest, found[0][0]),
        *([] if at is None else [submissions.c.endpoint_id == at]),
    ]
    rows = conn.execute(_of_submissions(conn, theirs, _filters(query), first, before).limit(count)).all()
    return Step(_listed(conn, rows), rows[-1].seq if len(rows) >= count else lowest)


def _of_submissions(conn: Connection, theirs: Sequence[Any], filters: Sequence[Any], first: int, before: int) -> Any:
    """Selects tasks of some submissions, newest first. Either database has to be told to begin with the submissions."""
    inside = tasks.c.seq.between(submissions.c.first_seq, submissions.c.last_seq)
    if conn.dialect.name != "postgresql":
        seq = tasks.c.seq + 0  # which no index is over: SQLite would take the tasks for their order
        statement = _LISTED.select_from(submissions.join(tasks, true()))
        return statement.where(*theirs, inside, seq >= first, seq < before, *filters).order_by(seq.desc())
    # Estimating what a range of numbers holds is not PostgreSQL's strength; what has an offset it takes as it is.
    of_one = _LISTED.where(inside, tasks.c.seq >= first, tasks.c.seq < before, *filters).offset(0)
    each = of_one.correlate(submissions).lateral("each")
    statement = select(each).select_from(submissions.join(each, true())).where(*theirs)
    return statement.order_by(each.c.seq.desc())


def _bounds(conn: Connection, query: TaskQuery, before: int | None) -> tuple[int | None, int]:
    """The numbers between which to look: the first, and the one after the last. None: there are no tasks at all."""
    # Apart: SQLite looks at the end of an index only if nothing else is asked.
    lowest, highest = (conn.execute(select(each(tasks.c.seq))).scalar() for each in (func.min, func.max))
    if lowest is None or highest is None:
        return None, 0
    first, after_last = int(lowest), int(highest) + 1
    before = min(after_last if before is None else before, after_last)
    if query.until is not None:
        before = min(before, _number_at(conn, query.until + _CLOCK_SLACK_S, first, before))
    if query.since is not None:
        first = _number_at(conn, query.since - _CLOCK_SLACK_S, first, before)
    return first, before


def _number_at(conn: Connection, at: float, low: int, high: int) -> int:
    """The number in [low, high] of the first task that was submitted at `at` or later: numbers grow with time, so it
    takes some thirty look-ups and no index.
    """
    while low < high:
        middle = (low + high) // 2
        row = _NEXT.first(conn, seq=middle)
        if row is None or row.created_at >= at:
            high = middle
        else:
            low = row.seq + 1
    return low


def _submissions(
    conn: Connection, owner_ids: frozenset[str], endpoint_id: str | None, before: int, size: int
) -> list[tuple[int, int]]:
    """The first and last numbers of the newest submissions before a number: as many as make `size` tasks."""
    pages = []
    for owner_id in sorted(owner_ids):
        if endpoint_id is None:
            rows = _OF_OWNER.all(conn, owner=owner_id, before=before, size=size)
        else:
            rows = _AT_ENDPOINT.all(conn, owner=owner_id, endpoint=endpoint_id, before=before, size=size)
        pages.append([(row.first_seq, row.last_seq) for row in rows])
    found: list[tuple[int, int]] = []
    total = 0
    for each in heapq.merge(*pages, reverse=True):
        found.append(each)
        total += each[1] - each[0] + 1
        if total >= size:
            break
    return found


def _group_step(conn: Connection, query: TaskQuery, first: int, before: int, count: int, size: int) -> Step:
    inside = and_(tasks.c.group_id == query.task_group_id, tasks.c.seq >= first, tasks.c.seq < before)
    newest = select(tasks.c.seq).where(inside).order_by(tasks.c.seq.desc())
    lowest = conn.execute(newest.offset(size - 1).limit(1)).scalar()
    wanted = [inside, tasks.c.owner_id.in_(sorted(query.owner_ids)), *_filters(query)]
    if lowest is not None:
        wanted.append(tasks.c.seq >= lowest)
    rows = conn.execute(_LISTED.where(*wanted).order_by(tasks.c.seq.desc()).limit(count)).all()
    return Step(_listed(conn, rows), rows[-1].seq if len(rows) >= count else lowest)


def _filters(query: TaskQuery) -> list[Any]:
    conditions: list[Any] = []
    if query.states:
        conditions.append(tasks.c.state.in_(query.states))
    if query.endpoint_id is not None:
        # What was submitted to a manager is in the queues of its user endpoints.
        conditions.append(
            (tasks.c.endpoint_id == query.endpoint_id)
            | tasks.c.endpoint_id.in_(select(endpoints.c.id).where(endpoints.c.manager_id == query.endpoint_id))
        )
    if query.function_id is not None:
        conditions.append(tasks.c.function_id == query.function_id)
    if query.since is not None:
        conditions.append(tasks.c.created_at >= query.since)
    if query.until is not None:
        conditions.append(tasks.c.created_at < query.until)
    return conditions


def _listed(conn: Connection, rows: Sequence[Any]) -> list[ListedTask]:
    """Rows of `_LISTED` with the names that belong to them."""
    places = {row.id: row for row in _PLACES.all(conn, sorted({row.endpoint_id for row in rows}))}
    managers = sorted({row.manager_id for row in places.values() if row.manager_id is not None})
    names = {row.id: row.name for row in _PLACES.all(conn, managers)} if managers else {}
    names.update((row.id, row.name) for row in places.values())
    called = {row.id: row.name for row in _FUNCTION_NAMES.all(conn, sorted({row.function_id for row in rows}))}
    failed = [row.seq for row in rows if row.state in _WITH_CODES]
    codes = {row.task_seq: row.error_code for row in _CODES.all(conn, failed)}
    listed = []
    for row in rows:
        place = places.get(row.endpoint_id)
        manager_id = None if place is None else place.manager_id
        is_protected = place is not None and place.high_assurance
        listed.append(
            ListedTask(
                row.seq,
                row.id,
                TaskState(row.state),
                manager_id or row.endpoint_id,
                names.get(manager_id or row.endpoint_id),
                None if manager_id is None else row.endpoint_id,
                row.function_id,
                called.get(row.function_id),
                row.group_id,
                row.created_at,
                row.completed_at,
                None if is_protected else codes.get(row.seq),
            )
        )
    return listed


_WITH_CODES: Final = (TaskState.FAILED.value, TaskState.CANCELLED.value)
_LISTED: Final = select(
    tasks.c.seq,
    tasks.c.id,
    tasks.c.group_id,
    tasks.c.endpoint_id,
    tasks.c.function_id,
    tasks.c.state,
    tasks.c.created_at,
    tasks.c.completed_at,
)
_NEXT = Prepared(
    select(tasks.c.seq, tasks.c.created_at).where(tasks.c.seq >= bindparam("seq")).order_by(tasks.c.seq).limit(1)
)
_MANAGER = select(endpoints.c.manager_id).where(endpoints.c.id == bindparam("id"))
_newest = (
    select(submissions.c.first_seq, submissions.c.last_seq)
    .where(submissions.c.owner_id == bindparam("owner"), submissions.c.first_seq < bindparam("before"))
    .order_by(submissions.c.first_seq.desc())
    .limit(bindparam("size"))
)
_OF_OWNER = Prepared(_newest)
_AT_ENDPOINT = Prepared(_newest.where(submissions.c.endpoint_id == bindparam("endpoint")))
_PLACES = PreparedIn(
    lambda ids: select(endpoints.c.id, endpoints.c.name, endpoints.c.manager_id, endpoints.c.high_assurance).where(
        endpoints.c.id.in_(ids)
    )
)
_FUNCTION_NAMES = PreparedIn(lambda ids: select(functions.c.id, functions.c.name).where(functions.c.id.in_(ids)))
_CODES = PreparedIn(
    lambda seqs: select(task_results.c.task_seq, task_results.c.error_code).where(task_results.c.task_seq.in_(seqs))
)


# --- One task ------------------------------------------------------------------------------------------------


def read_detail(conn: Connection, task_id: str, owner_ids: frozenset[str]) -> TaskDetail | None:
    """One task of these owners; None if there is none of this id."""
    row = read_tasks(conn, [task_id], owner_ids).get(task_id)
    if row is None:
        return None
    found = conn.execute(_DETAIL, {"seq": row.seq}).one()
    (listed,) = _listed(conn, [found])
    endpoint = read_endpoint(conn, found.endpoint_id)
    manager_id = None if endpoint is None else endpoint.rights.manager_id
    ahead = 0
    if not row.state.is_terminal:
        before = {"endpoint": found.endpoint_id, "seq": row.seq}
        ahead = len(conn.execute(_AHEAD, before).all())
    shared = conn.execute(_SUBMISSION, {"first": found.submission_seq}).first()
    return TaskDetail(
        listed=listed,
        row=row,
        taken_at=found.taken_at,
        started_at=found.started_at,
        endpoint=endpoint,
        manager=None if manager_id is None else read_endpoint(conn, manager_id),
        outcome=_outcome(conn, row),
        ahead=ahead,
        resource_specification=_json(shared.resource_specification_json if shared else None),
        user_endpoint_config=_json(shared.user_endpoint_config_json if shared else None),
    )


def _outcome(conn: Connection, row: TaskRow) -> Outcome | None:
    if not row.state.is_terminal:
        return None
    is_postgres = conn.dialect.name == "postgresql"
    size_bytes: Any = literal_column("octet_length(data)" if is_postgres else "length(CAST(data AS BLOB))")
    shown = 3 if row.state is TaskState.SUCCESS else _TEXT_LIMIT_CHARS
    found = conn.execute(
        select(
            task_results.c.error_code,
            task_results.c.error_message,
            task_results.c.details_json,
            task_results.c.transitions_json,
            func.substr(task_results.c.data, 1, shown).label("text"),
            size_bytes.label("size_bytes"),
        ).where(task_results.c.task_seq == row.seq)
    ).first()
    if found is None:
        return None
    is_value = row.state is TaskState.SUCCESS
    return Outcome(
        error_code=found.error_code,
        error_message=found.error_message,
        head=found.text if is_value else "",
        text="" if is_value else found.text,
        size_bytes=found.size_bytes,
        details=_object(found.details_json),
        transitions=_object(found.transitions_json),
    )


def _json(text: str | None) -> Any:
    try:
        return None if text is None else msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _object(text: str | None) -> Mapping[str, Any]:
    found = _json(text)
    return found if isinstance(found, dict) else {}


_DETAIL = _LISTED.add_columns(tasks.c.submission_seq, tasks.c.taken_at, tasks.c.started_at).where(
    tasks.c.seq == bindparam("seq")
)
_AHEAD = (
    select(tasks.c.seq)
    .where(tasks.c.endpoint_id == bindparam("endpoint"), task_is_open, tasks.c.seq < bindparam("seq"))
    .limit(COUNT_LIMIT + 1)
)
_SUBMISSION = select(submissions.c.resource_specification_json, submissions.c.user_endpoint_config_json).where(
    submissions.c.first_seq == bindparam("first")
)


# --- What releases before did not write --------------------------------------------------------------------------


def fill_owners(conn: Connection, count: int) -> int:
    """Note whose tasks the oldest `count` submissions have of which that is not known. Returns how many."""
    unknown = select(submissions.c.first_seq).where(submissions.c.owner_id.is_(None)).limit(count)
    found: list[int] = list(conn.execute(unknown).scalars())
    if found:
        conn.execute(_FILL.where(submissions.c.first_seq.in_(found)))
    return len(found)


_a_task_of = tasks.c.seq.between(submissions.c.first_seq, submissions.c.last_seq)
_where_it_went = (
    select(func.coalesce(endpoints.c.manager_id, tasks.c.endpoint_id))
    .join_from(tasks, endpoints, endpoints.c.id == tasks.c.endpoint_id, isouter=True)
    .where(_a_task_of)
    .limit(1)
    .correlate(submissions)
    .scalar_subquery()
)
_whose_it_is = select(tasks.c.owner_id).where(_a_task_of).limit(1).correlate(submissions).scalar_subquery()
_FILL = update(submissions).values(owner_id=func.coalesce(_whose_it_is, ""), endpoint_id=_where_it_went)
