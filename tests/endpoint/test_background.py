"""A start in the background waits for others as long as it was told to, and for the endpoint's own work without end."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from farcall.endpoint.background import PipeAnnouncer, StartTimedOut, _messages, _Patience, _signals_wake


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


@pytest.fixture
def woken_fd() -> Iterator[int]:
    with _signals_wake() as fd:
        yield fd


def test_a_ctrl_c_just_before_the_wait_ends_it(pipe: tuple[int, int], woken_fd: int) -> None:
    noticed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: noticed.set())  # as if it came too early to interrupt `select`
    try:
        signal.raise_signal(signal.SIGINT)
        assert noticed.is_set()
        PipeAnnouncer(pipe[1]).notice("after")
        assert next(_messages(pipe[0], woken_fd, _Patience(1.0))) == ("notice", "after")
        assert not select.select([woken_fd], [], [], 0)[0], "the wake-up was taken by the wait"
    finally:
        signal.signal(signal.SIGINT, before)


def test_waiting_for_the_service_ends_with_the_patience(pipe: tuple[int, int], woken_fd: int) -> None:
    patience = _Patience(0.0)
    announcer = PipeAnnouncer(pipe[1])
    announcer.notice("one")
    announcer.waiting("two")
    heard = _messages(pipe[0], woken_fd, patience)
    assert [next(heard), next(heard)] == [("notice", "one"), ("waiting", "two")]
    patience.heard("notice")
    assert patience.left_s() is None  # not for the service: as long as it takes
    patience.heard("waiting")
    with pytest.raises(StartTimedOut, match="The Farcall service did not answer; .*nothing is left running"):
        next(heard)


def test_the_endpoints_own_work_has_no_limit_and_the_broker_has_one() -> None:
    patience = _Patience(60.0)
    patience.heard("waiting")
    assert 59 < (patience.left_s() or 0) <= 60
    patience.heard("registered")
    assert patience.left_s() is None
    patience.heard("connecting")
    assert 59 < (patience.left_s() or 0) <= 60
    assert str(patience.is_over()).startswith("The service's message broker did not answer within 60 s;")


def test_a_message_in_pieces_is_one_message(pipe: tuple[int, int], woken_fd: int) -> None:
    line = json.dumps(["notice", "x" * 100_000]).encode() + b"\n"
    heard = _messages(pipe[0], woken_fd, _Patience(1.0))
    os.set_blocking(pipe[1], False)
    sent = os.write(pipe[1], line)
    assert sent < len(line)
    os.set_blocking(pipe[1], True)
    rest = threading.Thread(target=os.write, args=(pipe[1], line[sent:]))
    rest.start()
    assert next(heard) == ("notice", "x" * 100_000)
    rest.join()
