from itertools import product

import pytest

from farcall.wire.states import TERMINAL_STATES, TRANSITIONS, TaskState, can_move


def test_the_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(TaskState)


@pytest.mark.parametrize(("before", "after"), list(product(sorted(TERMINAL_STATES), TaskState)))
def test_a_terminal_state_never_changes(before: TaskState, after: TaskState) -> None:
    assert not can_move(before, after)


@pytest.mark.parametrize(
    ("before", "after"), list(product(sorted(set(TaskState) - TERMINAL_STATES), sorted(TERMINAL_STATES)))
)
def test_every_open_state_can_end_in_every_terminal_one(before: TaskState, after: TaskState) -> None:
    assert can_move(before, after)


def test_clients_that_know_two_final_states_see_a_cancelled_task_as_failed() -> None:
    assert {s.rest_status for s in TERMINAL_STATES} == {"success", "failed"}
