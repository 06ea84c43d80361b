"""Bundles: which calls travel together, what a lost one leaves, and that no task is lost or doubled on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.endpoint.engines.base import EngineTask
from farcall.endpoint.engines.bundling import BUDGET_S, MAX_CALLS, Durations, aftermath, plan
from farcall.endpoint.engines.flights import Flight, Flights
from farcall.worker.bundle import Answer, Record, pack_tasks, read_record, run_packed, unpack_answers
from farcall.worker.task import WorkerTask


def tasks(count: int, function: str = "f", **more: object) -> list[EngineTask]:
    return [
        EngineTask(task_id=f"{function}{number}", function_id=function, task_buffer="x", **more)  # type: ignore[arg-type]
        for number in range(count)
    ]


def known(seconds: float, *functions: str) -> Durations:
    durations = Durations()
    for function in functions or ("f",):
        for _ in range(10):
            durations.took(function, seconds)
    return durations


def sizes(bundles: Sequence[Sequence[EngineTask]]) -> list[int]:
    return [len(bundle) for bundle in bundles]


def test_calls_of_unknown_duration_travel_alone_and_at_once() -> None:
    waiting = deque(tasks(5))
    assert sizes(plan(waiting, Durations(), slots=1, in_flight=7)) == [1] * 5
    assert not waiting


def test_short_calls_travel_together_when_workers_are_busy() -> None:
    waiting = deque(tasks(100))
    assert sizes(plan(waiting, known(0.0001), slots=2, in_flight=3)) == [MAX_CALLS]
    assert len(waiting) == 36


def test_a_call_for_an_idle_worker_travels_alone() -> None:
    assert sizes(plan(deque(tasks(1)), known(0.0001), slots=4, in_flight=0)) == [1]


def test_a_burst_is_spread_over_the_idle_workers() -> None:
    assert sizes(plan(deque(tasks(40)), known(0.0001), slots=4, in_flight=0)) == [10, 10, 10, 10]


def test_a_bundle_is_bounded_by_what_it_is_expected_to_take() -> None:
    (first, *_) = plan(deque(tasks(100)), known(0.01), slots=1, in_flight=0)
    assert len(first) == BUDGET_S / 0.01


def test_a_bundle_is_bounded_by_bytes() -> None:
    big = [EngineTask(task_id=str(n), function_id="f", task_buffer="x" * 400_000) for n in range(10)]
    (first, *_) = plan(deque(big), known(0.0001), slots=1, in_flight=0)
    assert len(first) == 2


def test_calls_with_a_specification_travel_alone() -> None:
    waiting = deque(tasks(3, resource_specification={"priority": 1}))
    assert sizes(plan(waiting, known(0.0001), slots=1, in_flight=0)) == [1, 1, 1]


def test_no_bundle_is_sent_while_enough_is_queued() -> None:
    waiting = deque(tasks(3))
    assert plan(waiting, known(0.0001), slots=2, in_flight=4) == []
    assert len(waiting) == 3


def test_one_long_call_ends_bundling_of_its_function_for_a_while() -> None:
    durations = known(0.0001)
    assert durations.expected_s("f") is not None
    durations.took("f", 1.0)
    assert durations.expected_s("f") is None
    for _ in range(200):
        durations.took("f", 0.0001)
    assert durations.expected_s("f") is not None


def test_without_a_record_any_call_may_have_run() -> None:
    after = aftermath(tasks(3), None, is_worker_dead=True)
    assert (after.finished, list(after.lost), list(after.untouched)) == ({}, tasks(3), [])


def test_a_dead_workers_record_tells_finished_running_and_untouched_apart() -> None:
    a, b, c = tasks(3)
    after = aftermath([a, b, c], Record(results={0: b"r"}, started=2), is_worker_dead=True)
    assert (after.finished, list(after.lost), list(after.untouched)) == ({"f0": b"r"}, [b], [c])


def test_a_worker_that_may_live_leaves_untouched_only_what_it_gave_back() -> None:
    a, b, c, d = tasks(4)
    record = Record(results={0: b"r"}, started=2)
    after = aftermath([a, b, c, d], record, is_worker_dead=False)
    assert (after.finished, list(after.lost), list(after.untouched)) == ({"f0": b"r"}, [b, c, d], [])
    record = Record(results={0: b"r"}, started=2, given_back=3)
    after = aftermath([a, b, c, d], record, is_worker_dead=False)
    assert (list(after.lost), list(after.untouched)) == ([b, c], [d])


@given(st.data())
def test_each_task_comes_out_once_whatever_happens(data: st.DataObject) -> None:
    flights = Flights()
    out: list[str] = []
    added = 0
    number = 0
    for _ in range(data.draw(st.integers(1, 60))):
        move = data.draw(st.sampled_from(["add", "add", "send", "land", "crash", "look", "cancel"]))
        if move == "add":
            for task in tasks(data.draw(st.integers(1, 80)), data.draw(st.sampled_from("fgh"))):
                flights.add(EngineTask(task_id=str(added), function_id=task.function_id, task_buffer="x"))
                added += 1
        elif move == "send":
            for bundle in flights.next(slots=2):
                number += 1
                flights.departed(number, Flight(tasks=bundle, record="r" if len(bundle) > 1 else None, sent_s=0.0))
        elif move == "cancel":
            task_id = str(data.draw(st.integers(0, max(0, added - 1))))
            if flights.cancel(task_id):
                out.append(task_id)
        elif flights.numbers():
            which, flight = data.draw(st.sampled_from(flights.numbers()))
            count = len(flight.tasks)
            done = data.draw(st.integers(0, count))
            results = dict.fromkeys(range(done), b"r")
            if move == "land":
                duration = data.draw(st.sampled_from([0.0001, 0.0001, 1.0]))
                answers: list[Answer] = [(b"r", duration) if index in results else None for index in range(count)]
                # what it was seen to have given back or finished, it has
                answers = [(b"r", duration) if index == 0 else answer for index, answer in enumerate(answers)]
                out.extend(flights.landed(which, answers).finished)
            elif move == "crash":
                record = data.draw(st.sampled_from([None, Record(results=results, started=min(count, done + 1))]))
                outcome = flights.crashed(which, record, is_worker_dead=data.draw(st.booleans()))
                out.extend([*outcome.finished, *(task.task_id for task in outcome.lost)])
            elif flight.record is not None and not flight.settled:
                given_back = min(count, done + 1)
                record = Record(results=results, started=given_back, given_back=given_back)
                out.extend(flights.looked(which, record).finished)
        assert flights.held == added - len(out)
    assert len(out) == len(set(out))


# -- the worker's side, for real


def packed_task(number: int, source: str) -> WorkerTask:
    from farcall.serialize import ComputeSerializer

    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)  # noqa: S102  # makes a function that travels by value
    serializer = ComputeSerializer()
    parts = [serializer.serialize(part) for part in (scope["f"], (number,), {})]
    return WorkerTask(f"00000000-0000-0000-0000-{number:012}", serializer.pack_buffers(parts))


QUICK = "def f(n):\n    return n\n"
SLOW = "def f(n):\n    import time\n    time.sleep(0.3)\n    return n\n"


def test_a_bundle_answers_for_each_task_and_leaves_a_whole_record(tmp_path: Path) -> None:
    path = str(tmp_path / "record")
    bundle = [packed_task(number, QUICK) for number in range(3)]
    answers = unpack_answers(run_packed(pack_tasks(bundle, record=path, patience_s=60)))
    assert all(answer is not None for answer in answers)
    record = read_record(path)
    assert record is not None
    assert record.started == 3
    assert record.given_back is None
    assert [record.results[index] for index in range(3)] == [answer[0] for answer in answers if answer]


def test_a_bundle_that_lasts_gives_back_what_has_not_started(tmp_path: Path) -> None:
    path = str(tmp_path / "record")
    bundle = [packed_task(0, QUICK), packed_task(1, SLOW), packed_task(2, QUICK), packed_task(3, QUICK)]
    answers = unpack_answers(run_packed(pack_tasks(bundle, record=path, patience_s=0.05)))
    assert [answer is None for answer in answers] == [False, False, True, True]
    record = read_record(path)
    assert record is not None
    assert record.given_back == record.started == 2
    assert set(record.results) == {0, 1}


@pytest.mark.parametrize("cut", [1, 5, 9, 10, 30])
def test_a_record_that_ends_in_the_middle_is_read_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "record"
    run_packed(pack_tasks([packed_task(number, QUICK) for number in range(3)], record=str(path), patience_s=60))
    whole = read_record(str(path))
    path.write_bytes(path.read_bytes()[:-cut])
    partial = read_record(str(path))
    assert whole is not None
    assert partial is not None
    assert partial.started == 3
    assert partial.results == {index: whole.results[index] for index in range(2)}


def test_a_bundle_runs_without_a_record_where_files_are_not_shared(tmp_path: Path) -> None:
    path = str(tmp_path / "no" / "such" / "directory")
    answers = unpack_answers(
        run_packed(pack_tasks([packed_task(n, QUICK) for n in range(2)], record=path, patience_s=60))
    )
    assert all(answer is not None for answer in answers)
    assert read_record(path) is None
