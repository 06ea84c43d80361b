"""The agent's decisions, by values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import pytest

from farcall.endpoint.agent.core import FLUSH_S, AgentCore
from farcall.endpoint.agent.events import (
    Actions,
    AgentPolicy,
    CancelAnswered,
    Connected,
    Delivered,
    Disconnected,
    EngineDied,
    EngineFailed,
    EngineFinished,
    EngineStarted,
    EngineStopped,
    Event,
    Recovered,
    ResultConfirmed,
    ResultRefused,
    StopReason,
    StopRequested,
    StoredCopyLost,
)
from farcall.endpoint.agent.intake import CancelWish, Incoming, Unreadable
from farcall.endpoint.engines.base import EngineFailure, EngineTask
from farcall.endpoint.journal import JournalEntry, Phase
from farcall.wire.messages import Result, unpack_message

ENDPOINT = "eeeeeeee-0000-4000-8000-000000000001"
FUNCTION = "ffffffff-0000-4000-8000-000000000001"


def task_id(number: int) -> str:
    return str(UUID(int=number))


def incoming(number: int, *, size: int = 10, function_id: str = FUNCTION, token: Any = None) -> Incoming:
    task = EngineTask(task_id=task_id(number), function_id=function_id, task_buffer="")
    return Incoming(task=task, headers="{}", body=b"b" * size, token=token if token is not None else f"t{number}")


def worker_lost(text: str = "killed", *, may_have_run: bool = True) -> EngineFailure:
    return EngineFailure(code="WORKER_LOST", text=text, is_system_failure=True, may_have_run=may_have_run)


class Driver:
    """A core with a clock, so that a test reads as a sequence of turns."""

    def __init__(self, *, entries: Sequence[JournalEntry] = (), is_ready: bool = True, **policy: Any) -> None:
        self.core = AgentCore(AgentPolicy(endpoint_id=ENDPOINT, endpoint_name="lab", **policy))
        self.now_s = 1000.0
        events: list[Event] = [Recovered(entries=entries)]
        if is_ready:
            events += [EngineStarted(), Connected()]
        self.first = self.turn(*events, capacity=0)

    def turn(self, *events: Event, capacity: int = 100, after_s: float = 0.0) -> Actions:
        self.now_s += after_s
        return self.core.turn(events, now_s=self.now_s, unix_s=1_700_000_000 + self.now_s, capacity=capacity)

    def deliver(self, *items: Incoming | CancelWish | Unreadable, capacity: int = 100) -> Actions:
        return self.turn(Delivered(items=items), capacity=capacity)

    def finish(self, number: int, result: bytes = b"result") -> Actions:
        return self.turn(EngineFinished(task_id=task_id(number), packed_result=result))

    def confirm(self, number: int) -> Actions:
        return self.turn(ResultConfirmed(task_id=task_id(number)))


def handed(actions: Actions) -> list[str]:
    return [item.task_id for item in actions.hand_over]


def published(actions: Actions) -> list[tuple[str, bytes | None]]:
    return [(item.task_id, item.body) for item in actions.publish]


def failure_of(actions: Actions) -> Result:
    (item,) = actions.publish
    assert item.body is not None
    message = unpack_message(item.body)
    assert isinstance(message, Result)
    assert message.is_error
    return message


def entry(number: int, phase: Phase, **members: Any) -> JournalEntry:
    return JournalEntry(seq=number, task_id=task_id(number), function_id=FUNCTION, phase=phase, **members)


def ids(numbers: Iterable[int]) -> list[str]:
    return [task_id(number) for number in numbers]


# The way of a task ------------------------------------------------------------------------------------------------


def test_a_new_task_is_journaled_as_started_acknowledged_and_handed_over_in_one_turn() -> None:
    actions = Driver().deliver(incoming(1))
    (new,) = actions.journal.inserts
    assert (new.entry.phase, new.entry.attempts, new.body) == (Phase.STARTED, 1, b"b" * 10)
    assert actions.acks == ["t1"]
    assert handed(actions) == [task_id(1)]
    assert actions.hand_over[0].task is not None


def test_tasks_wait_in_order_until_the_engine_wants_them() -> None:
    driver = Driver()
    actions = driver.deliver(*(incoming(n) for n in range(1, 6)), capacity=2)
    assert handed(actions) == ids([1, 2])
    assert actions.backlog == 3
    assert handed(driver.turn(capacity=1)) == ids([3])
    assert handed(driver.turn(capacity=9)) == ids([4, 5])


def test_a_result_is_journaled_and_published_in_the_same_turn_and_confirmed_later() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    actions = driver.finish(1, b"value")
    assert actions.journal.results == [(1, b"value")]
    assert published(actions) == [(task_id(1), b"value")]
    confirmed = driver.confirm(1)
    assert not confirmed.journal, "a confirmation waits for the next transaction"
    assert confirmed.wake_at_s == driver.now_s + 1.0
    late = driver.turn(after_s=1.0)
    assert [update.phase for update in late.journal.updates] == [Phase.CONFIRMED]


def test_a_confirmation_travels_with_the_next_transaction() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    driver.finish(1)
    driver.confirm(1)
    actions = driver.deliver(incoming(2))
    assert [update.phase for update in actions.journal.updates] == [Phase.CONFIRMED]


def test_nothing_is_handed_over_before_the_engine_has_started() -> None:
    driver = Driver(is_ready=False)
    assert handed(driver.deliver(incoming(1))) == []
    assert handed(driver.turn(EngineStarted())) == ids([1])


def test_the_first_outcome_of_a_task_counts() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    driver.finish(1, b"first")
    assert published(driver.finish(1, b"second")) == []
    assert published(driver.turn(EngineFailed(task_id=task_id(1), failure=worker_lost()))) == []


# Copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1], ids=["queued", "started"])
def test_a_copy_of_a_task_that_is_here_is_only_acknowledged(capacity: int) -> None:
    driver = Driver()
    driver.deliver(incoming(1), capacity=capacity)
    actions = driver.deliver(incoming(1, token="copy"), capacity=capacity)
    assert actions.acks == ["copy"]
    assert not actions.journal
    assert handed(actions) == []


def test_a_copy_of_a_finished_task_is_acknowledged_while_its_result_is_under_way() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    driver.finish(1)
    actions = driver.deliver(incoming(1, token="copy"))
    assert actions.acks == ["copy"]
    assert published(actions) == [], "it is being published already"


def test_a_copy_of_a_confirmed_task_gets_its_stored_result_published_again() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    driver.finish(1)
    driver.confirm(1)
    actions = driver.deliver(incoming(1, token="copy"))
    assert actions.acks == ["copy"]
    assert published(actions) == [(task_id(1), None)], "its bytes are in the journal"
    assert handed(actions) == []
    driver.confirm(1)
    assert published(driver.deliver(incoming(1))) == [(task_id(1), None)]


@pytest.mark.parametrize(
    "limits",
    [{"retention_s": 60.0}, {"retention_tasks": 0}, {"retention_bytes": 3}],
    ids=["age", "number", "bytes"],
)
def test_confirmed_tasks_are_forgotten_beyond_each_bound(limits: dict[str, Any]) -> None:
    driver = Driver(**limits)
    driver.deliver(incoming(1))
    driver.finish(1)
    driver.confirm(1)
    actions = driver.turn(after_s=61.0)
    actions = actions if actions.journal.deletes else driver.turn(after_s=2.0)
    assert actions.journal.deletes == [1]
    assert handed(driver.deliver(incoming(1))) == ids([1]), "unknown again"


def test_a_task_that_was_confirmed_twice_is_forgotten_once() -> None:
    driver = Driver(retention_s=60.0)
    driver.deliver(incoming(1))
    driver.finish(1)
    driver.confirm(1)
    driver.deliver(incoming(1))
    driver.confirm(1)
    assert driver.turn(after_s=61.0).journal.deletes == [1]
    assert driver.turn(after_s=61.0).journal.deletes == []


# Back-pressure ----------------------------------------------------------------------------------------------------


def test_deliveries_beyond_the_backlog_stay_unacknowledged_and_are_taken_in_order_when_there_is_room() -> None:
    driver = Driver(backlog_tasks=2)
    actions = driver.deliver(*(incoming(n) for n in range(1, 5)), capacity=0)
    assert actions.acks == ["t1", "t2"]
    assert actions.backlog == 4
    actions = driver.turn(capacity=1)
    assert (handed(actions), actions.acks) == (ids([1]), [])
    actions = driver.deliver(incoming(5), capacity=0)
    assert actions.acks == ["t3"], "what came earlier comes first"


def test_the_backlog_is_bounded_in_bytes_too() -> None:
    driver = Driver(backlog_bytes=15)
    assert driver.deliver(*(incoming(n) for n in range(1, 4)), capacity=0).acks == ["t1", "t2"]


def test_bodies_beyond_the_memory_bound_are_read_from_the_journal() -> None:
    driver = Driver(memory_bytes=20)
    driver.deliver(*(incoming(n) for n in range(1, 4)), capacity=0)
    in_memory = [item.task is not None for item in driver.turn(capacity=3).hand_over]
    assert in_memory == [True, True, False]
    driver.deliver(incoming(4), capacity=0)
    assert driver.turn(capacity=1).hand_over[0].task is not None, "the bound is free again"


def test_what_is_held_is_dropped_with_the_connection_because_it_comes_again() -> None:
    driver = Driver(backlog_tasks=1)
    driver.deliver(incoming(1), incoming(2, token="old"), capacity=0)
    driver.turn(Disconnected(), capacity=0)
    driver.turn(Connected(), capacity=0)
    driver.turn(capacity=1)
    actions = driver.deliver(incoming(2, token="new"))
    assert actions.acks == ["new"]
    assert handed(actions) == ids([2])


def test_copies_of_a_held_task_are_acknowledged_when_it_is_journaled() -> None:
    driver = Driver(backlog_tasks=1)
    driver.deliver(incoming(1), incoming(2, token="a"), capacity=0)
    assert driver.deliver(incoming(2, token="b"), capacity=0).acks == []
    driver.turn(capacity=1)
    assert driver.turn(capacity=0).acks == ["a", "b"]


# Failures and retries ---------------------------------------------------------------------------------------------


def test_a_lost_worker_fails_the_task_when_no_retries_are_allowed() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    result = failure_of(driver.turn(EngineFailed(task_id=task_id(1), failure=worker_lost("killed by signal 9"))))
    assert result.error_details is not None
    assert result.error_details.code == "WORKER_LOST"
    assert "killed by signal 9" in result.data
    assert "max_retries_on_system_failure" in result.data


def test_a_lost_worker_gives_the_task_back_until_retries_run_out_and_the_text_lists_each_attempt() -> None:
    driver = Driver(max_retries=2)
    driver.deliver(incoming(1), incoming(2), capacity=1)
    for number in (1, 2):
        actions = driver.turn(EngineFailed(task_id=task_id(1), failure=worker_lost(f"loss {number}")), capacity=1)
        assert handed(actions) == ids([1]), "before those that were not started yet"
        assert actions.hand_over[0].task is None
        assert actions.journal.updates[0].attempts == number + 1
    result = failure_of(driver.turn(EngineFailed(task_id=task_id(1), failure=worker_lost("loss 3")), capacity=0))
    for number in (1, 2, 3):
        assert f"Attempt {number} of 3" in result.data
        assert f"loss {number}" in result.data


def test_a_refusal_by_the_engine_is_final() -> None:
    driver = Driver(max_retries=5)
    driver.deliver(incoming(1))
    failure = EngineFailure(code="RemoteExecutionError", text="Failed to start task: no", is_system_failure=False)
    assert failure_of(driver.turn(EngineFailed(task_id=task_id(1), failure=failure))).data == "Failed to start task: no"


def test_a_task_that_came_back_unrun_is_not_charged_but_not_forever() -> None:
    driver = Driver(free_returns=3)
    driver.deliver(incoming(1))
    back = EngineFailed(task_id=task_id(1), failure=worker_lost("node gone", may_have_run=False))
    for _ in range(3):
        actions = driver.turn(back)
        assert handed(actions) == ids([1])
        assert actions.journal.updates[0].attempts == 1
    assert "node gone" in failure_of(driver.turn(back)).data


def test_a_function_that_is_not_allowed_is_answered_and_not_run() -> None:
    driver = Driver(allowed_functions=frozenset({"other"}))
    actions = driver.deliver(incoming(1))
    result = failure_of(actions)
    assert result.error_details is not None
    assert result.error_details.code == "FUNCTION_NOT_ALLOWED"
    assert result.details is not None
    assert (result.details["fid"], result.details["eid"]) == (FUNCTION, ENDPOINT)
    assert actions.acks == ["t1"]
    assert handed(actions) == []
    assert actions.journal.inserts[0].entry.phase is Phase.FINISHED


def test_an_unreadable_message_is_answered_if_it_names_its_task_and_acknowledged_in_any_case() -> None:
    driver = Driver()
    named = Unreadable(task_id=task_id(1), function_id="", reason="no header", token="a")
    nameless = Unreadable(task_id=None, function_id="", reason="noise", token="b")
    actions = driver.deliver(named, nameless)
    assert actions.acks == ["a", "b"]
    result = failure_of(actions)
    assert result.error_details is not None
    assert result.error_details.code == "CouldNotExecuteUserTaskError"
    assert "no header" in result.data


# Restart ----------------------------------------------------------------------------------------------------------


def test_after_a_restart_queued_tasks_run_and_finished_ones_are_published_again() -> None:
    entries = [
        entry(1, Phase.QUEUED, body_bytes=10),
        entry(2, Phase.FINISHED, result_bytes=5),
        entry(3, Phase.CONFIRMED, result_bytes=5, confirmed_s=1_700_000_999.0),
    ]
    driver = Driver(entries=entries)
    assert published(driver.first) == [(task_id(2), None)]
    actions = driver.deliver(incoming(9))
    assert handed(actions) == ids([1, 9])
    assert actions.journal.inserts[0].entry.seq == 4


def test_after_a_restart_a_started_task_fails_saying_so_when_no_retries_are_allowed() -> None:
    driver = Driver(entries=[entry(1, Phase.STARTED, attempts=1, started_s=1_700_000_000.0, body_bytes=10)])
    result = failure_of(driver.first)
    assert result.error_details is not None
    assert result.error_details.code == "ENDPOINT_LOST"
    for part in ("'lab'", "2023-11-14 22:13:20 UTC", "max_retries_on_system_failure"):
        assert part in result.data


def test_after_a_restart_a_started_task_runs_again_when_retries_are_left() -> None:
    driver = Driver(max_retries=1, entries=[entry(1, Phase.STARTED, attempts=1, body_bytes=10)])
    actions = driver.turn()
    assert handed(actions) == ids([1])
    assert actions.journal.updates[0].attempts == 2
    driver = Driver(max_retries=1, entries=[actions.journal.updates[0]])
    result = failure_of(driver.first)
    assert "Attempt 1 of 2" in result.data
    assert "Attempt 2 of 2" in result.data


def test_after_a_restart_the_permitted_functions_are_checked_again() -> None:
    driver = Driver(entries=[entry(1, Phase.QUEUED, body_bytes=10)], allowed_functions=frozenset())
    assert failure_of(driver.first).error_details.code == "FUNCTION_NOT_ALLOWED"  # type: ignore[union-attr]


def test_a_task_whose_stored_copy_is_lost_fails_saying_so() -> None:
    driver = Driver(entries=[entry(1, Phase.QUEUED, body_bytes=10), entry(2, Phase.FINISHED, result_bytes=9)])
    driver.turn()
    for number in (1, 2):
        result = failure_of(driver.turn(StoredCopyLost(task_id=task_id(number))))
        assert result.task_id == task_id(number)
        assert "stored copy" in result.data


# Cancelling -------------------------------------------------------------------------------------------------------


def test_a_waiting_task_that_is_cancelled_never_runs() -> None:
    driver = Driver()
    driver.deliver(incoming(1), incoming(2), capacity=0)
    actions = driver.deliver(CancelWish(task_id=task_id(1), token="c"), capacity=0)
    assert actions.acks == ["c"]
    assert actions.journal.updates[0].phase is Phase.CONFIRMED
    assert handed(driver.turn()) == ids([2])
    assert published(driver.deliver(incoming(1))) == [], "a late copy is only acknowledged"


def test_a_started_task_that_is_cancelled_is_taken_back_from_the_engine_if_it_can() -> None:
    driver = Driver()
    driver.deliver(incoming(1), incoming(2))
    assert driver.deliver(CancelWish(task_id=task_id(1))).cancels == ids([1])
    actions = driver.turn(CancelAnswered(task_id=task_id(1), was_given_back=True))
    assert handed(actions) == []
    assert actions.journal.updates[0].phase is Phase.CONFIRMED
    assert driver.deliver(CancelWish(task_id=task_id(2))).cancels == ids([2])
    driver.turn(CancelAnswered(task_id=task_id(2), was_given_back=False))
    assert published(driver.finish(2)) == [(task_id(2), b"result")], "too late: the service drops its result"


def test_a_cancelled_task_whose_worker_is_lost_is_not_run_again() -> None:
    driver = Driver(max_retries=5)
    driver.deliver(incoming(1))
    driver.deliver(CancelWish(task_id=task_id(1)))
    actions = driver.turn(EngineFailed(task_id=task_id(1), failure=worker_lost()))
    assert (handed(actions), published(actions)) == ([], [])
    assert driver.core.load.is_idle


def test_a_held_task_that_is_cancelled_is_acknowledged_with_the_wish() -> None:
    driver = Driver(backlog_tasks=1)
    driver.deliver(incoming(1), incoming(2), capacity=0)
    assert driver.deliver(CancelWish(task_id=task_id(2), token="c"), capacity=0).acks == ["c", "t2"]
    assert driver.turn(capacity=5).backlog == 0


def test_a_wish_to_cancel_an_unknown_task_is_acknowledged() -> None:
    assert Driver().deliver(CancelWish(task_id=task_id(1), token="c")).acks == ["c"]


# Publishing -------------------------------------------------------------------------------------------------------


def test_results_beyond_the_window_wait_in_the_journal() -> None:
    driver = Driver(publish_tasks=1)
    driver.deliver(incoming(1), incoming(2))
    events = [EngineFinished(task_id=task_id(n), packed_result=b"r") for n in (1, 2)]
    assert published(driver.turn(*events)) == [(task_id(1), b"r")]
    assert published(driver.confirm(1)) == [(task_id(2), None)]


def test_a_result_larger_than_the_window_is_published_alone() -> None:
    driver = Driver(publish_bytes=3)
    driver.deliver(incoming(1), incoming(2))
    events = [EngineFinished(task_id=task_id(n), packed_result=b"large") for n in (1, 2)]
    assert len(driver.turn(*events).publish) == 1
    assert len(driver.confirm(1).publish) == 1


def test_a_refused_result_is_published_again_after_a_growing_delay() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    driver.finish(1)
    for delay_s in (1.0, 2.0, 4.0):
        driver.turn(ResultRefused(task_id=task_id(1)))
        assert published(driver.turn(after_s=delay_s - 0.1)) == []
        assert published(driver.turn(after_s=0.1)) == [(task_id(1), None)]
    driver.confirm(1)
    assert driver.core.load.is_idle


# Reports ----------------------------------------------------------------------------------------------------------


def test_a_report_goes_out_on_connecting_and_then_once_a_period() -> None:
    driver = Driver(heartbeat_period_s=30.0)
    assert driver.first.report is not None
    assert driver.first.wake_at_s == driver.now_s + 30.0
    assert driver.turn(after_s=29.0).report is None
    assert driver.turn(after_s=1.0).report is not None
    driver.turn(Disconnected())
    assert driver.turn(after_s=60.0).report is None
    assert driver.turn(Connected()).report is not None


def test_news_is_reported_soon_but_not_closer_together_than_the_gap_and_only_of_tasks_that_have_not_ended() -> None:
    driver = Driver()
    actions = driver.deliver(incoming(1), incoming(2), incoming(3), capacity=2)
    assert actions.report is None
    assert actions.wake_at_s == driver.now_s + 1.0
    driver.finish(1)
    report = driver.turn(after_s=1.0, capacity=0).report
    assert report is not None
    assert set(report.transitions) == set(ids([2, 3]))
    assert [t.state for t in report.transitions[task_id(2)]] == ["waiting-for-nodes", "running"]
    assert (report.queued, report.started, report.total) == (0, 2, 3)
    assert driver.turn(after_s=1.0, capacity=0).report is None, "no news"


def test_a_report_tells_at_most_as_many_transitions_as_allowed_and_the_next_one_tells_the_rest() -> None:
    driver = Driver(report_transitions=2)
    driver.deliver(*(incoming(n) for n in range(1, 4)), capacity=0)
    first, second = driver.turn(after_s=1.0, capacity=0).report, driver.turn(after_s=1.0, capacity=0).report
    assert first is not None
    assert second is not None
    assert [list(first.transitions), list(second.transitions)] == [ids([1, 2]), ids([3])]


def test_an_idle_endpoint_ends_after_its_soft_limit_and_a_busy_one_does_not() -> None:
    driver = Driver(idle_heartbeats_soft=2)
    driver.deliver(incoming(1))
    for _ in range(4):
        assert driver.turn(after_s=30.0).stop_engine is False
    driver.finish(1)
    driver.confirm(1)
    assert [driver.turn(after_s=30.0).stop_engine for _ in range(3)] == [False, False, True]


def test_an_idle_endpoint_that_has_had_no_task_yet_waits_for_its_first() -> None:
    driver = Driver(idle_heartbeats_soft=1, idle_heartbeats_hard=4)
    assert [driver.turn(after_s=30.0).stop_engine for _ in range(4)] == [False, False, False, True]


def test_when_an_idle_endpoint_will_end_is_known() -> None:
    driver = Driver(idle_heartbeats_soft=2, idle_heartbeats_hard=9)
    driver.deliver(incoming(1))
    driver.turn(after_s=30.0)
    driver.finish(1)
    driver.confirm(1)
    end_s = driver.core.idle_until_s
    assert end_s is not None
    assert not driver.turn(after_s=30.0).stop_engine
    assert not driver.turn(after_s=30.0).stop_engine
    assert driver.core.idle_until_s == end_s
    assert driver.turn(after_s=30.0).stop_engine
    assert driver.now_s == end_s


def test_an_endpoint_without_movement_ends_after_its_hard_limit_although_tasks_are_outstanding() -> None:
    driver = Driver(idle_heartbeats_hard=2)
    driver.deliver(incoming(1))
    assert [driver.turn(after_s=30.0).stop_engine for _ in range(3)] == [False, False, True]
    assert driver.turn(EngineStopped()).end is StopReason.STUCK


# The end ----------------------------------------------------------------------------------------------------------


def test_a_stopping_agent_takes_back_what_was_not_started_and_waits_for_results_to_be_confirmed() -> None:
    driver = Driver()
    driver.deliver(incoming(1), incoming(2), incoming(3), capacity=2)
    actions = driver.turn(StopRequested())
    assert (actions.stop_intake, actions.stop_engine, actions.cancels) == (True, True, ids([1, 2]))
    assert handed(actions) == []
    actions = driver.turn(CancelAnswered(task_id=task_id(2), was_given_back=True))
    assert [(u.phase, u.attempts) for u in actions.journal.updates] == [(Phase.QUEUED, 0)]
    assert driver.deliver(incoming(4)).acks == [], "new tasks stay with the service"
    assert published(driver.finish(1)) != []
    assert driver.turn(EngineStopped()).end is None
    actions = driver.confirm(1)
    assert actions.end is StopReason.REQUESTED
    assert actions.report is not None
    assert actions.report.is_active is False
    assert [update.phase for update in actions.journal.updates] == [Phase.CONFIRMED]


def test_a_stopping_agent_waits_neither_for_a_service_that_is_away_nor_for_ever() -> None:
    for event, after_s in ((Disconnected(), 0.0), (EngineStarted(), FLUSH_S)):
        driver = Driver()
        driver.deliver(incoming(1))
        driver.finish(1)
        driver.turn(StopRequested())
        assert driver.turn(EngineStopped()).end is None
        assert driver.turn(event, after_s=after_s).end is StopReason.REQUESTED


def test_a_second_wish_to_stop_ends_at_once() -> None:
    driver = Driver()
    driver.deliver(incoming(1))
    assert driver.turn(StopRequested()).end is None
    assert driver.turn(StopRequested(at_once=True)).end is StopReason.REQUESTED


def test_an_engine_that_died_is_replaced_after_a_delay_and_tasks_are_treated_by_policy() -> None:
    driver = Driver(max_retries=1)
    driver.deliver(incoming(1), incoming(2), capacity=1)
    actions = driver.turn(EngineDied(reason="no blocks"))
    assert actions.restart_engine_in_s == 1.0
    assert handed(actions) == []
    assert handed(driver.turn(EngineStarted())) == ids([1, 2])


def test_an_engine_that_keeps_dying_fails_what_waits_and_ends_the_agent() -> None:
    driver = Driver()
    driver.deliver(incoming(1), capacity=0)
    delays = [driver.turn(EngineDied(reason="partition 'x' unknown")).restart_engine_in_s for _ in range(2)]
    assert delays == [1.0, 5.0]
    actions = driver.turn(EngineDied(reason="partition 'x' unknown"))
    assert "partition 'x' unknown" in failure_of(actions).data
    assert actions.stop_engine
    driver.turn(EngineStopped())
    assert driver.confirm(1).end is StopReason.ENGINE


def test_an_engine_that_worked_in_between_is_given_new_chances() -> None:
    driver = Driver()
    for number in range(1, 6):
        driver.turn(EngineDied(reason="x"))
        driver.turn(EngineStarted())
        driver.deliver(incoming(number))
        driver.finish(number)
    assert not driver.core.is_stopping
