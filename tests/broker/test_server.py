"""The embedded broker over real sockets: rights, heartbeats, damage, slow clients, confirms that wait, closing."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    ProbableAuthenticationError,
)

from farcall.broker import Delivery, Properties, QueueDepth

HERE = Path(__file__).parent


def connection_to(embedded: Any, user: str = "admin", **query: Any) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(embedded.url(user, **query)))


def refusal(of: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[int, str]:
    with pytest.raises(ChannelClosedByBroker) as info:
        of(*args, **kwargs)
    return info.value.reply_code, info.value.reply_text


# --- Rights -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(embedded: Any) -> Any:
    embedded.call(embedded.broker.declare_exchange, "results", "topic")
    for name in ("mine", "theirs"):
        embedded.call(embedded.broker.declare_queue, name)
        embedded.call(embedded.broker.bind, name, "results", f"{name}.results")
    return embedded


def test_what_is_not_allowed_is_refused_and_named(guarded: Any) -> None:
    with connection_to(guarded, "reader") as connection:
        for call, args, name in (
            ("queue_declare", ("new",), "queue 'new'"),
            ("queue_declare", ("theirs", True), "queue 'theirs'"),
            ("queue_declare", ("missing", True), "queue 'missing'"),
            ("exchange_declare", ("new",), "exchange 'new'"),
            ("exchange_declare", ("results", "topic", True), "exchange 'results'"),
            ("exchange_delete", ("results",), "exchange 'results'"),
            ("queue_delete", ("mine",), "queue 'mine'"),
            ("queue_purge", ("theirs",), "queue 'theirs'"),
            ("basic_get", ("theirs",), "queue 'theirs'"),
            ("basic_consume", ("theirs", print), "queue 'theirs'"),
            ("queue_bind", ("mine", "results", "#"), "queue 'mine'"),
            ("queue_unbind", ("mine", "results", "#"), "queue 'mine'"),
        ):
            code, text = refusal(getattr(connection.channel(), call), *args)
            assert code == 403
            assert text.startswith(f"ACCESS_REFUSED - access to {name} in vhost '/' refused for user 'reader'"), call
        channel = connection.channel()
        assert channel.queue_declare("mine", passive=True).method.queue == "mine"
        assert channel.basic_get("mine") == (None, None, None)
        channel.queue_purge("mine")
        channel.confirm_delivery()
        assert refusal(channel.basic_publish, "", "mine", b"x")[0] == 403


def test_a_publisher_may_use_only_its_own_exchange_and_key(guarded: Any) -> None:
    with connection_to(guarded, "writer") as connection:
        channel = connection.channel()
        channel.exchange_declare("results", "topic", passive=True)
        channel.queue_declare("mine", passive=True)
        channel.confirm_delivery()
        channel.basic_publish("results", "writer.results", b"x")
        assert refusal(channel.basic_publish, "results", "mine.results", b"x") == (
            403,
            "ACCESS_REFUSED - access to topic 'mine.results' in exchange 'results' in vhost '/' "
            "refused for user 'writer'",
        )
        for exchange, key in (("", "mine"), ("amq.topic", "writer.results"), ("missing", "writer.results")):
            channel = connection.channel()
            channel.confirm_delivery()
            assert refusal(channel.basic_publish, exchange, key, b"x")[0] == 403
        assert refusal(connection.channel().basic_get, "mine")[0] == 403
        assert refusal(connection.channel().queue_bind, "mine", "results", "#")[0] == 403
    assert guarded.call(guarded.broker.queue_depth, "mine").ready == 0


def test_somebody_without_rights_can_do_nothing_but_connect(guarded: Any) -> None:
    with connection_to(guarded, "nobody") as connection:
        for call, args in (("queue_declare", ("mine", True)), ("exchange_declare", ("", "direct", True))):
            assert refusal(getattr(connection.channel(), call), *args)[0] == 403


def test_a_login_that_cannot_be_checked_is_our_fault(embedded: Any) -> None:
    with pytest.raises(AMQPConnectionError, match="541"):
        connection_to(embedded, "broken")
    with pytest.raises(ProbableAuthenticationError, match="403"):
        pika.BlockingConnection(pika.URLParameters(embedded.url("admin", "wrong")))


# --- Heartbeats and lost connections ----------------------------------------------------------------------------------


def watch_consumers(embedded: Any, queue: str, count: int) -> threading.Event:
    """Set when the queue has this many consumers."""
    event = threading.Event()
    embedded.broker.on_consumers_changed = lambda name, now: event.set() if (name, now) == (queue, count) else None
    return event


def test_a_silent_client_is_dropped_and_what_it_held_goes_back(embedded: Any, raw: Any) -> None:
    embedded.call(embedded.broker.declare_queue, "q")
    embedded.call(embedded.broker.publish, "", "q", b"x")
    client = raw(embedded.port).open(heartbeat=1)
    client.send(commands.Basic.Consume(queue="q", exclusive=True))
    client.expect(commands.Basic.ConsumeOk)
    left = watch_consumers(embedded, "q", 0)
    names = [value.name for value in client.read_to_end()]  # ends when the broker drops us
    assert "Heartbeat" in names
    assert "Connection.Close" not in names
    assert left.wait(20)
    assert embedded.call(embedded.broker.queue_depth, "q") == QueueDepth(ready=1, unacked=0, consumers=0)


def test_a_client_that_sends_heartbeats_stays(embedded: Any) -> None:
    with connection_to(embedded, heartbeat=2) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        # Idle for longer than a silent client is kept: until two such, one after the other, have been dropped.
        for _ in range(2):
            dropped = watch_consumers(embedded, "q", 0)
            silent = connection_to(embedded, heartbeat=1)
            silent.channel().basic_consume("q", print)
            waiter = threading.Thread(
                target=lambda event=dropped: event.wait(20) and connection.add_callback_threadsafe(lambda: None)
            )
            waiter.start()
            while not dropped.is_set():
                connection.process_data_events(time_limit=20)
            waiter.join()
            with pytest.raises(pika.exceptions.AMQPError):
                silent.process_data_events(time_limit=20)
        assert channel.queue_declare("q", passive=True).method.consumer_count == 0


def test_the_proposed_heartbeat_is_the_configured_one(make_embedded: Any, raw: Any) -> None:
    embedded = make_embedded(heartbeat_s=17)
    client = raw(embedded.port)
    client.start()
    client.send(commands.Connection.StartOk({}, "PLAIN", "\0admin\0nimda", "en_US"), 0)
    assert client.expect(commands.Connection.Tune).heartbeat == 17


# --- Damage -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=400), greets=st.booleans(), opens=st.booleans(), resets=st.booleans())
def test_random_bytes_close_that_connection_and_disturb_no_other(
    embedded: Any, raw: Any, data: bytes, greets: bool, opens: bool, resets: bool
) -> None:
    bystander = getattr(embedded, "bystander", None)
    if bystander is None:
        bystander = embedded.bystander = raw(embedded.port).open()
    client = raw(embedded.port)
    if opens:
        client.open()
    elif greets:
        client.start()
    client.send_bytes(data)
    if resets:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        client.socket.shutdown(socket.SHUT_WR)
        client.socket.settimeout(20)
        while client.socket.recv(65536):
            pass
    client.close()
    bystander.send(commands.Queue.Declare(queue="amq.gen-none", passive=True))
    assert bystander.expect(commands.Channel.Close).reply_code == 404
    bystander.send(commands.Channel.CloseOk())
    bystander.send(commands.Channel.Open())
    bystander.expect(commands.Channel.OpenOk)


# --- Slow clients -----------------------------------------------------------------------------------------------------


def test_a_consumer_that_does_not_read_costs_a_bounded_amount_of_memory(embedded: Any, raw: Any) -> None:
    embedded.call(embedded.broker.declare_queue, "q")
    client = raw(embedded.port)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
    client.open()
    client.send(commands.Basic.Consume(queue="q"))
    client.expect(commands.Basic.ConsumeOk)
    count, body = 20_000, b"x" * 4096

    def publish() -> None:
        for _ in range(count):
            embedded.broker.publish("", "q", body)

    embedded.call(publish)
    # Another client's whole conversation lies between: everything that can be written by now, is.
    with connection_to(embedded) as connection:
        depth = connection.channel().queue_declare("q", passive=True).method.message_count
    own = "{}:{}".format(*client.socket.getsockname())
    (session,) = [session for session in embedded.server._sessions if session.connection._peer == own]
    waiting = session._transport.get_write_buffer_size() + session.connection._out_bytes
    assert waiting < 1_200_000
    assert depth > count // 2
    got = 0
    while got < count:
        _, value = client.read()
        got += value.name == "Basic.Deliver"
    assert embedded.call(embedded.broker.queue_depth, "q").ready == 0


# --- Confirms that wait -----------------------------------------------------------------------------------------------


def test_a_pika_publisher_is_confirmed_when_the_service_has_acknowledged(embedded: Any) -> None:
    broker = embedded.broker
    stored: list[bytes] = []

    def start() -> None:
        broker.declare_exchange("results", "topic")
        broker.declare_queue("results", confirm_on="ack")
        broker.bind("results", "results", "*.results")

        def on_messages(batch: Sequence[Delivery]) -> None:
            stored.extend(delivery.body for delivery in batch)
            embedded.loop.call_soon(consumer.ack, *[delivery.tag for delivery in batch])

        consumer = broker.consume("results", on_messages, prefetch=10)

    embedded.call(start)
    with connection_to(embedded) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for number in range(20):
            channel.basic_publish("results", "a.results", b"%d" % number, pika.BasicProperties(delivery_mode=2))
            assert stored[-1] == b"%d" % number  # confirmed, so it was acknowledged


def test_a_pika_publisher_keeps_what_the_service_refuses(embedded: Any) -> None:
    broker = embedded.broker

    def start() -> None:
        broker.declare_queue("results", confirm_on="ack")
        consumer = broker.consume("results", lambda batch: consumer.nack(batch[0].tag, requeue=False))

    embedded.call(start)
    with connection_to(embedded) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(NackError):
            channel.basic_publish("", "results", b"x")


def test_a_publisher_is_told_when_the_queue_goes_with_its_unacknowledged_messages(embedded: Any, raw: Any) -> None:
    embedded.call(embedded.broker.declare_queue, "results", confirm_on="ack")
    client = raw(embedded.port).open()
    client.send(commands.Confirm.Select())
    client.expect(commands.Confirm.SelectOk)
    for _ in range(2):
        client.publish("", "results", b"x" * 300_000)
    client.send(commands.Basic.Get(queue="results"))
    client.expect(commands.Basic.GetOk)
    embedded.call(embedded.broker.delete_queue, "results")
    while (value := client.read()[1]).name.startswith("Content"):
        pass
    assert (value.name, value.delivery_tag) == ("Basic.Nack", 2)
    client.send(commands.Basic.Ack(1))  # the first was in our hands, and is done
    value = client.expect(commands.Basic.Ack)
    assert (value.delivery_tag, value.multiple) == (1, False)


def test_a_flood_of_unacknowledged_messages_is_held_back_at_the_socket(make_embedded: Any, raw: Any) -> None:
    embedded = make_embedded(held_bytes_max=1_000_000)
    broker = embedded.broker
    count = 200
    depths: list[int] = []
    all_done = threading.Event()

    def start() -> None:
        broker.declare_queue("results", confirm_on="ack")

        def acknowledge(delivery: Delivery, turns: int) -> None:
            if turns:  # meanwhile the broker reads what it is willing to read
                embedded.loop.call_soon(acknowledge, delivery, turns - 1)
                return
            depth = broker.queue_depth("results")
            depths.append(depth.ready + depth.unacked)
            consumer.ack(delivery.tag)
            if len(depths) == count:
                all_done.set()

        consumer = broker.consume("results", lambda batch: acknowledge(batch[0], 20), prefetch=1)

    embedded.call(start)
    client = raw(embedded.port).open()
    for _ in range(count):
        client.publish("", "results", b"x" * 100_000)  # without waiting for anything
    assert all_done.wait(60)
    assert 10 <= max(depths) <= 12


# --- In and out of the process ---------------------------------------------------------------------------------------


def test_what_the_service_publishes_reaches_a_pika_consumer_with_its_properties(embedded: Any) -> None:
    embedded.call(embedded.broker.declare_exchange, "tasks", "direct")
    embedded.call(embedded.broker.declare_queue, "a.tasks")
    embedded.call(embedded.broker.bind, "a.tasks", "tasks", "a.tasks")
    headers = {"task_uuid": "1", "function_uuid": "2", "result_serializers": ["x.Y", "x.Z"], "n": 2**33}
    properties = Properties(headers=headers, delivery_mode=2, timestamp=1_700_000_000, expiration="90000")
    embedded.call(embedded.broker.publish, "tasks", "a.tasks", b"task", properties)
    with connection_to(embedded) as connection:
        method, got, body = connection.channel().basic_get("a.tasks", auto_ack=True)
    assert (method.exchange, method.routing_key, body) == ("tasks", "a.tasks", b"task")
    assert (got.headers, got.delivery_mode, got.timestamp, got.expiration) == (headers, 2, 1_700_000_000, "90000")


def test_the_service_sees_who_is_connected_and_cuts_whom_it_wants(embedded: Any) -> None:
    kept, cut = connection_to(embedded), connection_to(embedded, "reader")
    kept.channel()
    infos = embedded.call(embedded.broker.connections)
    assert [(info.principal_name, info.channels) for info in infos] == [("admin", 1), ("reader", 0)]
    assert infos[0].peer.startswith("127.0.0.1:")
    assert "Pika" in infos[0].client_properties["product"]
    assert embedded.call(embedded.broker.close_connections, lambda who: who.name == "reader", "revoked") == 1
    with pytest.raises(ConnectionClosedByBroker) as info:
        cut.channel()
    assert (info.value.reply_code, info.value.reply_text) == (320, "CONNECTION_FORCED - revoked")
    assert kept.channel().is_open
    kept.close()


def test_a_closing_server_tells_its_clients_to_come_again(make_embedded: Any, raw: Any) -> None:
    embedded = make_embedded()
    connection = connection_to(embedded)
    lingering = raw(embedded.port)  # has not said a word
    answered: list[Any] = []

    def wait() -> None:
        try:
            connection.process_data_events(time_limit=20)
        except ConnectionClosedByBroker as error:
            answered.append(error.reply_code)

    thread = threading.Thread(target=wait)
    thread.start()
    port = embedded.port
    embedded.wait(embedded.server.close())
    thread.join(20)
    assert answered == [320]
    assert lingering.read() == (0, None)
    assert embedded.broker.stats().connections == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_client_that_does_not_answer_a_close_is_cut(embedded: Any, raw: Any) -> None:
    client = raw(embedded.port).open()
    embedded.call(embedded.broker.close_connections, lambda _who: True, "away")
    client.expect(commands.Connection.Close)
    assert client.read() == (0, None)  # after a few seconds, though we said nothing


def test_it_speaks_tls(make_embedded: Any) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(HERE / "localhost.pem")
    embedded = make_embedded(ssl=server)
    client = ssl.create_default_context(cafile=str(HERE / "localhost.pem"))
    parameters = pika.URLParameters(embedded.url())
    parameters.host = "localhost"
    parameters.ssl_options = pika.SSLOptions(client, "localhost")
    body = bytes(range(256)) * 20_000
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.confirm_delivery()
        channel.basic_publish("", "q", body)
        assert channel.basic_get("q", auto_ack=True)[2] == body
    plain = pika.URLParameters(embedded.url())
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(plain)
