from __future__ import annotations

import pytest

from farcall.service.managers.starts import (
    DEATH_LIMIT,
    FIRST_PATIENCE_S,
    KEEP_ALIVE_S,
    TRANSIENT_PAUSE_S,
    FailTasks,
    Look,
    SendStart,
    Starts,
)

M, U, V = "manager", "user-1", "user-2"


@pytest.fixture
def starts() -> Starts:
    made = Starts()
    assert made.manager_attached(M) == [Look(M)]
    return made


def test_a_submission_asks_for_the_user_endpoint(starts: Starts) -> None:
    assert starts.submitted(M, U, now=100) == [SendStart(M, U)]


def test_while_a_start_is_under_way_nothing_more_is_asked(starts: Starts) -> None:
    starts.submitted(M, U, now=100)
    assert starts.submitted(M, U, now=100 + FIRST_PATIENCE_S - 1) == []


def test_a_start_that_came_to_nothing_is_asked_for_again_more_and_more_rarely(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    pauses = []
    now = 0.0
    for _ in range(4):
        due = starts.due_at
        assert due is not None
        assert starts.tick(now=due) == [Look(M, U)]
        assert starts.found(M, [U], now=due) == [SendStart(M, U)]
        pauses.append(due - now)
        now = due
    assert pauses == [FIRST_PATIENCE_S, 2 * FIRST_PATIENCE_S, 4 * FIRST_PATIENCE_S, 8 * FIRST_PATIENCE_S]


def test_when_no_task_is_left_nothing_is_asked_again(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    assert starts.tick(now=FIRST_PATIENCE_S) == [Look(M, U)]
    assert starts.found(M, [], now=FIRST_PATIENCE_S) == []
    assert starts.due_at is None


def test_one_that_works_is_asked_for_now_and_then_so_that_it_does_not_idle_out_unnoticed(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    starts.attached(M, U)
    assert starts.submitted(M, U, now=KEEP_ALIVE_S - 0.1) == []
    assert starts.submitted(M, U, now=KEEP_ALIVE_S) == [SendStart(M, U)]
    assert starts.due_at is None


def test_while_the_manager_is_away_nothing_is_sent_and_then_everything_that_is_waited_for(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    starts.manager_detached(M)
    assert starts.due_at is None
    assert starts.submitted(M, V, now=1) == []
    assert starts.manager_attached(M) == [Look(M)]
    assert starts.found(M, [U, V], now=2) == [SendStart(M, U), SendStart(M, V)]


def test_one_that_went_away_with_tasks_is_started_again(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    starts.attached(M, U)
    assert starts.detached(M, U) == [Look(M, U)]
    assert starts.found(M, [U], now=FIRST_PATIENCE_S) == [SendStart(M, U)]


def test_one_that_dies_again_and_again_before_it_finishes_anything_is_given_up(starts: Starts) -> None:
    now = 0.0
    for _ in range(DEATH_LIMIT):
        now += 1000
        assert starts.found(M, [U], now=now) == [SendStart(M, U)]
        starts.attached(M, U)
        starts.detached(M, U)
    (command,) = starts.found(M, [U], now=now + 1000)
    assert isinstance(command, FailTasks)
    assert U in command.text
    assert starts.submitted(M, U, now=now + 2000) == [SendStart(M, U)]


def test_one_that_finishes_tasks_between_its_deaths_goes_on(starts: Starts) -> None:
    for step in range(3 * DEATH_LIMIT):
        assert starts.found(M, [U], now=1000 * step) == [SendStart(M, U)]
        starts.attached(M, U)
        starts.progressed(U)
        starts.detached(M, U)


def test_a_failed_start_fails_what_waits_for_it(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    assert starts.reported_error(M, U, "no such account", now=1) == [FailTasks(U, "no such account")]
    assert starts.due_at is None
    assert starts.submitted(M, U, now=2) == [SendStart(M, U)]


def test_an_older_process_that_has_not_gone_yet_is_waited_for(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    assert starts.reported_error(M, U, "Another instance of this endpoint is running (pid 7)", now=1) == []
    assert starts.tick(now=1 + TRANSIENT_PAUSE_S) == [Look(M, U)]
    assert starts.found(M, [U], now=1 + TRANSIENT_PAUSE_S) == [SendStart(M, U)]


def test_a_failure_of_a_second_process_does_not_fail_the_tasks_of_the_first(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    starts.attached(M, U)
    assert starts.reported_error(M, U, "cannot bind", now=1) == []


def test_what_an_administrator_has_stopped_fails_what_waits_although_it_still_seems_attached(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    starts.attached(M, U)
    assert starts.reported_error(M, U, "stopped by ops", is_final=True, now=1) == [FailTasks(U, "stopped by ops")]
    assert starts.detached(M, U) == [Look(M, U)]
    assert starts.found(M, [], now=2) == []


@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_process_that_died_without_a_word_is_one_death_and_started_again(starts: Starts, is_told_first: bool) -> None:
    starts.submitted(M, U, now=0)
    for now in range(1, DEATH_LIMIT):
        starts.attached(M, U)
        if is_told_first:
            assert starts.reported_error(M, U, "signal 9", is_final=False, now=now) == []
        assert starts.detached(M, U) == [Look(M, U)]
        assert starts.found(M, [U], now=now) == [SendStart(M, U)]
        if not is_told_first:
            assert starts.reported_error(M, U, "signal 9", is_final=False, now=now) == []
    starts.attached(M, U)
    starts.detached(M, U)
    (given_up,) = starts.found(M, [U], now=99)
    assert isinstance(given_up, FailTasks)
    assert "signal 9" in given_up.text


def test_one_that_dies_before_it_attaches_is_started_again_at_once_and_not_for_ever(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    for _ in range(DEATH_LIMIT - 1):
        assert starts.reported_error(M, U, "signal 11", is_final=False, now=1) == [Look(M, U)]
        assert starts.found(M, [U], now=1) == [SendStart(M, U)]
    assert starts.reported_error(M, U, "signal 11", is_final=False, now=1) == [Look(M, U)]
    (given_up,) = starts.found(M, [U], now=1)
    assert isinstance(given_up, FailTasks)


def test_a_deleted_manager_takes_its_user_endpoints_along(starts: Starts) -> None:
    starts.submitted(M, U, now=0)
    starts.forget(M)
    assert starts.due_at is None
    assert starts.tick(now=1e9) == []
