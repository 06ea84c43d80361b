"""What only a real broker and a real socket can show; the rest is in test_contract.py."""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pika import frame, spec

from farcall.amqp import (
    AmqpConnection,
    Backoff,
    Connected,
    ConnectFailed,
    ConsumerLost,
    ConsumerReady,
    CredentialRefused,
    Disconnected,
)
from farcall.tls import Trust

WAIT_S = 30
QUICK = Backoff(first_s=0.01, ceiling_s=0.05)
TLS = Path(__file__).parent / "tls"


@pytest.fixture
def relay(embedded: Any, relay_to: Any) -> Any:
    return relay_to(embedded.server.port)


@pytest.fixture
def connect(request: pytest.FixtureRequest, events: Any) -> Any:
    def make(url: str, **options: Any) -> AmqpConnection:
        options.setdefault("backoff", QUICK)
        connection = AmqpConnection(url, name="pika", on_event=events, **options)
        request.addfinalizer(connection.close)
        connection.start()
        return connection

    return make


def serve_once(script: Any) -> int:
    """A listener that treats each client as `script` says; returns its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            client, _ = server.accept()
            with client:
                script(client)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def test_a_login_that_breaks_off_is_tried_again_and_not_taken_for_a_refusal(connect, events) -> None:
    start = spec.Connection.Start(0, 9, {"capabilities": {}}, "PLAIN", "en_US")

    def break_off_after_the_password(client: socket.socket) -> None:
        client.recv(8)
        client.sendall(frame.Method(0, start).marshal())
        client.recv(4096)

    connect(f"amqp://user:secret@127.0.0.1:{serve_once(break_off_after_the_password)}/")
    events.wait(ConnectFailed, attempt=3)
    assert not [event for event in events.all if isinstance(event, CredentialRefused)]


@pytest.mark.parametrize(
    ("code", "text", "is_final"),
    [
        (530, "NOT_ALLOWED - vhost x not found", True),
        (530, "NOT_ALLOWED - access to vhost '/' refused: connection limit (10) is reached", False),
        (541, "INTERNAL_ERROR", False),
    ],
)
def test_only_a_refusal_that_will_be_repeated_ends_the_connection(connect, events, code, text, is_final) -> None:
    start = spec.Connection.Start(0, 9, {"capabilities": {}}, "PLAIN", "en_US")

    def refuse_the_vhost(client: socket.socket) -> None:
        client.recv(8)
        client.sendall(frame.Method(0, start).marshal())
        client.recv(4096)
        client.sendall(frame.Method(0, spec.Connection.Tune(100, 131072, 0)).marshal())
        client.recv(4096)
        client.sendall(frame.Method(0, spec.Connection.Close(code, text, 10, 40)).marshal())
        client.recv(4096)

    connect(f"amqp://user:secret@127.0.0.1:{serve_once(refuse_the_vhost)}/")
    event = events.wait(CredentialRefused if is_final else ConnectFailed)
    assert event.reason == f"{code} {text}"


def test_a_listener_that_says_nothing_or_nonsense_is_a_failed_attempt(connect, events) -> None:
    hold = threading.Event()
    connect(f"amqp://127.0.0.1:{serve_once(lambda client: hold.wait(WAIT_S))}/", connect_timeout_s=0.1)
    assert events.wait(ConnectFailed).reason == "no answer in time"
    hold.set()
    connect(f"amqp://127.0.0.1:{serve_once(lambda client: client.sendall(b'HTTP/1.1 400 Bad Request'))}/")
    events.wait(ConnectFailed)


def test_reasons_are_readable_and_hold_no_password(connect, events) -> None:
    with socket.socket() as taken:  # bound, so that it is nobody else's, and not listening
        taken.bind(("127.0.0.1", 0))
        connect(f"amqp://user:hunter2@127.0.0.1:{taken.getsockname()[1]}/")
        events.wait(ConnectFailed, where=lambda event: "Connection refused" in event.reason)
    connect("http://user:hunter2@127.0.0.1/")
    events.wait(ConnectFailed, where=lambda event: "begins with amqp://" in event.reason)
    connect("amqp://user:hunter2@127.0.0.1:port/")
    events.wait(ConnectFailed, where=lambda event: "ort" in event.reason and "ValueError" in event.reason)
    assert "hunter2" not in repr(events.all)


def test_a_refused_login_is_told_in_the_brokers_words(embedded, connect, events) -> None:
    connect(embedded.url.replace("secret", "wrong"))
    assert events.wait(CredentialRefused).reason.startswith("403 ACCESS_REFUSED")


def test_the_port_can_be_replaced(embedded, connect, events) -> None:
    connect(embedded.url.replace(str(embedded.server.port), "1"), port=embedded.server.port)
    events.wait(Connected)


def test_tls_with_a_certificate_authority_of_the_sites_own(embedded_with, connect, events) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    broker = embedded_with(ssl=server_side)
    broker.call(broker.broker.declare_queue, "q")
    url = broker.url.replace("amqp://", "amqps://").replace("127.0.0.1", "localhost")
    connect(url)
    assert "an authority that is not among the certificate authorities" in events.wait(ConnectFailed).reason
    connection = connect(url, trust=Trust(path=str(TLS / "ca.pem")))
    publisher = connection.publisher("")
    got: list[bytes] = []
    is_done = threading.Event()

    def on_messages(deliveries: Any) -> None:
        got.extend(delivery.body for delivery in deliveries)
        if len(got) == 300:
            is_done.set()

    connection.consume("q", on_messages)
    bodies = [os.urandom(size) for size in [10_000] * 299 + [2_000_000]]
    for body in bodies:
        publisher.publish(body, {"routing_key": "q"})
    assert is_done.wait(WAIT_S)
    assert got == bodies


def test_a_restart_of_the_service_goes_unnoticed_but_for_the_events(embedded_with, relay_to, connect, events) -> None:
    old = embedded_with()
    relay = relay_to(old.server.port)
    old.call(old.broker.declare_queue, "q")
    connection = connect(old.url.replace(str(old.server.port), str(relay.port)))
    publisher = connection.publisher("")
    publisher.publish(b"x", {"routing_key": "q", "mandatory": True})
    assert publisher.wait_confirmed(WAIT_S)
    new = embedded_with()
    new.call(new.broker.declare_queue, "q")
    relay.lead_to(new.server.port)
    old.close()
    assert "320 CONNECTION_FORCED" in events.wait(Disconnected).reason
    publisher.publish(b"y", {"routing_key": "q", "mandatory": True})
    assert publisher.wait_confirmed(WAIT_S)
    assert new.call(new.broker.queue_depth, "q").ready == 1


def test_a_confirm_that_means_stored_comes_only_when_the_message_was_taken(embedded, connect, recorder) -> None:
    embedded.call(embedded.broker.declare_queue, "stored", confirm_on="ack")
    publisher = connect(embedded.url).publisher("", "stored")
    for number in range(3):
        publisher.publish(b"%d" % number, {"routing_key": "stored", "mandatory": True}, recorder)
    publisher.publish(b"", {"routing_key": "nowhere", "mandatory": True}, recorder)
    assert recorder.wait_count(1) == [False], "the last one: it was returned while the others wait"
    tags: list[int] = []
    came = threading.Event()

    def on_messages(deliveries: Any) -> None:
        tags.extend(delivery.tag for delivery in deliveries)
        if len(tags) == 3:
            came.set()

    consumer = embedded.call(embedded.broker.consume, "stored", on_messages)
    assert came.wait(WAIT_S)
    assert publisher.pending == 3
    embedded.call(consumer.nack, tags[0], requeue=False)
    embedded.call(consumer.ack, *tags[1:])
    assert sorted(recorder.wait_count(4)) == [False, False, True, True]


def test_a_consumer_beyond_the_channels_of_a_connection_waits_for_one_to_be_free(embedded, connect, events) -> None:
    embedded.call(embedded.broker.declare_queue, "crowded")
    connection = connect(embedded.url)
    consumers = [connection.consume("crowded", lambda deliveries: None) for _ in range(2047)]
    for _ in consumers:
        events.wait(ConsumerReady)
    late = connection.consume("crowded", lambda deliveries: None)
    assert "channels" in events.wait(ConsumerLost, code=0).reason
    consumers[0].cancel()
    events.wait(ConsumerReady)
    assert late.is_ready


def test_nonsense_from_the_broker_costs_only_the_connection(embedded, relay, connect, events) -> None:
    connect(embedded.url.replace(str(embedded.server.port), str(relay.port)))
    events.wait(Connected)
    relay.inject(b"\x01\x00\x00\x00\x00\x00\x04oops\x00")  # a frame without its end
    events.wait(Disconnected)
    events.wait(Connected, count=2)


def test_an_unforeseen_error_costs_only_the_connection(embedded, connect, events, caplog) -> None:
    connection = connect(embedded.url)
    events.wait(Connected)
    connection.post(lambda: 1 / 0)
    assert "ZeroDivisionError" in events.wait(Disconnected).reason
    events.wait(Connected, count=2)
    assert [record.levelname for record in caplog.records if getattr(record, "event", "") == "amqp.crashed"] == [
        "ERROR"
    ]


def test_pika_is_silent_on_our_threads_unless_we_are_debugged(embedded, relay, connect, events, caplog) -> None:
    url = embedded.url.replace(str(embedded.server.port), str(relay.port))
    connect(url)
    events.wait(Connected)
    relay.cut()
    events.wait(Connected, count=2)
    assert [record for record in caplog.records if record.name.startswith("pika")] == []
    caplog.set_level(logging.DEBUG, logger="farcall.amqp.pika_link")
    relay.cut()
    events.wait(Connected, count=3)
    assert [record for record in caplog.records if record.name.startswith("pika")]
    logging.getLogger("pika.connection").error("somebody else's")
    assert caplog.records[-1].getMessage() == "somebody else's"


KILLED = """
import os, sys, threading
from farcall.amqp import AmqpConnection
connection = AmqpConnection(sys.argv[1], name="killed")
connection.start()
assert connection.wait_connected(30)
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
    threading.Event().wait()
threading.Event().wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_does_not_hold_the_connection_of_its_killed_parent(embedded, relay) -> None:
    url = embedded.url.replace(str(embedded.server.port), str(relay.port))
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED, url], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait(WAIT_S)
        assert relay.client_ends.acquire(timeout=WAIT_S)
    finally:
        os.kill(child_pid, signal.SIGKILL)
        parent.stdout.close()


def test_importing_the_part_does_not_import_pika() -> None:
    script = "import sys, farcall.amqp, farcall.amqp.memory; sys.exit('pika' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
