"""The double's own faults and helpers; that it behaves like a broker is in test_contract.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import farcall.amqp
from farcall.amqp import AmqpConnection, Backoff, Connected, ConsumerLost, Disconnected, PublisherLost, PublisherReady
from farcall.amqp.interface import Connection
from farcall.amqp.memory import MemoryBroker, MemoryConnection
from farcall.amqp.memory_queues import matches

WAIT_S = 30
KWARGS = {"exchange": "results", "routing_key": "e.results", "mandatory": True, "properties": {"delivery_mode": 2}}


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.declare_exchange("results", "topic")
    made.declare_queue("results", confirm_on="ack")
    made.bind("results", "results", "*.results")
    return made


@pytest.fixture
def connection(broker: MemoryBroker, events: Any) -> Iterator[MemoryConnection]:
    made = broker.connection(
        "amqp://user:p%40ss@any/", name="test", on_event=events, backoff=Backoff(first_s=0.01, ceiling_s=0.05)
    )
    made.start()
    yield made
    made.close()


def test_a_queue_that_confirms_on_ack_confirms_when_the_message_was_taken(broker, connection, recorder) -> None:
    publisher = connection.publisher("results", "results")
    publisher.publish(b"one", KWARGS, recorder)
    publisher.publish(b"two", {**KWARGS, "routing_key": "nobody", "mandatory": False}, recorder)
    assert recorder.wait_count(1) == [True], "the second, which no queue took"
    assert publisher.pending == 1
    assert broker.take("results").body == b"one"
    assert recorder.wait_count(2) == [True, True]
    publisher.publish(b"three", KWARGS, recorder)
    broker.take("results")
    publisher.publish(b"four", KWARGS, recorder)
    assert recorder.wait_count(3)
    while not broker.purge_queue("results"):
        recorder.wait_count(3)
    assert recorder.wait_count(4)[-1] is False


def test_refused_messages_are_told(broker, connection, recorder) -> None:
    broker.declare_queue("q")
    broker.nack_next(2)
    publisher = connection.publisher("")
    for _ in range(3):
        publisher.publish(b"x", {"routing_key": "q"}, recorder)
    assert recorder.wait_count(3) == [False, False, True]
    assert broker.bodies("q") == [b"x"]


def test_confirms_can_be_kept_back(broker, connection, recorder) -> None:
    broker.declare_queue("q")
    broker.hold_confirms()
    connection.publisher("").publish(b"x", {"routing_key": "q"}, recorder)
    broker.wait_held()
    assert (broker.bodies("q"), recorder.all) == ([b"x"], [])
    broker.release_confirms()
    assert recorder.wait_count(1) == [True]


def test_channels_and_consumers_can_be_ended(broker, connection, events) -> None:
    broker.declare_queue("q")
    connection.publisher("results", "results")
    connection.consume("q", lambda deliveries: None)
    broker.wait_consumers("q", 1)
    events.wait(PublisherReady)
    assert broker.close_channels("results", 541, "INTERNAL_ERROR") == 1
    assert events.wait(PublisherLost).code == 541
    broker.cancel_consumers("q")
    assert events.wait(ConsumerLost).code == 0
    broker.wait_consumers("q", 1)


def test_logins_are_recorded_and_can_be_judged(broker, connection, events) -> None:
    events.wait(Connected)
    assert broker.logins == [("user", "p@ss")]
    broker.accepts = lambda user, password: False
    assert broker.drop_connections("another name") == 0
    assert broker.drop_connections("test") == 1
    events.wait(Disconnected)
    events.wait(farcall.amqp.CredentialRefused)


def test_waiting_for_what_never_comes_ends_with_an_error(broker) -> None:
    with pytest.raises(TimeoutError, match="results"):
        broker.take("results", timeout_s=0.01)
    with pytest.raises(TimeoutError, match="consumers"):
        broker.wait_consumers("results", 1, timeout_s=0.01)


def test_several_consumers_take_turns(broker, connection) -> None:
    broker.declare_queue("q")
    counts = [0, 0]
    done = threading.Semaphore(0)

    def on_messages(index: int) -> Any:
        def count(deliveries: Any) -> None:
            counts[index] += len(deliveries)
            for _ in deliveries:
                done.release()

        return count

    for index in (0, 1):
        connection.consume("q", on_messages(index))
    broker.wait_consumers("q", 2)
    for _ in range(10):
        assert broker.publish("", "q", b"x")
    for _ in range(10):
        assert done.acquire(timeout=WAIT_S)
    assert counts == [5, 5]


@given(st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=5), st.lists(st.sampled_from(["a", "b"]), max_size=5))
def test_topic_patterns_match_as_a_regular_expression_would(pattern: list[str], words: list[str]) -> None:
    import re

    parts = {"a": "a ", "b": "b ", "*": "[ab] ", "#": "([ab] )*"}
    expected = re.fullmatch("".join(parts[each] for each in pattern), "".join(word + " " for word in words))
    # The empty string is one empty word to AMQP; a pattern of no words is not asked for.
    if pattern and words:
        assert matches(".".join(pattern), ".".join(words)) == (expected is not None)


def test_both_connections_have_the_interface_and_the_part_names_what_is_public() -> None:
    public = {name for name in dir(Connection) if not name.startswith("_")}
    for kind in (AmqpConnection, MemoryConnection):
        assert public <= set(dir(kind))
    assert all(hasattr(farcall.amqp, name) for name in farcall.amqp.__all__)
