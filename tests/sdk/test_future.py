from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from farcall.sdk.future import ComputeFuture, OpenCount
from farcall.wire.errors import TaskCancelled

WAIT_S = 30
TASK = "11111111-2222-4333-8444-555555555555"


def test_a_future_knows_its_task_once_it_is_accepted() -> None:
    future: ComputeFuture[int] = ComputeFuture()
    assert future.task_id is None
    assert future.begin_sending()
    future.accept(TASK)
    assert future.task_id == TASK
    assert not future.running()


def test_a_future_shows_its_task() -> None:
    future: ComputeFuture[int] = ComputeFuture()
    assert repr(future).endswith("state=pending task_id=none yet>")
    future.accept(TASK)
    assert repr(future).endswith(f"state=pending task_id={TASK}>")
    future.finish(5)
    assert repr(future).endswith(f"state=finished returned int task_id={TASK}>")


def test_who_waits_for_acceptance_gets_the_task_or_the_end() -> None:
    accepted: ComputeFuture[int] = ComputeFuture()
    failed: ComputeFuture[int] = ComputeFuture()
    assert accepted.wait_accepted(0) is None
    for future, act in ((accepted, lambda: accepted.accept(TASK)), (failed, lambda: failed.finish(None, OSError()))):
        timer = threading.Timer(0.01, act)
        timer.start()
        assert future.wait_accepted(WAIT_S) == future.task_id
        assert future.task_id is not None or future.done()
        timer.join(WAIT_S)


def test_being_accepted_does_not_disturb_who_waits_for_the_result() -> None:
    future: ComputeFuture[int] = ComputeFuture()
    waiting = threading.Event()
    seen = []

    def wait() -> None:
        waiting.set()
        seen.append(future.result(WAIT_S))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(WAIT_S)
    future.begin_sending()
    future.accept(TASK)
    future.finish(5)
    thread.join(WAIT_S)
    assert seen == [5]


def test_a_cancelled_call_does_not_leave() -> None:
    future: ComputeFuture[int] = ComputeFuture()
    assert future.cancel()
    assert not future.begin_sending()
    assert not future.finish(1)
    with pytest.raises(CancelledError):
        future.result(0)


def test_cancelling_while_the_request_is_under_way_waits_for_its_answer() -> None:
    future: ComputeFuture[int] = ComputeFuture()
    asked = []
    future._cancel_remotely = lambda task_id: asked.append(task_id) or True
    future.begin_sending()
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(future.cancel()))
    thread.start()
    future.accept(TASK)
    thread.join(WAIT_S)
    assert outcome == [True]
    assert asked == [TASK]
    assert future.cancelled()


def test_cancelling_while_the_request_is_refused_is_too_late() -> None:
    future: ComputeFuture[int] = ComputeFuture()
    future.begin_sending()
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(future.cancel()))
    thread.start()
    future.finish(error=ValueError("refused"))
    thread.join(WAIT_S)
    assert outcome == [False]
    assert isinstance(future.exception(0), ValueError)


def test_the_news_of_our_own_cancellation_may_overtake_its_answer() -> None:
    future: ComputeFuture[int] = ComputeFuture(TASK)

    def cancel_remotely(task_id: str) -> bool:
        future.finish(error=TaskCancelled(task_id, "by its owner"))
        return True

    future._cancel_remotely = cancel_remotely
    assert future.cancel()
    assert future.cancelled()


def test_a_result_that_overtakes_the_answer_to_a_cancellation_wins() -> None:
    future: ComputeFuture[int] = ComputeFuture(TASK)

    def cancel_remotely(task_id: str) -> bool:
        future.finish(7)
        return False

    future._cancel_remotely = cancel_remotely
    assert not future.cancel()
    assert future.result(0) == 7


def test_callbacks_are_called_once_whoever_ends_the_future() -> None:
    for end in (
        lambda f: f.finish(1),
        lambda f: f.finish(error=ValueError()),
        lambda f: f.cancel(),
        lambda f: (f.cancel(), f.cancel(), f.finish(1)),
    ):
        future: ComputeFuture[int] = ComputeFuture()
        called = []
        future.add_done_callback(called.append)
        end(future)
        assert called == [future]


def test_many_threads_that_cancel_and_finish_agree_on_one_end() -> None:
    for _ in range(50):
        open_count = OpenCount()
        future: ComputeFuture[int] = ComputeFuture()
        open_count.enter(future)
        start = threading.Barrier(4)
        outcomes = []

        def act(deed, start=start, outcomes=outcomes):
            start.wait(WAIT_S)
            outcomes.append(deed())

        deeds = [future.cancel, future.cancel, lambda f=future: f.finish(1), lambda f=future: f.finish(2)]
        threads = [threading.Thread(target=act, args=(deed,)) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert future.done()
        assert outcomes.count(True) == (2 if future.cancelled() else 1)
        assert open_count.count == 0


def test_waiting_for_none_open_ends_with_the_last() -> None:
    open_count = OpenCount()
    futures = [ComputeFuture() for _ in range(3)]
    for future in futures:
        open_count.enter(future)
    assert not open_count.wait_none(0)
    futures[0].finish(1)
    futures[1].cancel()
    futures[2].finish(error=ValueError())
    assert open_count.wait_none(WAIT_S)
