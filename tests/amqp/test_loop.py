"""The loop of a connection thread."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from farcall.amqp.loop import Loop

WAIT_S = 30


class Running:
    """A loop on a thread, which records turns and crashes."""

    def __init__(self) -> None:
        self.turns = 0
        self.inputs = 0
        self.crashes: list[BaseException] = []
        self.loop = Loop(self._on_input, self._on_turn, self.crashes.append)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.loop.start()
        self.loop.close()

    def _on_input(self) -> None:
        self.inputs += 1

    def _on_turn(self) -> None:
        self.turns += 1

    def wait(self) -> None:
        """Until everything posted so far was called."""
        done = threading.Event()
        assert self.loop.post(done.set)
        assert done.wait(WAIT_S)

    def stop(self) -> None:
        self.loop.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    made.thread.start()
    yield made
    made.stop()


def test_calls_of_a_thread_are_made_in_order_and_none_is_forgotten(running: Running) -> None:
    seen: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(3000):
            running.loop.post(lambda t=thread, n=number: seen.append((t, n)))

    threads = [threading.Thread(target=post, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.wait()
    for thread_number in range(4):
        assert [number for thread, number in seen if thread == thread_number] == list(range(3000))


def test_calls_posted_in_a_call_are_made_in_the_next_turn(running: Running) -> None:
    turns: list[int] = []
    done = threading.Event()

    def first() -> None:
        turns.append(running.turns)
        running.loop.post(second)

    def second() -> None:
        turns.append(running.turns)
        done.set()

    running.loop.post(first)
    assert done.wait(WAIT_S)
    assert turns[1] == turns[0] + 1


def test_timers_are_due_in_their_order_and_a_cancelled_one_never(running: Running) -> None:
    seen: list[str] = []
    done = threading.Event()

    def arrange() -> None:
        running.loop.call_later(0.02, done.set)
        running.loop.call_later(0.01, lambda: seen.append("second"))
        cancelled = running.loop.call_later(0.0, lambda: seen.append("cancelled"))
        running.loop.call_later(0.0, lambda: seen.append("first"))
        running.loop.remove_timeout(cancelled)

    running.loop.post(arrange)
    assert done.wait(WAIT_S)
    assert seen == ["first", "second"]


def test_a_readable_socket_is_served_until_its_handler_is_removed(running: Running) -> None:
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    served = threading.Event()

    def on_readable(fd: int, events: int) -> None:
        assert events & Loop.READ
        got.append(os.read(fd, 100))
        running.loop.remove_handler(fd)
        running.loop.remove_handler(fd)  # twice does no harm
        served.set()

    running.loop.post(running.loop.add_handler, ours.fileno(), on_readable, Loop.READ)
    theirs.send(b"one")
    assert served.wait(WAIT_S)
    theirs.send(b"two")
    running.wait()
    assert got == [b"one"]
    ours.close()
    theirs.close()


def test_an_exception_is_told_and_the_loop_goes_on(running: Running) -> None:
    running.loop.post(lambda: 1 / 0)
    running.wait()
    assert [type(each) for each in running.crashes] == [ZeroDivisionError]
    running.wait()


def test_after_an_exception_in_a_handler_calls_of_other_threads_still_wake_the_loop(running: Running) -> None:
    ours, theirs = socket.socketpair()

    def fail(fd: int, events: int) -> None:
        running.loop.remove_handler(fd)
        raise ValueError

    running.loop.post(running.loop.add_handler, ours.fileno(), fail, Loop.READ)
    theirs.send(b"x")
    for _ in range(3):
        running.wait()
    assert [type(each) for each in running.crashes] == [ValueError]
    ours.close()
    theirs.close()


def test_an_idle_loop_sleeps(running: Running) -> None:
    running.wait()
    turns: list[int] = []
    running.wait()
    running.loop.post(lambda: turns.append(running.turns))
    running.wait()
    before = running.turns
    running.wait()
    assert running.turns - before <= 3, "a turn or two for the post, none for nothing"


def test_what_is_posted_before_the_end_is_called_and_what_comes_after_is_refused() -> None:
    running = Running()
    seen: list[str] = []
    running.loop.post(running.loop.stop)
    running.loop.post(seen.append, "with the stop")
    running.loop.post(running.loop.post, seen.append, "by it")
    running.thread.start()
    running.thread.join(WAIT_S)
    assert seen == ["with the stop", "by it"]
    assert running.loop.post(seen.append, "after") is False
    running.loop.stop()
    assert seen == ["with the stop", "by it"]


def test_every_post_around_the_end_is_either_called_or_refused() -> None:
    for _ in range(30):
        running = Running()
        running.thread.start()
        called: list[int] = []
        refused: list[int] = []

        def post(running: Any = running, called: list[int] = called, refused: list[int] = refused) -> None:
            for number in range(300):
                if not running.loop.post(called.append, number):
                    refused.append(number)

        poster = threading.Thread(target=post)
        poster.start()
        running.loop.post(running.loop.stop)
        poster.join()
        running.thread.join(WAIT_S)
        assert sorted(called + refused) == list(range(300))
