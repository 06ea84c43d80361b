"""What clients may rely on, whichever broker it is: pika, aio-pika and raw frames against an AMQP URL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pika
import pytest
from pamqp import commands
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

Connect = Callable[..., pika.BlockingConnection]


def bodies_of(channel: Any, queue: str, count: int, **options: Any) -> list[bytes]:
    """The next `count` messages, acknowledged."""
    bodies = []
    for method, _, body in channel.consume(queue, inactivity_timeout=20, **options):
        assert method is not None, f"only {len(bodies)} of {count} messages came"
        bodies.append(body)
        if not options.get("auto_ack"):
            channel.basic_ack(method.delivery_tag)
        if len(bodies) == count:
            break
    channel.cancel()
    return bodies


def publish(channel: Any, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        channel.basic_publish("", queue, body)


def depth(channel: Any, queue: str) -> int:
    return channel.queue_declare(queue, passive=True).method.message_count


def pump(connection: Any, until: Callable[[], bool]) -> None:
    """Let events come in until `until` holds."""
    for _ in range(1000):
        if until():
            return
        connection.process_data_events(time_limit=20)
    raise AssertionError("it did not happen")


def refusal(of: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """The reply code with which the broker closes the channel for this call."""
    with pytest.raises(ChannelClosedByBroker) as info:
        of(*args, **kwargs)
    return info.value.reply_code


# --- Order, acknowledgement, return ------------------------------------------------------------------------------


def test_messages_come_in_the_order_in_which_they_were_published(channel: Any, queue: str) -> None:
    sent = [f"{i}".encode() for i in range(300)]
    publish(channel, queue, *sent)
    assert bodies_of(channel, queue, 300) == sent
    assert depth(channel, queue) == 0


def test_a_message_given_back_returns_to_its_place_and_is_marked(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    publish(channel, queue, b"1", b"2", b"3")
    first = channel.basic_get(queue)
    second = channel.basic_get(queue)
    channel.basic_nack(second[0].delivery_tag, requeue=True)
    channel.basic_reject(first[0].delivery_tag, requeue=True)
    again = [channel.basic_get(queue) for _ in range(3)]
    assert [body for _, _, body in again] == [b"1", b"2", b"3"]
    assert [method.redelivered for method, _, _ in again] == [True, True, False]


def test_a_message_rejected_without_requeue_is_gone(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    publish(channel, queue, b"1", b"2", b"3")
    tag = [channel.basic_get(queue)[0].delivery_tag for _ in range(2)][-1]
    channel.basic_nack(tag, multiple=True, requeue=False)
    assert depth(channel, queue) == 1
    assert channel.basic_get(queue)[2] == b"3"


def test_an_acknowledgement_of_several_covers_all_below(channel: Any, queue: str, connect: Connect) -> None:
    channel.confirm_delivery()
    publish(channel, queue, b"1", b"2", b"3")
    other = connect().channel()
    tags = [other.basic_get(queue)[0].delivery_tag for _ in range(3)]
    other.basic_ack(tags[1], multiple=True)
    other.close()
    assert bodies_of(channel, queue, 1) == [b"3"]
    assert depth(channel, queue) == 0


def test_a_closed_channel_gives_back_what_it_held_in_order(channel: Any, queue: str, connect: Connect) -> None:
    channel.confirm_delivery()
    publish(channel, queue, *[b"%d" % i for i in range(50)])
    other = connect().channel()
    tags = [other.basic_get(queue)[0].delivery_tag for _ in range(20)]
    for tag in tags[3:10]:
        other.basic_ack(tag)
    other.close()
    expected = [b"%d" % i for i in range(50) if not 3 <= i < 10]
    assert bodies_of(channel, queue, len(expected)) == expected


def test_a_dropped_connection_gives_back_what_it_held_marked_and_in_order(
    channel: Any, queue: str, amqp_url: str, raw: Any
) -> None:
    channel.confirm_delivery()
    publish(channel, queue, *[b"%d" % i for i in range(30)])
    client = raw_client(amqp_url, raw)
    client.send(commands.Basic.Qos(prefetch_count=10))
    client.send(commands.Basic.Consume(queue=queue))
    delivered = 0
    while delivered < 10:
        delivered += client.read()[1].name == "Basic.Deliver"
    client.close()  # no goodbye
    came = []
    for method, _, body in channel.consume(queue, inactivity_timeout=20):
        assert method is not None
        came.append((body, method.redelivered))
        if len(came) == 30:
            break
    assert sorted(came, key=lambda item: int(item[0])) == [(b"%d" % i, i < 10) for i in range(30)]
    returned = [int(body) for body, redelivered in came if redelivered]
    assert returned == sorted(returned)


def test_recover_brings_unacknowledged_messages_again(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    publish(channel, queue, b"1", b"2")
    for _ in range(2):
        channel.basic_get(queue)
    channel.basic_recover(requeue=True)
    again = [channel.basic_get(queue) for _ in range(2)]
    assert [(body, method.redelivered) for method, _, body in again] == [(b"1", True), (b"2", True)]


def test_a_cancelled_consumer_may_still_acknowledge(channel: Any, queue: str, connect: Connect) -> None:
    publish(channel, queue, b"1", b"2")
    tags: list[int] = []
    connection = connect()
    other = connection.channel()
    consumer = other.basic_consume(queue, lambda _c, method, _p, _b: tags.append(method.delivery_tag))
    pump(connection, lambda: len(tags) == 2)
    other.basic_cancel(consumer)
    other.basic_ack(tags[0])
    other.close()
    assert bodies_of(channel, queue, 1) == [b"2"]


def test_without_acknowledgement_a_message_is_gone_when_it_is_handed_over(channel: Any, queue: str) -> None:
    publish(channel, queue, b"1", b"2", b"3")
    assert bodies_of(channel, queue, 2, auto_ack=True)[:2] == [b"1", b"2"]
    channel.close()


def test_an_unknown_delivery_tag_closes_the_channel(connect: Connect, queue: str) -> None:
    connection = connect()
    for settle in ("basic_ack", "basic_nack", "basic_reject"):
        channel = connection.channel()
        getattr(channel, settle)(99)
        assert refusal(channel.queue_declare, queue, passive=True) == 406
    assert connection.is_open


def test_acknowledging_twice_closes_the_channel(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    publish(channel, queue, b"1")
    tag = channel.basic_get(queue)[0].delivery_tag
    channel.basic_ack(tag)
    channel.basic_ack(tag)
    assert refusal(channel.queue_declare, queue, passive=True) == 406


def test_a_queue_can_be_asked_for_one_message(channel: Any, queue: str) -> None:
    assert channel.basic_get(queue) == (None, None, None)
    channel.confirm_delivery()
    publish(channel, queue, b"1", b"2")
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (body, method.message_count, method.routing_key, method.redelivered) == (b"1", 1, queue, False)


# --- Prefetch ----------------------------------------------------------------------------------------------------


def test_a_consumer_never_holds_more_than_its_prefetch(channel: Any, queue: str, connect: Connect) -> None:
    channel.confirm_delivery()
    publish(channel, queue, *[b"%d" % i for i in range(10)])
    connection = connect()
    other = connection.channel()
    other.basic_qos(prefetch_count=3)
    held: list[int] = []
    other.basic_consume(queue, lambda _c, method, _p, _b: held.append(method.delivery_tag))
    pump(connection, lambda: len(held) >= 3)
    assert depth(other, queue) == 7
    assert len(held) == 3
    other.basic_ack(held[0])
    pump(connection, lambda: len(held) >= 4)
    assert depth(other, queue) == 6
    assert len(held) == 4


def test_a_global_prefetch_is_shared_by_the_consumers_of_a_channel(channel: Any, queue: str, connect: Connect) -> None:
    channel.confirm_delivery()
    publish(channel, queue, *[b"%d" % i for i in range(10)])
    connection = connect()
    other = connection.channel()
    other.basic_qos(prefetch_count=4, global_qos=True)
    held: list[int] = []
    for _ in range(2):
        other.basic_consume(queue, lambda _c, method, _p, _b: held.append(method.delivery_tag))
    pump(connection, lambda: len(held) >= 4)
    assert depth(other, queue) == 6
    assert len(held) == 4
    other.basic_ack(held[-1], multiple=True)
    pump(connection, lambda: len(held) >= 8)
    assert depth(other, queue) == 2


def test_consumers_of_one_queue_take_turns(channel: Any, queue: str) -> None:
    got: dict[str, int] = {}
    for name in ("a", "b", "c"):
        channel.basic_consume(
            queue,
            lambda _c, method, _p, _b: got.update({method.consumer_tag: got.get(method.consumer_tag, 0) + 1}),
            consumer_tag=name,
        )
    publish(channel, queue, *[b"x"] * 9)
    pump(channel.connection, lambda: sum(got.values()) == 9)
    assert got == {"a": 3, "b": 3, "c": 3}


# --- Confirms ----------------------------------------------------------------------------------------------------


def test_every_message_of_a_publisher_in_confirm_mode_is_confirmed_once(amqp_url: str, queue: str) -> None:
    confirmed: set[int] = set()
    repeated: list[int] = []

    def on_confirm(channel: Any, frame: Any) -> None:
        tag = frame.method.delivery_tag
        tags = set(range(1, tag + 1)) - confirmed if frame.method.multiple else {tag}
        repeated.extend(tags & confirmed)
        confirmed.update(tags)
        if len(confirmed) == 1000:
            channel.connection.close()

    def on_selected(channel: Any) -> None:
        for number in range(1000):
            channel.basic_publish("", queue if number % 3 else "nowhere", b"x")

    connection = pika.SelectConnection(
        pika.URLParameters(amqp_url),
        on_open_callback=lambda c: c.channel(
            on_open_callback=lambda ch: ch.confirm_delivery(
                lambda frame: on_confirm(ch, frame), lambda _ok: on_selected(ch)
            )
        ),
        on_close_callback=lambda c, _reason: c.ioloop.stop(),
    )
    connection.ioloop.start()
    assert confirmed == set(range(1, 1001))
    assert repeated == []


def test_a_mandatory_message_that_leads_nowhere_is_returned_and_others_are_confirmed(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    with pytest.raises(UnroutableError) as info:
        channel.basic_publish("", "no-such-queue", b"back", pika.BasicProperties(app_id="me"), mandatory=True)
    (returned,) = info.value.messages
    assert (returned.method.reply_code, returned.body, returned.properties.app_id) == (312, b"back", "me")
    channel.basic_publish("", queue, b"1", mandatory=True)
    channel.basic_publish("", "no-such-queue", b"lost")
    assert depth(channel, queue) == 1


def test_an_empty_message_is_a_message(channel: Any, queue: str) -> None:
    publish(channel, queue, b"", b"x", b"")
    assert bodies_of(channel, queue, 3) == [b"", b"x", b""]


# --- Consumers ---------------------------------------------------------------------------------------------------


def test_an_exclusive_consumer_is_alone(connect: Connect, queue: str) -> None:
    connection = connect()
    first = connection.channel()
    tag = first.basic_consume(queue, lambda *_: None, exclusive=True)
    assert refusal(connection.channel().basic_consume, queue, lambda *_: None) == 403
    assert refusal(connection.channel().basic_consume, queue, lambda *_: None, exclusive=True) == 403
    first.basic_cancel(tag)
    connection.channel().basic_consume(queue, lambda *_: None)
    assert refusal(connection.channel().basic_consume, queue, lambda *_: None, exclusive=True) == 403


def test_an_exclusive_consumer_leaves_with_its_connection(connect: Connect, queue: str) -> None:
    first = connect()
    first.channel().basic_consume(queue, lambda *_: None, exclusive=True)
    first.close()
    connect().channel().basic_consume(queue, lambda *_: None, exclusive=True)


def test_deleting_a_queue_cancels_its_consumers(connect: Connect, channel: Any) -> None:
    name = channel.queue_declare("", auto_delete=False).method.queue
    cancelled: list[str] = []
    connection = connect()
    other = connection.channel()
    other.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = other.basic_consume(name, lambda *_: None)
    channel.queue_delete(name)
    pump(connection, lambda: bool(cancelled))
    assert cancelled == [tag]
    assert other.is_open


def test_a_consumer_tag_cannot_be_used_twice(amqp_url: str, raw: Any, queue: str) -> None:
    client = raw_client(amqp_url, raw)
    for _ in range(2):
        client.send(commands.Basic.Consume(queue=queue, consumer_tag="c"))
    client.expect(commands.Basic.ConsumeOk)
    assert client.expect(commands.Connection.Close).reply_code == 530


# --- Declaring ---------------------------------------------------------------------------------------------------


def test_a_passive_declare_of_something_missing_closes_only_the_channel(connect: Connect) -> None:
    connection = connect()
    assert refusal(connection.channel().queue_declare, "no-such-queue", passive=True) == 404
    assert refusal(connection.channel().exchange_declare, "no-such-exchange", passive=True) == 404
    assert refusal(connection.channel().basic_consume, "no-such-queue", lambda *_: None) == 404
    assert refusal(connection.channel().basic_get, "no-such-queue") == 404
    assert refusal(connection.channel().queue_purge, "no-such-queue") == 404
    assert connection.channel().is_open


def test_publishing_to_a_missing_exchange_closes_only_the_channel(connect: Connect) -> None:
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    assert refusal(channel.basic_publish, "no-such-exchange", "key", b"x" * 200_000) == 404
    assert connection.channel().is_open


def test_declaring_again_must_agree(connect: Connect, queue: str) -> None:
    connection = connect()
    assert connection.channel().queue_declare(queue, durable=True).method.queue == queue
    assert refusal(connection.channel().queue_declare, queue, durable=False) == 406
    assert refusal(connection.channel().exchange_declare, "amq.topic", "direct", durable=True) == 406


def test_reserved_names_and_the_default_exchange_are_left_alone(connect: Connect, queue: str) -> None:
    connection = connect()
    assert refusal(connection.channel().queue_declare, "amq.mine") == 403
    assert refusal(connection.channel().exchange_declare, "amq.mine") == 403
    assert refusal(connection.channel().queue_bind, queue, "", "key") == 403
    assert refusal(connection.channel().exchange_delete, "") == 403


def test_an_exclusive_queue_is_its_connections_own(connect: Connect) -> None:
    owner, other = connect(), connect()
    name = owner.channel().queue_declare("", exclusive=True).method.queue
    assert name
    assert refusal(other.channel().queue_declare, name, passive=True) == 405
    assert refusal(other.channel().basic_consume, name, lambda *_: None) == 405
    owner.close()
    assert refusal(other.channel().queue_declare, name, passive=True) == 404


def test_an_auto_delete_queue_goes_with_its_last_consumer(connect: Connect) -> None:
    connection = connect()
    channel = connection.channel()
    name = channel.queue_declare("", auto_delete=True).method.queue
    tags = [channel.basic_consume(name, lambda *_: None) for _ in range(2)]
    channel.basic_cancel(tags[0])
    assert channel.queue_declare(name, passive=True).method.consumer_count == 1
    channel.basic_cancel(tags[1])
    assert refusal(channel.queue_declare, name, passive=True) == 404


def test_purge_and_delete_say_how_many_messages_went(connect: Connect, channel: Any) -> None:
    name = f"test-{uuid.uuid4().hex}"
    channel.queue_declare(name)
    channel.confirm_delivery()
    publish(channel, name, b"1", b"2", b"3")
    channel.basic_get(name)
    assert channel.queue_purge(name).method.message_count == 2
    publish(channel, name, b"4")
    assert refusal(connect().channel().queue_delete, name, if_empty=True) == 406
    tag = channel.basic_consume(name, lambda *_: None)
    assert refusal(connect().channel().queue_delete, name, if_unused=True) == 406
    channel.basic_cancel(tag)
    channel.close()  # both unacknowledged ones go back
    assert connect().channel().queue_delete(name).method.message_count == 2
    assert connect().channel().queue_delete(name).method.message_count == 0


def test_an_empty_name_means_the_queue_declared_last(channel: Any) -> None:
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind("", "amq.direct", "")
    channel.confirm_delivery()
    channel.basic_publish("amq.direct", name, b"x")
    assert channel.basic_get("", auto_ack=True)[2] == b"x"


@pytest.mark.parametrize(
    ("kind", "bindings", "key", "expected"),
    [
        ("direct", ["a", "b"], "a", 1),
        ("direct", ["a"], "a.b", 0),
        ("fanout", ["ignored"], "anything", 1),
        ("topic", ["*.results"], "7b.results", 1),
        ("topic", ["*.results"], "7b.8c.results", 0),
        ("topic", ["#"], "", 1),
        ("topic", ["a.#", "*.b", "#.b"], "a.b", 1),
        ("topic", ["a.#.z"], "a.z", 1),
        ("topic", ["a.#.z"], "a.b.c.z", 1),
        ("topic", ["a.*.z"], "a.z", 0),
        ("topic", ["plain"], "plain", 1),
    ],
)
def test_a_message_reaches_a_queue_once_if_a_binding_fits(
    connect: Connect, queue: str, kind: str, bindings: list[str], key: str, expected: int
) -> None:
    exchange = f"test-{uuid.uuid4().hex}"
    channel = connect().channel()
    channel.exchange_declare(exchange, kind, auto_delete=True)
    for binding in bindings:
        channel.queue_bind(queue, exchange, binding)
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"x")
    assert depth(channel, queue) == expected
    for binding in bindings:
        channel.queue_unbind(queue, exchange, binding)
    assert refusal(channel.exchange_declare, exchange, passive=True) == 404  # auto-delete, with its last binding


def test_an_unbound_queue_gets_nothing_more(connect: Connect, channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    channel.queue_bind(queue, "amq.topic", "x.#")
    channel.basic_publish("amq.topic", "x.y", b"1")
    channel.queue_unbind(queue, "amq.topic", "x.#")
    channel.basic_publish("amq.topic", "x.y", b"2")
    assert depth(channel, queue) == 1


# --- Content -----------------------------------------------------------------------------------------------------


def test_properties_arrive_as_they_were_sent(channel: Any, queue: str) -> None:
    sent = pika.BasicProperties(
        content_type="application/octet-stream",
        content_encoding="utf-8",
        headers={
            "task_uuid": "5e1d6a3c",
            "list": ["a", 1, {"deep": [None, True]}],
            "negative": -7,
            "decimal": Decimal("3.14"),
            "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
            "bytes": b"\xff\x00",
        },
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        app_id="é",
    )
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"x", sent)
    _, got, _ = channel.basic_get(queue, auto_ack=True)
    assert vars(got) == vars(sent)


@pytest.mark.parametrize("size", [131_064, 131_065, 16 * 1024 * 1024 + 1])
def test_a_message_may_be_larger_than_a_frame(channel: Any, queue: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    channel.confirm_delivery()
    channel.basic_publish("", queue, body)
    assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_small_frames_carry_large_messages(connect: Connect, queue: str) -> None:
    channel = connect(frame_max=4096).channel()
    channel.confirm_delivery()
    body = bytes(range(256)) * 4000
    channel.basic_publish("", queue, body)
    assert bodies_of(channel, queue, 1) == [body]


def test_a_message_whose_time_is_up_is_not_delivered(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"old", pika.BasicProperties(expiration="0"))
    channel.basic_publish("", queue, b"new")
    assert channel.basic_get(queue, auto_ack=True)[2] == b"new"
    assert channel.basic_get(queue) == (None, None, None)


def test_an_expiration_must_be_a_number(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    assert refusal(channel.basic_publish, "", queue, b"x", pika.BasicProperties(expiration="soon")) == 406


def test_nobody_publishes_in_another_users_name(channel: Any, queue: str) -> None:
    channel.confirm_delivery()
    assert refusal(channel.basic_publish, "", queue, b"x", pika.BasicProperties(user_id="somebody-else")) == 406


# --- Connections and channels --------------------------------------------------------------------------------------


def test_many_channels_work_side_by_side(connect: Connect, queue: str) -> None:
    connection = connect()
    channels = [connection.channel() for _ in range(200)]
    assert len({channel.channel_number for channel in channels}) == 200
    for number, channel in enumerate(channels):
        channel.basic_publish("", queue, b"%d" % number)
    for channel in channels[1:]:
        channel.close()
    assert sorted(bodies_of(channels[0], queue, 200), key=int) == [b"%d" % i for i in range(200)]


def test_a_channel_number_can_be_used_again(connect: Connect, queue: str) -> None:
    connection = connect()
    for _ in range(3):
        channel = connection.channel(7)
        publish(channel, queue, b"x")
        channel.close()
        assert refusal(connection.channel(7).queue_declare, "no-such-queue", passive=True) == 404


def test_a_wrong_password_is_told_as_such(amqp_url: str) -> None:
    parameters = pika.URLParameters(amqp_url)
    parameters.credentials = pika.PlainCredentials(parameters.credentials.username, "wrong")
    with pytest.raises(ProbableAuthenticationError, match="403.*ACCESS_REFUSED"):
        pika.BlockingConnection(parameters)


def test_another_virtual_host_is_refused(amqp_url: str) -> None:
    parameters = pika.URLParameters(amqp_url)
    parameters.virtual_host = "elsewhere"
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker), match="530"):
        pika.BlockingConnection(parameters)


@pytest.mark.parametrize(
    ("frame", "channel", "code"),
    [
        (commands.Queue.Declare(queue="x", passive=True), 5, 504),  # no such channel
        (commands.Channel.Open(), 1, 504),  # open already
        (commands.Basic.Publish(exchange="", routing_key="x", immediate=True), 1, 540),
        (commands.Basic.Qos(prefetch_size=10), 1, 540),
        (commands.Basic.Recover(requeue=False), 1, 540),
        (commands.Channel.Flow(active=False), 1, 540),
        (commands.Connection.Open("/"), 1, 503),
        (commands.Exchange.Declare(exchange="test-never", exchange_type="headless"), 1, 503),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_fault_closes_the_connection_with_its_code(
    amqp_url: str, raw: Any, frame: Any, channel: int, code: int
) -> None:
    client = raw_client(amqp_url, raw)
    client.send(frame, channel)
    if frame.name == "Basic.Publish":
        client.send_bytes(b"\x02\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x00" + bytes(8) + b"\x00\x00\xce")
    (close,) = [value for value in client.read_to_end() if value.name == "Connection.Close"]
    assert close.reply_code == code


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x14\x00", {501}),  # wrong end
        (b"\x09\x00\x01\x00\x00\x00\x00\xce", {501}),  # unknown kind
        (b"\x03\x00\x01\x00\x00\x00\x01x\xce", {505}),  # a body nobody announced
        (b"\x01\x00\x01\xff\xff\xff\xff", {501}),  # larger than agreed
    ],
    ids=["end", "kind", "body", "size"],
)
def test_malformed_frames_close_their_connection_only(
    amqp_url: str, raw: Any, connect: Connect, data: bytes, codes: set[int]
) -> None:
    bystander = connect()
    client = raw_client(amqp_url, raw)
    client.send_bytes(data)
    (close,) = [value for value in client.read_to_end() if value.name == "Connection.Close"]
    assert close.reply_code in codes
    assert bystander.channel().is_open


def test_another_protocol_is_answered_with_ours(amqp_url: str, raw: Any) -> None:
    client = raw(urlsplit(amqp_url).port)
    client.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    channel, value = client.read()
    assert (channel, value.name) == (0, "ProtocolHeader")
    assert client.read() == (0, None)


def raw_client(amqp_url: str, raw: Any) -> Any:
    url = urlsplit(amqp_url)
    return raw(url.port).open(user=url.username, password=url.password, vhost=pika.URLParameters(amqp_url).virtual_host)


# --- aio-pika ------------------------------------------------------------------------------------------------------


def test_aio_pika_publishes_with_confirms_and_consumes_with_prefetch(amqp_url: str, queue: str) -> None:
    async def scenario() -> list[bytes]:
        connection = await aio_pika.connect_robust(amqp_url)
        async with connection:
            channel = await connection.channel(publisher_confirms=True)
            await channel.set_qos(prefetch_count=10)
            declared = await channel.get_queue(queue)
            messages = [aio_pika.Message(b"%d" % i, headers={"n": i}, message_id=str(i)) for i in range(100)]
            await asyncio.gather(*(channel.default_exchange.publish(m, routing_key=queue) for m in messages))
            bodies = []
            async with declared.iterator() as messages_in:
                async for message in messages_in:
                    async with message.process():
                        bodies.append(message.body)
                    assert message.headers == {"n": int(message.body)}
                    if len(bodies) == 100:
                        break
            return bodies

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == [b"%d" % i for i in range(100)]


def test_aio_pika_is_told_of_unroutable_messages_missing_queues_and_wrong_passwords(amqp_url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            with pytest.raises(aio_pika.exceptions.DeliveryError):
                await channel.default_exchange.publish(aio_pika.Message(b"x"), routing_key="nowhere", mandatory=True)
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await channel.declare_queue("no-such-queue", passive=True)
            again = await connection.channel()
            exclusive = await again.declare_queue(exclusive=True)
            await exclusive.bind("amq.fanout")
            await exclusive.delete()
        url = urlsplit(amqp_url)
        wrong = url._replace(netloc=f"{url.username}:wrong@{url.hostname}:{url.port}").geturl()
        with pytest.raises(aio_pika.exceptions.AMQPConnectionError, match="ACCESS_REFUSED"):
            await aio_pika.connect(wrong)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_aio_pika_gives_messages_back(amqp_url: str, queue: str) -> None:
    async def scenario() -> list[tuple[bytes, bool | None]]:
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            declared = await channel.get_queue(queue)
            for body in (b"1", b"2"):
                await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue)
            first = await declared.get()
            await first.reject(requeue=True)
            got = []
            for _ in range(2):
                message = await declared.get()
                got.append((message.body, message.redelivered))
                await message.ack()
            return got

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == [(b"1", True), (b"2", False)]
