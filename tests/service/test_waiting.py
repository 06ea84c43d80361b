"""Why a task waits: each situation has its own words, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from farcall.service.tasks.listing_rules import kind_of_result, timeline
from farcall.service.tasks.waiting import Place, Situation, why_waiting
from farcall.wire.states import TaskState

NOW = 1_700_000_000.0
HERE: dict[str, Any] = {"id": "e", "name": "laptop", "is_online": True, "seen_at": NOW - 5}


def why(
    state: TaskState = TaskState.RECEIVED, *, manager: Place | None = None, ahead: int = 0, **endpoint: Any
) -> str | None:
    situation = Situation(
        state=state, endpoint=Place(**{**HERE, **endpoint}), manager=manager, ahead=ahead, kept_until=NOW + 86400
    )
    return why_waiting(situation, now=NOW)


def manager(*, is_online: bool, seen_at: float | None = NOW - 60) -> Place:
    return Place(id="m", name="cluster", is_online=is_online, seen_at=seen_at)


WAITING, RUNNING = TaskState.WAITING_FOR_NODES, TaskState.RUNNING
CASES = [
    (why(), "on its way"),
    (why(ahead=1), "queued behind 1 task of this endpoint"),
    (why(ahead=1234), "queued behind 1,234 tasks"),
    (why(ahead=10_001), "queued behind more than 10,000 tasks"),
    (why(is_online=False), "offline (last heard of 2023-11-14 22:13 UTC). Start it where it is installed"),
    (why(is_online=False), "kept for it until 2023-11-15 22:13 UTC"),
    (why(is_online=False, seen_at=None), "`farcall-endpoint start laptop`"),
    (why(is_online=False, seen_at=None), "never seen"),
    (why(is_online=False, locked_until=NOW + 5), "was stopped remotely, and may start again at 2023-11-14 22:13 UTC"),
    (why(is_online=False, locked_until=NOW - 5), "is offline"),
    (why(is_deleted=True), "was deleted"),
    (why(is_online=False, manager=manager(is_online=False)), "manager 'cluster' is offline (last heard of"),
    (why(is_online=False, manager=manager(is_online=True), ahead=3), "is being started"),
    (why(is_online=False, manager=manager(is_online=True), ahead=3), "3 tasks wait there before it"),
    (why(WAITING), "gives it to the next worker"),
    (why(WAITING, workers=0), "waits for a node"),
    (why(WAITING, workers=4, idle_workers=0), "all its 4 workers were busy"),
    (why(WAITING, workers=4, idle_workers=1), "next worker that is free"),
    (why(WAITING, is_online=False), "is offline"),
    (why(WAITING, workers=0, manager=manager(is_online=True)), "Your user endpoint has it"),
    (why(RUNNING, is_online=False), "It was running when endpoint 'laptop' was last heard of"),
]


@pytest.mark.parametrize(("told", "words"), CASES, ids=[words for _, words in CASES])
def test_what_is_waited_for_is_said(told: str | None, words: str) -> None:
    assert told is not None
    assert words in told


@pytest.mark.parametrize("state", [TaskState.RUNNING, *(state for state in TaskState if state.is_terminal)])
def test_what_runs_or_has_ended_waits_for_nothing(state: TaskState) -> None:
    assert why(state) is None


def test_clocks_that_differ_do_not_turn_a_way_round() -> None:
    steps = timeline(
        TaskState.SUCCESS,
        created_at=100.0,
        completed_at=110.0,
        taken_at=90.0,
        started_at=None,
        told={"execution-start": 200, "execution-end": 205.5, "nonsense": "x", "flag": True},
    )
    assert [(step.state, step.at, step.by) for step in steps] == [
        ("received", 100.0, "service"),
        ("waiting-for-nodes", 90.0, "endpoint"),
        ("execution-start", 200.0, "worker"),
        ("execution-end", 205.5, "worker"),
        ("success", 110.0, "service"),
    ]


def test_a_state_whose_beginning_nobody_told_is_shown_without_a_time() -> None:
    steps = timeline(WAITING, created_at=1.0, completed_at=None, taken_at=None, started_at=None, told={})
    assert [(step.state, step.at, step.by) for step in steps] == [
        ("received", 1.0, "service"),
        ("waiting-for-nodes", None, "endpoint"),
    ]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("11\n", ("11", "JSON")),
        ("00\ngA", ("00", "a value pickled by dill")),
        ("zz\n", ("zz", "unknown here")),
        ("1", None),
        ("", None),
        ("<b>", None),
        ("é1\n", None),
    ],
)
def test_a_result_is_known_by_its_first_characters(head: str, kind: tuple[str, str] | None) -> None:
    assert kind_of_result(head) == kind
