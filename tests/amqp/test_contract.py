"""What every broker connection keeps to: the double in memory, and pika against the embedded broker and RabbitMQ."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from farcall.amqp import (
    Backoff,
    BindQueue,
    Connected,
    ConnectFailed,
    Connection,
    ConnectionEnded,
    ConsumerLost,
    ConsumerReady,
    CredentialRefused,
    DeclareExchange,
    DeclareQueue,
    DeleteQueue,
    Delivery,
    Disconnected,
    Done,
    Failed,
    Operation,
    Operator,
    OperatorReady,
    Outcome,
    PublisherLost,
    PublisherReady,
    PurgeQueue,
    UsedAfterFork,
)
from farcall.wire import errors as wire_errors

WAIT_S = 30
NEVER = Backoff(first_s=3600, ceiling_s=3600)


class Lane:
    """An exchange that leads to a queue by a key."""

    def __init__(self, site: Any, stem: str = "lane") -> None:
        self.exchange = site.name(f"{stem}.exchange")
        self.queue = site.name(f"{stem}.queue")
        self.kwargs: dict[str, Any] = {
            "exchange": self.exchange,
            "routing_key": "key",
            "mandatory": True,
            "properties": {"delivery_mode": 2},
        }
        site.exchange(self.exchange)
        site.queue(self.queue)
        site.bind(self.queue, self.exchange, "key")


@pytest.fixture
def lane(site: Any) -> Lane:
    return Lane(site)


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# --- Publishing -------------------------------------------------------------------------------------------------


def test_a_published_message_arrives_with_its_properties_and_is_confirmed(site, lane, events, recorder) -> None:
    publisher = site.connect(on_event=events).publisher(lane.exchange, lane.queue)
    headers = {"task_uuid": "1", "result_serializers": ["a", "b"], "number": 7}
    publisher.publish(b"body", {**lane.kwargs, "properties": {"headers": headers, "delivery_mode": 2}}, recorder)
    assert recorder.wait_count(1) == [True]
    message = site.take(lane.queue, 1)[0]
    assert (message.body, message.headers) == (b"body", headers)
    events.wait(Connected, count=1)
    events.wait(PublisherReady, exchange=lane.exchange)


def test_messages_arrive_in_the_order_in_which_each_thread_published_them(site, lane) -> None:
    connection = site.connect()
    publisher = connection.publisher(lane.exchange, lane.queue)

    def publish(thread: int) -> None:
        for number in range(200):
            publisher.publish(b"%d %d" % (thread, number), lane.kwargs)

    threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.wait_confirmed(WAIT_S)
    assert publisher.pending == 0
    got = [tuple(map(int, body.split())) for body in site.bodies(lane.queue, 800)]
    for thread_number in range(4):
        assert [number for thread, number in got if thread == thread_number] == list(range(200))


def test_more_messages_than_the_window_are_all_confirmed(site, lane, recorder) -> None:
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    for body in numbers(2500):
        publisher.publish(body, lane.kwargs, recorder)
    assert recorder.wait_count(2500) == [True] * 2500


def test_a_message_that_no_queue_takes_is_reported_and_its_neighbours_are_not(site, lane) -> None:
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    done: dict[int, bool] = {}
    for number in range(300):
        key = "key" if number % 3 else "nobody listens to this"
        publisher.publish(b"the same", {**lane.kwargs, "routing_key": key}, lambda ok, n=number: done.update({n: ok}))
    assert publisher.wait_confirmed(WAIT_S)
    assert done == {number: bool(number % 3) for number in range(300)}


def test_a_message_that_no_queue_takes_counts_as_taken_if_it_is_not_mandatory(site, lane) -> None:
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    done: dict[bool, bool] = {}
    for mandatory in (False, True):  # the same content otherwise: only the second comes back
        kwargs = {"exchange": lane.exchange, "routing_key": "nobody", "mandatory": mandatory}
        publisher.publish(b"x", kwargs, lambda ok, mandatory=mandatory: done.update({mandatory: ok}))
    assert publisher.wait_confirmed(WAIT_S)
    assert done == {False: True, True: False}


def test_the_default_exchange_leads_to_the_queue_of_the_keys_name(site, lane) -> None:
    publisher = site.connect().publisher("")
    done: dict[str, bool] = {}
    for key in (lane.queue, "no such queue"):
        publisher.publish(b"x", {"routing_key": key, "mandatory": True}, lambda ok, key=key: done.update({key: ok}))
    assert publisher.wait_confirmed(WAIT_S)
    assert done == {lane.queue: True, "no such queue": False}


def test_large_and_empty_messages_pass_both_ways_unchanged(site, lane) -> None:
    connection = site.connect()
    bodies = [os.urandom(3_000_001), b"", os.urandom(131_072), os.urandom(65_537), b"small"]
    publisher = connection.publisher(lane.exchange, lane.queue)
    for body in bodies:
        publisher.publish(body, lane.kwargs)
    got = Collector(connection, lane.queue)
    assert [delivery.body for delivery in got.wait(len(bodies))] == bodies


@pytest.mark.parametrize(
    ("body", "kwargs", "error"),
    [
        ("text", {}, TypeError),
        (b"x", {"exchange": 5}, TypeError),
        (b"x", {"immediate": True}, ValueError),
        (b"x", {"properties": {"no_such_property": 1}}, ValueError),
        (b"x", {"properties": {"headers": {"key": object()}}}, ValueError),
        (b"x", {"routing_key": "k" * 256}, ValueError),
    ],
)
def test_a_message_that_cannot_be_sent_as_described_is_refused_at_once(site, lane, body, kwargs, error) -> None:
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    with pytest.raises(error):
        publisher.publish(body, {**lane.kwargs, **kwargs})
    publisher.publish(b"good", lane.kwargs)
    assert publisher.wait_confirmed(WAIT_S)


def test_a_message_that_the_broker_will_not_have_does_not_stop_the_others(site, lane) -> None:
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    done: dict[int, bool] = {}
    for number in range(20):
        exchange = lane.exchange if number != 9 else site.name("no such exchange")
        publisher.publish(
            b"%d" % number, {**lane.kwargs, "exchange": exchange}, lambda ok, n=number: done.update({n: ok})
        )
    assert publisher.wait_confirmed(WAIT_S)
    assert done == {number: number != 9 for number in range(20)}
    assert publisher.pending == 0


def test_messages_wait_until_exchange_and_queue_exist(site, events, recorder) -> None:
    exchange, queue = site.name("later.exchange"), site.name("later.queue")
    publisher = site.connect(on_event=events).publisher(exchange, queue)
    publisher.publish(b"early", {"exchange": exchange, "routing_key": "key", "mandatory": True}, recorder)
    assert events.wait(PublisherLost, exchange=exchange).code == 404
    assert recorder.all == []
    site.queue(queue)
    site.exchange(exchange, "topic")
    site.bind(queue, exchange, "key")
    # It may have been declared between exchange and binding: then the message was unroutable, and we were told.
    ok = recorder.wait_count(1)[0]
    assert site.bodies(queue, 1) == [b"early"] if ok else site.depth(queue) == 0


def test_publishing_before_the_connection_is_up_is_sent_when_it_is(site, lane, recorder) -> None:
    site.refuse(True)
    connection = site.connect()
    publisher = connection.publisher(lane.exchange, lane.queue)
    publisher.publish(b"early", lane.kwargs, recorder)
    assert publisher.pending == 1
    site.refuse(False)
    assert recorder.wait_count(1) == [True]


def test_waiting_for_confirms_ends_with_the_given_time(site, lane) -> None:
    site.refuse(True)
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    assert publisher.wait_confirmed(WAIT_S)  # nothing was published
    publisher.publish(b"x", lane.kwargs)
    assert not publisher.wait_confirmed(0.01)


def test_waiting_for_confirms_in_a_callback_is_refused_instead_of_hanging(site, lane, recorder) -> None:
    publisher = site.connect().publisher(lane.exchange, lane.queue)

    def wait(_ok: bool) -> None:
        try:
            publisher.wait_confirmed(WAIT_S)
        except RuntimeError as exc:
            recorder(exc)

    publisher.publish(b"x", lane.kwargs, wait)
    assert isinstance(recorder.wait_count(1)[0], RuntimeError)


# --- Losing the connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["requests", "replies"])
def test_unconfirmed_messages_are_sent_again_in_order_after_the_connection_was_cut(
    site, lane, events, recorder, direction
) -> None:
    connection = site.connect(on_event=events)
    publisher = connection.publisher(lane.exchange, lane.queue)
    publisher.publish(b"before", lane.kwargs, recorder)
    recorder.wait_count(1)
    site.lose(direction)
    for body in numbers(1500):  # more than the window
        publisher.publish(body, lane.kwargs, recorder)
    site.wait_lost(direction)
    assert len(recorder.all) == 1
    site.cut()
    events.wait(Disconnected)
    events.wait(Connected, count=2)
    assert recorder.wait_count(1501) == [True] * 1501
    bodies = [body for body in site.bodies(lane.queue, site.depth(lane.queue)) if body != b"before"]
    assert list(dict.fromkeys(bodies)) == numbers(1500)
    assert (len(bodies) > 1500) == (direction == "replies"), "sent again exactly where the broker could have it"


def test_unacknowledged_messages_come_again_and_acknowledged_ones_do_not(site, lane, events) -> None:
    connection = site.connect(on_event=events)
    got = Collector(connection, lane.queue, ack=lambda d: d.body in (b"0", b"1", b"3"))
    site.put(lane.queue, *numbers(5))
    first = got.wait(5)
    assert [d.body for d in first] == numbers(5)
    assert not any(d.redelivered for d in first)
    connection.publisher("").publish(b"5", {"routing_key": lane.queue})  # on the same socket, so after the acks
    got.wait(6)
    site.cut()
    again = got.wait(6 + 3)[6:]
    assert [d.body for d in again] == [b"2", b"4", b"5"]
    assert all(d.redelivered for d in again)
    assert again[0].epoch > first[0].epoch
    assert [again[0].epoch] == [e.epoch for e in events.all if isinstance(e, ConsumerReady)][1:]


def test_an_acknowledgement_of_an_earlier_connection_changes_nothing(site, lane, events) -> None:
    connection = site.connect(on_event=events)
    got = Collector(connection, lane.queue, ack=lambda d: False)
    site.put(lane.queue, *numbers(3))
    old = got.wait(3)[:3]
    site.cut()
    new = got.wait(6)[3:]
    got.consumer.ack(old)
    got.consumer.nack(old, requeue=False)
    got.consumer.ack(new[:1])
    connection.close()
    assert site.bodies(lane.queue, 2) == [b"1", b"2"]
    assert site.depth(lane.queue) == 0


def test_nothing_is_lost_and_the_order_is_kept_when_the_connection_is_cut_again_and_again(site, lane) -> None:
    count, cuts = 2000, 6
    sender, receiver = site.connect(), site.connect()
    publisher = sender.publisher(lane.exchange, lane.queue)
    got = Collector(receiver, lane.queue, prefetch=100)
    done = threading.Semaphore(0)
    for part in range(cuts):
        for number in range(part * count // cuts, (part + 1) * count // cuts):
            publisher.publish(b"%d" % number, lane.kwargs, lambda ok: done.release())
        for _ in range(count // cuts // 2):  # somewhere in the middle
            assert done.acquire(timeout=WAIT_S)
        site.cut()
    assert publisher.wait_confirmed(WAIT_S)
    got.wait_for(lambda: len({d.body for d in got.deliveries}) == count)
    assert list(dict.fromkeys(d.body for d in got.deliveries)) == numbers(count)


def test_a_connection_is_made_as_soon_as_somebody_answers(site, lane, events) -> None:
    site.refuse(True)
    connection = site.connect(on_event=events)
    assert events.wait(ConnectFailed).attempt == 1
    events.wait(ConnectFailed, attempt=3)
    assert not connection.is_connected
    site.refuse(False)
    assert connection.wait_connected(WAIT_S)
    assert connection.is_connected
    events.wait(Connected, count=1)


def test_retry_now_ends_the_wait_for_the_next_attempt(site, events) -> None:
    site.refuse(True)
    connection = site.connect(on_event=events, backoff=NEVER)
    assert events.wait(ConnectFailed).retry_in_s > 1000
    site.refuse(False)
    connection.retry_now()
    events.wait(Connected)


# --- Consuming ----------------------------------------------------------------------------------------------------


class Collector:
    """A consumer that keeps what comes, and acknowledges what `ack` says (everything, if it says nothing)."""

    def __init__(
        self, connection: Connection, queue: str, ack: Any = None, beside: Collector | None = None, **options: Any
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.batches = 0
        self._ack = ack
        self._changed = beside._changed if beside else threading.Condition()
        with self._changed:  # the first messages may come before `consume` has returned
            self.consumer = connection.consume(queue, self._on_messages, **options)

    def _on_messages(self, deliveries: list[Delivery]) -> None:
        with self._changed:
            self.consumer.ack([d for d in deliveries if self._ack is None or self._ack(d)])
            self.batches += 1
            self.deliveries += deliveries
            self._changed.notify_all()

    def wait(self, count: int) -> list[Delivery]:
        self.wait_for(lambda: len(self.deliveries) >= count)
        return list(self.deliveries)

    def wait_for(self, condition: Any) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_S), f"{len(self.deliveries)} deliveries"


def test_deliveries_carry_what_the_sender_set(site, lane) -> None:
    got = Collector(site.connect(), lane.queue)
    site.put(lane.queue, b"body", headers={"a": 1}, timestamp=1_700_000_000, content_type="application/json")
    site.put(lane.queue, b"bare")
    full, bare = got.wait(2)
    assert (full.body, full.headers, full.timestamp) == (b"body", {"a": 1}, 1_700_000_000)
    assert (full.content_type, full.routing_key, full.redelivered) == ("application/json", lane.queue, False)
    assert (bare.headers, bare.timestamp, bare.content_type) == ({}, None, None)


def test_what_waits_in_a_queue_comes_in_few_batches(site, lane) -> None:
    site.put(lane.queue, *numbers(1000))
    got = Collector(site.connect(), lane.queue)
    assert [d.body for d in got.wait(1000)] == numbers(1000)
    assert got.batches < 500


def test_acknowledgements_may_come_from_any_thread_and_in_any_order(site, lane, events) -> None:
    connection = site.connect(on_event=events)
    got = Collector(connection, lane.queue, ack=lambda d: False)
    site.put(lane.queue, *numbers(100))
    deliveries = got.wait(100)
    kept = {b"17", b"50", b"99"}
    chosen = [d for d in deliveries if d.body not in kept]
    parts = [chosen[3::4], chosen[1::4], list(reversed(chosen[::4])), chosen[2::4]]
    threads = [threading.Thread(target=got.consumer.ack, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got.consumer.ack(chosen[:10])  # a second time
    connection.close()
    assert set(site.bodies(lane.queue, 3)) == kept
    assert site.depth(lane.queue) == 0


def test_no_more_than_the_prefetch_is_delivered_ahead_of_acknowledgements(site, lane) -> None:
    site.put(lane.queue, *numbers(20))
    connection = site.connect()
    got = Collector(connection, lane.queue, ack=lambda d: False, prefetch=4)
    got.wait(4)
    probe = Collector(connection, lane.queue, beside=got)  # gets the rest: the first consumer's window is full
    probe.wait(16)
    assert len(got.deliveries) == 4
    got.consumer.ack(got.deliveries[:2])
    site.put(lane.queue, b"20", b"21", b"22", b"23")
    got.wait_for(lambda: len(got.deliveries) + len(probe.deliveries) == 24)
    assert 4 <= len(got.deliveries) <= 6


def test_messages_given_back_come_again_and_messages_dropped_do_not(site, lane) -> None:
    connection = site.connect()
    got = Collector(connection, lane.queue, ack=lambda d: d.redelivered)
    site.put(lane.queue, b"back", b"dropped")
    back, dropped = got.wait(2)
    got.consumer.nack([dropped], requeue=False)
    got.consumer.nack([back], requeue=True)
    again = got.wait(3)[2]
    assert (again.body, again.redelivered) == (b"back", True)
    connection.close()
    assert site.depth(lane.queue) == 0


def test_an_exclusive_consumer_takes_over_when_the_other_one_has_gone(site, lane, events) -> None:
    older = site.connect(on_event=events)
    Collector(older, lane.queue, exclusive=True)
    events.wait(ConsumerReady)
    newer = site.connect(on_event=events)
    got = Collector(newer, lane.queue, exclusive=True)
    lost = events.wait(ConsumerLost, queue=lane.queue)
    assert lost.code == 403
    assert "exclusive" in lost.reason
    older.close()
    events.wait(ConsumerReady, queue=lane.queue)
    site.put(lane.queue, b"x")
    assert got.wait(1)[0].body == b"x"


def test_a_consumer_survives_that_its_queue_is_deleted_and_made_again(site, lane, events) -> None:
    got = Collector(site.connect(on_event=events), lane.queue)
    events.wait(ConsumerReady)
    assert got.consumer.is_ready
    site.delete_queue(lane.queue)
    assert events.wait(ConsumerLost).code == 0
    assert events.wait(ConsumerLost).code == 404
    assert not got.consumer.is_ready
    site.queue(lane.queue)
    events.wait(ConsumerReady)
    site.put(lane.queue, b"x")
    assert got.wait(1)[0].body == b"x"


def test_after_cancel_nothing_is_delivered_and_what_was_can_still_be_acknowledged(site, lane, events) -> None:
    connection = site.connect(on_event=events)
    got = Collector(connection, lane.queue, ack=lambda d: False, prefetch=3)
    site.put(lane.queue, *numbers(6))
    first = got.wait(3)
    got.consumer.cancel()
    got.consumer.ack(first[:2])
    got.consumer.cancel()
    other = Collector(connection, lane.queue)
    assert [d.body for d in other.wait(3)] == [b"3", b"4", b"5"]
    got.consumer.nack(first[2:], requeue=True)
    assert other.wait(4)[3].body == b"2"
    assert len(got.deliveries) == 3


def test_a_cancelled_consumer_does_not_come_back_with_the_connection(site, lane, events) -> None:
    connection = site.connect(on_event=events)
    got = Collector(connection, lane.queue, ack=lambda d: False)
    site.put(lane.queue, b"x")
    got.wait(1)
    got.consumer.cancel()
    site.cut()
    events.wait(Disconnected)
    events.wait(Connected, count=2)
    assert site.bodies(lane.queue, 1) == [b"x"]
    assert len(got.deliveries) == 1


def test_a_callback_that_raises_leaves_its_messages_unacknowledged_and_the_connection_up(site, lane, caplog) -> None:
    connection = site.connect()
    got: list[bytes] = []
    is_done = threading.Event()

    def on_messages(deliveries: list[Delivery]) -> None:
        got.extend(d.body for d in deliveries)
        if b"last" in got:
            is_done.set()
        raise ValueError("the owner's fault")

    connection.consume(lane.queue, on_messages)
    site.put(lane.queue, b"first")
    site.put(lane.queue, b"last")
    assert is_done.wait(WAIT_S)
    connection.close()
    assert site.bodies(lane.queue, 2) == [b"first", b"last"]
    assert any(getattr(record, "event", "") == "amqp.callback_failed" for record in caplog.records)


# --- Credentials --------------------------------------------------------------------------------------------------


def test_a_refused_credential_ends_the_connection_and_settles_what_waits(site, lane, events, recorder) -> None:
    connection = site.make(site.wrong_url, name="refused", on_event=events)
    publisher = connection.publisher(lane.exchange, lane.queue)
    publisher.publish(b"x", lane.kwargs, recorder)
    connection.start()
    assert events.wait(CredentialRefused).reason
    assert recorder.wait_count(1) == [False]
    assert not connection.wait_connected(WAIT_S) if not has_ended(connection) else True
    with pytest.raises(ConnectionEnded, match="credential refused"):
        publisher.publish(b"y", lane.kwargs)
    connection.close()


def has_ended(connection: Connection) -> bool:
    try:
        connection.wait_connected(0)
    except ConnectionEnded:
        return True
    return False


def test_a_callable_url_is_asked_at_each_attempt_and_may_bring_a_new_credential(site, events) -> None:
    answers = iter([OSError("the service is down"), "not a url", site.wrong_url, site.url, site.url])

    def url() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    connection = site.connect(url, on_event=events)
    assert "the service is down" in events.wait(ConnectFailed, attempt=1).reason
    events.wait(ConnectFailed, attempt=2)
    assert "403" in events.wait(ConnectFailed, attempt=3).reason
    events.wait(Connected, count=1)
    site.cut()
    events.wait(Connected, count=2)
    assert connection.is_connected
    assert next(answers, None) is None


def test_a_callable_url_that_brings_the_refused_credential_again_ends_the_connection(site, events) -> None:
    site.connect(lambda: site.wrong_url, on_event=events)
    events.wait(CredentialRefused)


def test_a_callable_url_can_say_that_there_is_no_credential_to_be_had(site, events) -> None:
    def url() -> str:
        raise wire_errors.CredentialRefused("this endpoint", "deleted")

    site.connect(url, on_event=events)
    assert "deleted" in events.wait(CredentialRefused).reason


# --- The end ------------------------------------------------------------------------------------------------------


def test_close_sends_acknowledgements_and_settles_what_is_not_confirmed(site, lane, recorder, events) -> None:
    connection = site.connect(on_event=events)
    got = Collector(connection, lane.queue, ack=lambda d: False)
    publisher = connection.publisher(lane.exchange, lane.queue)
    site.put(lane.queue, b"x")
    deliveries = got.wait(1)
    events.wait(PublisherReady)
    site.lose("replies")
    publisher.publish(b"y", lane.kwargs, recorder)
    got.consumer.ack(deliveries)
    connection.close(timeout_s=0.5)
    assert recorder.wait_count(1) == [False]
    assert site.bodies(lane.queue, 1) == [b"y"]
    with pytest.raises(ConnectionEnded):
        publisher.publish(b"z", lane.kwargs)
    with pytest.raises(ConnectionEnded):
        connection.consume(lane.queue, got._on_messages)
    connection.close()
    got.consumer.ack(deliveries)
    assert not connection.is_connected


def test_close_ends_a_long_wait_for_the_next_attempt_at_once(site, events) -> None:
    site.refuse(True)
    connection = site.connect(on_event=events, backoff=NEVER)
    events.wait(ConnectFailed)
    connection.close()
    assert not any(thread.name == "farcall-amqp-contract" for thread in threading.enumerate())


def test_close_works_before_start_and_in_a_callback(site, lane, recorder) -> None:
    unstarted = site.make(site.url, name="unstarted")
    publisher = unstarted.publisher(lane.exchange)
    publisher.publish(b"x", lane.kwargs, recorder)
    unstarted.close()
    assert recorder.wait_count(1) == [False]

    connection = site.connect()
    is_closed = threading.Event()

    def close(_ok: bool) -> None:
        connection.close()
        is_closed.set()

    connection.publisher(lane.exchange).publish(b"x", lane.kwargs, close)
    assert is_closed.wait(WAIT_S)
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_that_the_connection_is_its_parents(site, lane, recorder) -> None:
    connection = site.connect()
    publisher = connection.publisher(lane.exchange, lane.queue)
    assert connection.wait_connected(WAIT_S)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            publisher.publish(b"from the child", lane.kwargs)
        except UsedAfterFork as exc:
            connection.close()
            status = 0 if str(os.getppid()) in str(exc) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    publisher.publish(b"from the parent", lane.kwargs, recorder)
    assert recorder.wait_count(1) == [True]
    assert site.bodies(lane.queue, 1) == [b"from the parent"]


# --- Queues on demand -------------------------------------------------------------------------------------------


def perform(operator: Operator, *operations: Operation) -> list[Outcome]:
    """All asked at once; the outcomes in their order."""
    found: list[Outcome] = []
    all_done = threading.Semaphore(0)

    def on_outcome(outcome: Outcome) -> None:
        found.append(outcome)
        all_done.release()

    for operation in operations:
        operator.perform(operation, on_outcome)
    for _ in operations:
        assert all_done.acquire(timeout=WAIT_S)
    return found


def test_an_operator_makes_empties_and_removes_what_publishers_and_consumers_need(site, events) -> None:
    exchange, queue = site.name("made.exchange"), site.name("made.queue")
    connection = site.connect(on_event=events)
    operator = connection.operator()
    events.wait(OperatorReady)
    made = perform(
        operator,
        DeclareExchange(name=exchange),
        DeclareQueue(name=queue),
        BindQueue(queue=queue, exchange=exchange, routing_key="key"),
    )
    assert made == [Done(), Done(), Done()]
    publisher = connection.publisher(exchange, queue)
    for body in numbers(3):
        publisher.publish(body, {"exchange": exchange, "routing_key": "key"})
    assert publisher.wait_confirmed(WAIT_S)
    assert perform(operator, DeclareQueue(name=queue), PurgeQueue(name=queue)) == [Done(messages=3), Done(messages=3)]
    assert perform(operator, DeleteQueue(name=queue)) == [Done()]


def test_a_refused_operation_keeps_none_behind_it_back(site, events) -> None:
    queue, missing = site.name("queue"), site.name("missing")
    operator = site.connect(on_event=events).operator()
    events.wait(OperatorReady)
    first, second, third, fourth = perform(
        operator,
        DeclareQueue(name=missing, passive=True),
        DeclareQueue(name=queue),
        PurgeQueue(name=missing),
        DeclareQueue(name=queue, passive=True),
    )
    assert isinstance(first, Failed)
    assert isinstance(third, Failed)
    assert (first.code, third.code) == (404, 404)
    assert (second, fourth) == (Done(), Done())
    perform(operator, DeleteQueue(name=queue))


def test_a_queue_says_how_many_consume_it_and_is_kept_while_they_do(site, lane, events, recorder) -> None:
    connection = site.connect(on_event=events)
    operator = connection.operator()
    connection.consume(lane.queue, recorder.extend)
    events.wait(ConsumerReady)
    assert perform(operator, DeclareQueue(name=lane.queue, passive=True)) == [Done(consumers=1)]
    (refused,) = perform(operator, DeleteQueue(name=lane.queue, if_unused=True))
    assert isinstance(refused, Failed)
    assert refused.code == 406


def test_an_operation_without_a_connection_fails_and_the_operator_tells_when_to_begin_anew(site, lane, events) -> None:
    operator = site.connect(on_event=events).operator()
    events.wait(OperatorReady)
    site.refuse(True)
    site.cut()
    events.wait(Disconnected)
    (failed,) = perform(operator, DeclareQueue(name=lane.queue, passive=True))
    assert isinstance(failed, Failed)
    assert failed.code == 0
    site.refuse(False)
    events.wait(OperatorReady)
    assert perform(operator, DeclareQueue(name=lane.queue, passive=True)) == [Done()]


# --- Publishers whose messages are not worth repeating -----------------------------------------------------------


def test_without_resends_what_was_not_confirmed_is_dropped_with_the_channel(site, lane, events, recorder) -> None:
    connection = site.connect(on_event=events)
    publisher = connection.publisher(lane.exchange, lane.queue, resends=False)
    events.wait(PublisherReady)
    site.refuse(True)
    site.cut()
    events.wait(Disconnected)
    publisher.publish(b"lost", lane.kwargs, recorder)
    assert recorder.wait_count(1) == [False]
    site.refuse(False)
    events.wait(PublisherReady)
    publisher.publish(b"sent", lane.kwargs, recorder)
    assert recorder.wait_count(2) == [False, True]
    assert site.bodies(lane.queue, 1) == [b"sent"]


def test_a_callback_follows_the_confirms_of_everything_before_it(site, lane) -> None:
    order: list[str] = []
    done = threading.Event()
    publisher = site.connect().publisher(lane.exchange, lane.queue)
    for number in range(20):
        publisher.publish(b"x", lane.kwargs, lambda ok, number=number: order.append(f"{number} {ok}"))
    publisher.after_confirmed(lambda: (order.append("after"), done.set()))
    assert done.wait(WAIT_S)
    assert order == [*(f"{number} True" for number in range(20)), "after"]
    done.clear()
    publisher.after_confirmed(done.set)  # nothing is under way
    assert done.wait(WAIT_S)
