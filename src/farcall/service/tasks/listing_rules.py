"""What listings of tasks are asked for, and how a task's life is told. Decides only; `waiting` says why one waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from farcall.service.web import queries
from farcall.service.web.cursors import position_of
from farcall.wire.errors import InvalidRequest
from farcall.wire.states import TaskState

__all__ = [
    "DEFAULT_LIMIT",
    "KINDS",
    "LARGEST_LIMIT",
    "STATES",
    "TaskQuery",
    "Transition",
    "kind_of_result",
    "query_from",
    "timeline",
]

DEFAULT_LIMIT: Final = 50
LARGEST_LIMIT: Final = 500
STATES: Final = tuple(state.value for state in TaskState)

KINDS: Final[Mapping[str, str]] = {
    "00": "a value pickled by dill",
    "01": "a function pickled by dill",
    "02": "a function, pickled",
    "03": "a function's source, pickled",
    "04": "a function's source, pickled",
    "10": "a function in several forms",
    "11": "JSON",
    "12": "a function in several forms",
    "13": "a value as JSON and pickled by dill",
    "sd": "a function's source text",
    "st": "a function's source text",
}
"""What the first two characters of a serialized value mean. Source: wire protocol, payloads, strategies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskQuery:
    """Which tasks of one's own are wanted. None and empty mean any.

    Attributes:
        owner_ids: the person's identities.
        endpoint_id: that was submitted to, or a user endpoint.
        since, until: of the submission, Unix seconds; `until` itself is not included.
        before_seq: where the page before ended; None: from the newest on.
        limit: at most so many.
    """

    owner_ids: frozenset[str]
    states: tuple[str, ...] = ()
    endpoint_id: str | None = None
    function_id: str | None = None
    task_group_id: str | None = None
    since: float | None = None
    until: float | None = None
    before_seq: int | None = None
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class Transition:
    """A step in a task's life.

    Attributes:
        state: one of `TaskState`, or what endpoints report beyond these (`execution-start`, `execution-end`, …).
        at: Unix seconds, by the clock of who says so; None: it is not known since when.
        by: who says so: `service`, `endpoint` or `worker`.
    """

    state: str
    at: float | None
    by: str


def query_from(given: Mapping[str, str], owner_ids: frozenset[str]) -> TaskQuery:
    """Read query parameters. Raises InvalidRequest, naming the parameter."""
    since, until = queries.time(given, "since"), queries.time(given, "until")
    if since is not None and until is not None and until <= since:
        raise InvalidRequest("query parameter 'until' must be later than 'since'.")
    limit = queries.limit(given, default=DEFAULT_LIMIT, largest=LARGEST_LIMIT)
    position = position_of(queries.text(given, queries.CURSOR), int)
    return TaskQuery(
        owner_ids=owner_ids,
        states=queries.choices(given, "state", STATES),
        endpoint_id=queries.uuid(given, "endpoint_id"),
        function_id=queries.uuid(given, "function_id"),
        task_group_id=queries.uuid(given, "task_group_id"),
        since=since,
        until=until,
        before_seq=None if position is None else position[0],
        limit=limit,
    )


def timeline(
    state: TaskState,
    *,
    created_at: float,
    completed_at: float | None,
    taken_at: float | None,
    started_at: float | None,
    told: Mapping[str, object],
) -> Sequence[Transition]:
    """The steps of a task, the first one first.

    Clocks of several machines are in it: what the service says comes first and last, whatever the others' say.

    Args:
        taken_at, started_at: see `relay.moves`.
        told: state → Unix seconds, as its result says; what is no number is left out.
    """
    times = {name: at for name, at in told.items() if isinstance(at, (int, float)) and not isinstance(at, bool)}
    between = [Transition(name, float(at), _who(name, times)) for name, at in times.items()]
    if taken_at is not None:
        between.append(Transition(TaskState.WAITING_FOR_NODES.value, taken_at, "endpoint"))
    if started_at is not None and "execution-start" not in times:
        between.append(Transition(TaskState.RUNNING.value, started_at, "endpoint"))
    between.sort(key=lambda step: step.at or 0.0)
    if state.is_terminal:
        last = [Transition(state.value, completed_at, "service")]
    elif state is TaskState.RECEIVED or state.value in [step.state for step in between[-1:]]:
        last = []
    else:
        last = [Transition(state.value, None, "endpoint")]
    return [Transition(TaskState.RECEIVED.value, created_at, "service"), *between, *last]


def kind_of_result(head: str) -> tuple[str, str] | None:
    """How a serialized value is written: its two-character code and what that means.

    Args:
        head: at least its first three characters; all there are, if there are less.
    """
    if len(head) < 3 or head[2] != "\n" or not head[:2].isalnum() or not head[:2].isascii():
        return None
    return head[:2], KINDS.get(head[:2], "unknown here")


def _who(name: str, times: Mapping[str, object]) -> str:
    # Agents tell the end of what no worker answered for; the actor is not kept.
    is_worker = name.startswith("execution-") and "execution-start" in times
    return "worker" if is_worker else "endpoint"
