"""The broker without sockets, against a model: order, no loss, no repetition, prefetch; confirms; hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farcall.broker import AmqpError, Broker, Delivery, Properties, QueueDepth, Reply
from farcall.broker.ledgers import ConfirmBook
from farcall.broker.messages import Message
from farcall.broker.queues import Consumer, Outlet


class Turn:
    """A loop of which the test decides when a turn ends, and a clock that it sets."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.now_s = 0.0

    def defer(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def end(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    def broker(self) -> Broker:
        return Broker(defer=self.defer, clock=lambda: self.now_s)


class Gate:
    shut = False


class Collector(Consumer):
    """Keeps what it is handed, in order."""

    def __init__(self, queue: Any, outlet: Outlet, tag: str, limit: int, no_ack: bool = False) -> None:
        super().__init__(queue, outlet, tag, limit=limit, no_ack=no_ack, exclusive=False)
        self.got: list[tuple[int, bytes, bool]] = []
        self.is_cancelled = False

    def send(self, message: Message, tag: int) -> None:
        self.got.append((tag, message.body, message.redelivered))

    def cancelled(self) -> None:
        self.is_cancelled = True


class QueueModel(RuleBasedStateMachine):
    """One queue, some channels with consumers; the model is a sorted list of what should be ready."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Turn().broker()
        self.broker.declare_queue("q")
        self.queue = self.broker.topology.queues["q"]
        self.published = 0
        self.ready: list[int] = []
        self.touched: set[int] = set()  # has been delivered before
        self.gone: set[int] = set()
        self.outlets: list[Outlet] = []
        self.held: list[dict[int, int]] = []  # per outlet: tag → message
        self.consumers: list[list[Collector]] = []

    def collect(self) -> None:
        """Move what was handed over from the model's ready list; each must have been its head, or older."""
        handed = []
        for index, consumers in enumerate(self.consumers):
            for consumer in consumers:
                for tag, body, redelivered in consumer.got:
                    number = int(body)
                    assert redelivered == (number in self.touched)
                    handed.append(number)
                    if consumer.no_ack:
                        self.gone.add(number)
                    else:
                        self.held[index][tag] = number
                consumer.got.clear()
        self.touched.update(handed)
        # Of what was ready, exactly the oldest have gone.
        assert sorted(handed) == self.ready[: len(handed)]
        del self.ready[: len(handed)]

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        for _ in range(count):
            assert self.broker.publish("", "q", b"%d" % self.published)
            self.ready.append(self.published)
            self.published += 1
        self.collect()

    @precondition(lambda self: len(self.outlets) < 4)
    @rule(limit=st.sampled_from([0, 2, 5]))
    def open_channel(self, limit: int) -> None:
        self.outlets.append(Outlet(Gate()))
        if limit:
            self.outlets[-1].limit = limit
        self.held.append({})
        self.consumers.append([])

    @precondition(lambda self: self.outlets)
    @rule(data=st.data(), limit=st.integers(0, 4), no_ack=st.booleans())
    def consume(self, data: st.DataObject, limit: int, no_ack: bool) -> None:
        index = data.draw(st.integers(0, len(self.outlets) - 1))
        tag = f"c{len(self.consumers[index])}"
        if tag in self.outlets[index].consumers:
            return
        consumer = Collector(self.queue, self.outlets[index], tag, limit, no_ack and limit == 0)
        self.consumers[index].append(consumer)
        self.broker.attach(consumer)
        self.collect()

    @precondition(lambda self: any(self.consumers))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i, consumers in enumerate(self.consumers) if consumers]))
        consumer = self.consumers[index].pop()
        self.broker.detach(consumer)
        self.collect()

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), multiple=st.booleans(), what=st.sampled_from(["ack", "requeue", "drop"]))
    def settle(self, data: st.DataObject, multiple: bool, what: str) -> None:
        index = data.draw(st.sampled_from([i for i, held in enumerate(self.held) if held]))
        held = self.held[index]
        tag = data.draw(st.sampled_from(sorted(held)))
        numbers = [held.pop(t) for t in sorted(held) if t == tag or (multiple and t < tag)]
        if what == "requeue":
            self.ready = sorted(self.ready + numbers)
            self.outlets[index].reject(tag, multiple, True)
        else:
            self.gone.update(numbers)
            if what == "ack":
                assert self.outlets[index].ack(tag, multiple) == len(numbers)
            else:
                self.outlets[index].reject(tag, multiple, False)
        self.collect()

    @precondition(lambda self: self.outlets)
    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.outlets) - 1))
        message = self.queue.fetch()
        if message is None:
            assert not self.ready
            return
        assert int(message.body) == self.ready.pop(0)
        self.touched.add(int(message.body))
        self.held[index][self.outlets[index].book.hold(message)] = int(message.body)

    @precondition(lambda self: self.outlets)
    @rule(data=st.data(), shut=st.booleans())
    def turn_gate(self, data: st.DataObject, shut: bool) -> None:
        outlet = data.draw(st.sampled_from(self.outlets))
        outlet.gate.shut = shut
        if not shut:
            outlet.wake()
        self.collect()

    @precondition(lambda self: self.outlets)
    @rule(data=st.data(), closes=st.booleans())
    def give_all_back(self, data: st.DataObject, closes: bool) -> None:
        index = data.draw(st.integers(0, len(self.outlets) - 1))
        self.ready = sorted(self.ready + list(self.held[index].values()))
        self.held[index].clear()
        if closes:
            self.consumers[index].clear()
            self.broker.close_outlet(self.outlets[index])
        else:
            self.outlets[index].recover()
        self.collect()

    @rule()
    def purge(self) -> None:
        assert self.broker.purge_queue("q") == len(self.ready)
        self.gone.update(self.ready)
        self.ready.clear()

    @invariant()
    def nothing_is_lost_or_there_twice(self) -> None:
        held = [number for held in self.held for number in held.values()]
        everything = [*self.ready, *held, *self.gone]
        assert sorted(everything) == list(range(self.published))
        assert self.broker.queue_depth("q") == QueueDepth(
            ready=len(self.ready), unacked=len(held), consumers=sum(map(len, self.consumers))
        )

    @invariant()
    def no_limit_is_exceeded_and_nobody_waits_in_vain(self) -> None:
        for consumers in self.consumers:
            for consumer in consumers:
                assert consumer.held <= consumer.limit
                if self.ready:
                    assert not consumer.can_take()


QueueModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_a_queue_keeps_order_loses_nothing_and_respects_limits = QueueModel.TestCase


# --- Confirms -------------------------------------------------------------------------------------------------------


class Account:
    def __init__(self) -> None:
        self.held_bytes = 0

    def charge(self, size_bytes: int) -> None:
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes


class Publisher:
    """A channel in confirm mode, reduced to its books."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.account = Account()
        self.confirms = ConfirmBook(lambda: None)

    def publish(self, key: str, body: bytes = b"body", exchange: str = "", expiration: str | None = None) -> None:
        route = self.broker.topology.route(exchange, key)
        self.broker.submit(route, body, b"\x00\x00", expiration, self.confirms, self.account)

    def told(self) -> list[tuple[int, bool, bool]]:
        return [(confirm.number, confirm.multiple, confirm.ok) for confirm in self.confirms.take()]


@pytest.fixture
def turn() -> Turn:
    return Turn()


@pytest.fixture
def broker(turn: Turn) -> Broker:
    return turn.broker()


def consume_into(broker: Broker, queue: str, into: list[Delivery], **options: Any) -> Any:
    def take(batch: Sequence[Delivery]) -> None:
        into.extend(batch)

    return broker.consume(queue, take, **options)


def test_a_confirm_waits_for_the_acknowledgement_where_the_queue_says_so(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("results", confirm_on="ack")
    publisher = Publisher(broker)
    for _ in range(3):
        publisher.publish("results")
    got: list[Delivery] = []
    consumer = consume_into(broker, "results", got)
    turn.end()
    assert publisher.told() == []
    assert publisher.account.held_bytes == 12
    consumer.ack(got[1].tag)
    assert publisher.told() == [(2, False, True)]
    consumer.ack(got[0].tag, got[2].tag)
    assert publisher.told() == [(3, True, True)]
    assert publisher.account.held_bytes == 0


@pytest.mark.parametrize("how", ["purge", "delete", "reject", "expire", "overflow", "delete while held"])
def test_a_message_that_is_dropped_unacknowledged_is_confirmed_negatively(broker: Broker, turn: Turn, how: str) -> None:
    broker.declare_queue("results", confirm_on="ack", max_length=1)
    publisher = Publisher(broker)
    publisher.publish("results", expiration="100")
    got: list[Delivery] = []
    if how == "purge":
        broker.purge_queue("results")
    elif how == "delete":
        assert broker.delete_queue("results") == 1
    elif how == "overflow":
        publisher.publish("results")
    elif how == "expire":
        turn.now_s = 0.1
        consume_into(broker, "results", got)
    else:
        consumer = consume_into(broker, "results", got)
        turn.end()
        if how == "reject":
            consumer.nack(got[0].tag, requeue=False)
        else:
            broker.delete_queue("results")
    assert publisher.told() == [(1, False, False)]
    assert publisher.account.held_bytes == (4 if how == "overflow" else 0)


def test_a_message_given_back_is_not_confirmed_yet(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("results", confirm_on="ack")
    publisher = Publisher(broker)
    publisher.publish("results")
    got: list[Delivery] = []
    consumer = consume_into(broker, "results", got)
    turn.end()
    consumer.nack(got[0].tag)
    turn.end()
    consumer.cancel()
    assert publisher.told() == []
    again: list[Delivery] = []
    other = consume_into(broker, "results", again)
    turn.end()
    assert [delivery.redelivered for delivery in got + again] == [False, True, True]
    other.ack(again[0].tag)
    assert publisher.told() == [(1, False, True)]


def test_a_message_for_several_queues_is_confirmed_when_all_have_it(broker: Broker, turn: Turn) -> None:
    broker.declare_exchange("x", "fanout")
    for name, confirm_on in (("a", "ack"), ("b", "ack"), ("c", "enqueue")):
        broker.declare_queue(name, confirm_on=confirm_on)  # type: ignore[arg-type]
        broker.bind(name, "x", "")
    publisher = Publisher(broker)
    for _ in range(3):
        publisher.publish("", exchange="x")
    got: dict[str, list[Delivery]] = {"a": [], "b": [], "c": []}
    consumers = {name: consume_into(broker, name, into) for name, into in got.items()}
    turn.end()
    consumers["a"].ack(1, 2)
    consumers["a"].nack(3, requeue=False)
    consumers["c"].ack(1, 2, 3)
    assert publisher.told() == []
    consumers["b"].ack(1, 3)
    consumers["b"].nack(2, requeue=False)
    assert publisher.told() == [(3, False, False), (2, False, False), (1, False, True)]


def test_unroutable_messages_and_those_of_other_queues_are_confirmed_at_once(broker: Broker) -> None:
    broker.declare_queue("tasks")
    publisher = Publisher(broker)
    publisher.publish("tasks")
    publisher.publish("nowhere")
    assert publisher.told() == [(2, True, True)]
    assert publisher.account.held_bytes == 0


# --- In this process ------------------------------------------------------------------------------------------------


def test_deliveries_of_a_turn_come_as_one_batch(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("q")
    batches: list[list[bytes]] = []
    consumer = broker.consume("q", lambda batch: batches.append([d.body for d in batch]), prefetch=3)
    for number in range(5):
        broker.publish("", "q", b"%d" % number)
    assert batches == []
    turn.end()
    consumer.ack_up_to(2)
    turn.end()
    assert batches == [[b"0", b"1", b"2"], [b"3", b"4"]]


def test_a_delivery_carries_what_was_published(broker: Broker, turn: Turn) -> None:
    broker.declare_exchange("tasks", "direct")
    broker.declare_queue("q")
    broker.bind("q", "tasks", "key")
    properties = Properties(headers={"task_uuid": "1"}, delivery_mode=2, timestamp=5)
    assert broker.publish("tasks", "key", b"body", properties)
    assert not broker.publish("tasks", "other", b"body", properties)
    got: list[Delivery] = []
    consume_into(broker, "q", got)
    turn.end()
    (delivery,) = got
    assert (delivery.body, delivery.exchange, delivery.routing_key) == (b"body", "tasks", "key")
    assert (delivery.properties, delivery.redelivered) == (properties, False)


def test_a_cancelled_consumer_gives_back_also_what_it_has_not_seen(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("q")
    got: list[Delivery] = []
    consumer = consume_into(broker, "q", got)
    broker.publish("", "q", b"1")
    consumer.cancel()
    consumer.cancel()
    turn.end()
    assert got == []
    assert broker.queue_depth("q") == QueueDepth(ready=1, unacked=0, consumers=0)
    consumer.ack(1)  # too late, and harmless


def test_a_queue_that_is_filled_anew_gives_the_next_consumer_nothing_of_the_one_before(
    broker: Broker, turn: Turn
) -> None:
    settled: list[tuple[str, int]] = []
    broker.on_acked = lambda queue, count: settled.append((queue, count))
    broker.declare_queue("q", refilled=True)
    queue = broker.topology.queue("q")
    outlet = Outlet(Gate())
    old = Collector(queue, outlet, "old", 10)
    old.exclusive = True
    broker.attach(old)
    for body in (b"1", b"2", b"3"):
        broker.publish("", "q", body)
    broker.detach(old)
    outlet.ack(1, False)
    broker.close_outlet(outlet)
    turn.end()
    assert settled == []
    assert broker.queue_depth("q") == QueueDepth(ready=0, unacked=0, consumers=0)
    broker.publish("", "q", b"4")
    new = Collector(queue, Outlet(Gate()), "new", 10)
    broker.attach(new)
    assert [body for _, body, _ in new.got] == [b"4"]


def test_settling_what_is_not_held_is_an_error(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("q")
    got: list[Delivery] = []
    consumer = consume_into(broker, "q", got)
    broker.publish("", "q", b"1")
    turn.end()
    consumer.ack(1)
    with pytest.raises(KeyError):
        consumer.ack(1)


def test_a_consumer_without_acknowledgement_counts_its_messages_as_done(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("heartbeats")
    got: list[Delivery] = []
    consume_into(broker, "heartbeats", got, no_ack=True, prefetch=1)
    for _ in range(3):
        broker.publish("", "heartbeats", b"x")
    turn.end()
    assert len(got) == 3
    assert broker.stats().settled == 3


def test_the_owner_is_told_of_consumers_and_of_messages_that_left(broker: Broker, turn: Turn) -> None:
    consumers: list[tuple[str, int]] = []
    acked: list[tuple[str, int]] = []
    broker.on_consumers_changed = lambda name, count: consumers.append((name, count))
    broker.on_acked = lambda name, count: acked.append((name, count))
    broker.declare_queue("a")
    broker.declare_queue("b")
    for name in ("a", "b", "a"):
        broker.publish("", name, b"x")
    got: list[Delivery] = []
    first = consume_into(broker, "a", got)
    turn.end()
    first.ack(1)
    first.nack(2, requeue=False)
    second = consume_into(broker, "b", [], no_ack=True)
    assert acked == []
    turn.end()
    assert acked == [("a", 2), ("b", 1)]
    assert consumers == [("a", 1), ("b", 1)]
    first.cancel()
    consume_into(broker, "a", [])
    broker.delete_queue("b")
    turn.end()
    assert consumers[2:] == [("a", 0), ("a", 1), ("b", 0)]
    assert not second.is_active


def test_a_callback_that_fails_stops_no_other(broker: Broker, turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    broker.declare_queue("q")
    got: list[Delivery] = []

    def fail(_batch: Sequence[Delivery]) -> None:
        raise RuntimeError("mine")

    broker.consume("q", fail)
    consume_into(broker, "q", got)
    for _ in range(2):
        broker.publish("", "q", b"x")
    turn.end()
    assert len(got) == 1
    assert broker.queue_depth("q").unacked == 2
    assert "broker.callback_failed" in [getattr(record, "event", None) for record in caplog.records]


def test_a_deleted_queue_cancels_its_consumers(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("q")
    cancelled: list[bool] = []
    consume_into(broker, "q", [], on_cancelled=lambda: cancelled.append(True))
    broker.delete_queue("q")
    turn.end()
    assert cancelled == [True]
    assert not broker.has_queue("q")


def test_only_an_exclusive_consumer_is_refused_company(broker: Broker) -> None:
    broker.declare_queue("q")
    first = broker.consume("q", lambda _batch: None, exclusive=True)
    for exclusive in (False, True):
        with pytest.raises(AmqpError, match="exclusive use") as info:
            broker.consume("q", lambda _batch: None, exclusive=exclusive)
        assert info.value.reply is Reply.ACCESS_REFUSED
    first.cancel()
    broker.consume("q", lambda _batch: None)


def test_the_oldest_message_goes_when_a_queue_overflows(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("q", max_length=2)
    for number in range(5):
        broker.publish("", "q", b"%d" % number)
    got: list[Delivery] = []
    consume_into(broker, "q", got)
    turn.end()
    assert [delivery.body for delivery in got] == [b"3", b"4"]


def test_a_message_out_of_time_is_dropped_when_its_turn_comes(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("commands")
    for expiration in ("100", "5000", None):
        broker.publish(
            "",
            "commands",
            b"%r" % expiration if expiration is None else expiration.encode(),
            Properties(expiration=expiration),
        )
    turn.now_s = 0.1
    got: list[Delivery] = []
    consumer = consume_into(broker, "commands", got, prefetch=1)
    turn.end()
    assert [delivery.body for delivery in got] == [b"5000"]
    turn.now_s = 10  # what is in somebody's hands stays there
    consumer.ack(got[0].tag)
    turn.end()
    assert len(got) == 2


def test_declaring_again_must_agree(broker: Broker) -> None:
    broker.declare_queue("q", confirm_on="ack")
    broker.declare_queue("q", confirm_on="ack")
    with pytest.raises(AmqpError):
        broker.declare_queue("q")
    broker.declare_exchange("x", "topic")
    broker.declare_exchange("x", "topic")
    with pytest.raises(AmqpError):
        broker.declare_exchange("x", "direct")


@pytest.mark.parametrize(
    "call",
    [
        lambda broker: broker.publish("nowhere", "k", b""),
        lambda broker: broker.consume("nowhere", lambda _batch: None),
        lambda broker: broker.queue_depth("nowhere"),
        lambda broker: broker.delete_queue("nowhere"),
        lambda broker: broker.purge_queue("nowhere"),
        lambda broker: broker.bind("nowhere", "amq.topic", "k"),
    ],
)
def test_what_does_not_exist_is_not_found(broker: Broker, call: Callable[[Broker], Any]) -> None:
    with pytest.raises(AmqpError, match="NOT_FOUND.*nowhere") as info:
        call(broker)
    assert info.value.reply is Reply.NOT_FOUND


def test_a_binding_takes_effect_for_the_next_message(broker: Broker) -> None:
    broker.declare_exchange("results", "topic")
    broker.declare_queue("q")
    assert not broker.publish("results", "a.results", b"")
    broker.bind("q", "results", "*.results")
    assert broker.publish("results", "a.results", b"")
    broker.unbind("q", "results", "*.results")
    assert not broker.publish("results", "a.results", b"")
    broker.bind("q", "results", "*.results")
    broker.delete_queue("q")
    assert not broker.publish("results", "a.results", b"")


def test_stats_count_what_there_is_and_was(broker: Broker, turn: Turn) -> None:
    broker.declare_queue("q")
    got: list[Delivery] = []
    consumer = consume_into(broker, "q", got, prefetch=2)
    for _ in range(3):
        broker.publish("", "q", b"x")
    turn.end()
    consumer.ack(1)
    stats = broker.stats()
    assert (stats.queues, stats.consumers, stats.ready, stats.unacked) == (1, 1, 0, 2)
    assert (stats.published, stats.delivered, stats.settled, stats.connections) == (3, 3, 1, 0)
