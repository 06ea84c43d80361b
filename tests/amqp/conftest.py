"""Brokers to test against (`site`: in memory, embedded, RabbitMQ), a relay that can be cut, a recorder of events."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # pytest's importlib mode leaves it out

from farcall.amqp import AmqpConnection, Backoff, Connection, Event
from farcall.amqp.memory import MemoryBroker
from farcall.broker import Broker, BrokerServer, serve
from rabbitmq_server import rabbitmq_server

WAIT_S = 30
QUICK = Backoff(first_s=0.01, ceiling_s=0.05)


class Recorder:
    """An `on_event`, or any other callback of one argument, that a test can wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.all: list[Any] = []
        self._taken = 0

    def __call__(self, event: Any) -> None:
        with self._changed:
            self.all.append(event)
            self._changed.notify_all()

    def extend(self, items: list[Any]) -> None:
        with self._changed:
            self.all.extend(items)
            self._changed.notify_all()

    def wait(self, kind: type, where: Callable[[Any], bool] = lambda event: True, **attributes: Any) -> Any:
        """The next event of this kind, after those that were waited for before."""

        def find() -> Event | None:
            for index in range(self._taken, len(self.all)):
                event = self.all[index]
                fits = isinstance(event, kind) and all(getattr(event, k) == v for k, v in attributes.items())
                if fits and where(event):
                    self._taken = index + 1
                    return event
            return None

        with self._changed:
            found = self._changed.wait_for(find, WAIT_S)
            assert found is not None, f"no {kind.__name__} {attributes} in {self.all[self._taken :]}"
            return found

    def wait_count(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, WAIT_S), f"{len(self.all)} of {count}"
            return list(self.all)


class Relay:
    """Loopback TCP relay in front of a broker. It can lose what passes, cut what is open, and refuse what comes."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lost = {"requests": -1, "replies": -1}
        """Bytes lost so far in each direction; -1: nothing is being lost."""
        self._refuses = False
        self.client_ends = threading.Semaphore(0)
        """Released each time a client's side ends."""
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    def lose(self, direction: str) -> None:
        with self._lock:
            self._lost[direction] = 0

    def wait_lost(self, direction: str) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: self._lost[direction] > 0, WAIT_S)

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
            for pair in pairs:
                for sock in pair:
                    # An abrupt end, as when a machine or a network vanishes: reset, and nothing flushed.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    sock.close()
            self._lost = {"requests": -1, "replies": -1}

    def refuse(self, on: bool) -> None:
        with self._lock:
            self._refuses = on

    def lead_to(self, port: int) -> None:
        """Where new connections go."""
        self._target = ("127.0.0.1", port)

    def inject(self, data: bytes) -> None:
        """Say this to the clients, in the broker's name."""
        with self._lock:
            for client, _ in self._pairs:
                client.sendall(data)

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                if self._refuses:
                    client.close()
                    continue
                broker = socket.create_connection(self._target)
                for sock in (client, broker):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs.append((client, broker))
            for source, sink, direction in ((client, broker, "requests"), (broker, client, "replies")):
                threading.Thread(target=self._pump, args=(source, sink, direction), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    lost = self._lost[direction] >= 0
                    if lost:
                        self._lost[direction] += len(data)
                        self._lock.notify_all()
                if not lost:
                    sink.sendall(data)
        except OSError:
            pass
        if direction == "requests":
            self.client_ends.release()
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Site:
    """One broker, as the contract suite needs it. Names are made unique, because RabbitMQ lives longer than a test."""

    kind = ""
    url = ""
    wrong_url = ""

    def __init__(self) -> None:
        self._connections: list[Connection] = []
        self._suffix = uuid.uuid4().hex[:8]

    def name(self, stem: str) -> str:
        return f"{stem}.{self._suffix}"

    def connect(
        self, url: str | Callable[[], str] | None = None, *, on_event: Any = None, **options: Any
    ) -> Connection:
        """A started connection, closed at the end of the test."""
        options.setdefault("backoff", QUICK)
        connection = self.make(url or self.url, name="contract", on_event=on_event, **options)
        self._connections.append(connection)
        connection.start()
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def make(self, url: str | Callable[[], str], **options: Any) -> Connection:
        raise NotImplementedError

    def exchange(self, name: str, kind: str = "direct") -> None:
        raise NotImplementedError

    def queue(self, name: str) -> None:
        raise NotImplementedError

    def bind(self, queue: str, exchange: str, key: str) -> None:
        raise NotImplementedError

    def delete_exchange(self, name: str) -> None:
        raise NotImplementedError

    def delete_queue(self, name: str) -> None:
        raise NotImplementedError

    def put(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        """Messages from the other side."""
        raise NotImplementedError

    def take(self, queue: str, count: int) -> list[Any]:
        """Wait for messages and remove them, as the other side: objects with `body` and `headers`."""
        raise NotImplementedError

    def bodies(self, queue: str, count: int) -> list[bytes]:
        return [message.body for message in self.take(queue, count)]

    def depth(self, queue: str) -> int:
        """Messages that wait and are with no consumer."""
        raise NotImplementedError

    def cut(self) -> None:
        """Drop all connections abruptly."""
        raise NotImplementedError

    def refuse(self, on: bool) -> None:
        """Whether nobody answers new connections."""
        raise NotImplementedError

    def lose(self, direction: str) -> None:
        """From now on, "requests" to the broker or "replies" from it are lost, until `cut`."""
        raise NotImplementedError

    def wait_lost(self, direction: str) -> None:
        """Until something was."""


class MemorySite(Site):
    kind = "memory"
    url = "amqp://user:secret@memory/%2F"
    wrong_url = "amqp://user:wrong@memory/%2F"

    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker()
        self.broker.accepts = lambda user, password: password == "secret"

    def make(self, url: str | Callable[[], str], **options: Any) -> Connection:
        return self.broker.connection(url, **options)

    def exchange(self, name: str, kind: Any = "direct") -> None:
        self.broker.declare_exchange(name, kind)

    def queue(self, name: str) -> None:
        self.broker.declare_queue(name)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        self.broker.bind(queue, exchange, key)

    def delete_exchange(self, name: str) -> None:
        self.broker.delete_exchange(name)

    def delete_queue(self, name: str) -> None:
        self.broker.delete_queue(name)

    def put(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        for body in bodies:
            self.broker.publish("", queue, body, **properties)

    def take(self, queue: str, count: int) -> list[Any]:
        return [self.broker.take(queue, WAIT_S) for _ in range(count)]

    def depth(self, queue: str) -> int:
        return len(self.broker.bodies(queue))

    def cut(self) -> None:
        self.broker.drop_connections()
        self.broker.swallow_publishes(False)
        self.broker.release_confirms()

    def refuse(self, on: bool) -> None:
        if on:
            self.broker.stop()
        else:
            self.broker.start()

    def lose(self, direction: str) -> None:
        if direction == "requests":
            self.broker.swallow_publishes()
        else:
            self.broker.hold_confirms()

    def wait_lost(self, direction: str) -> None:
        if direction == "requests":
            self.broker.wait_swallowed()
        else:
            self.broker.wait_held()


@dataclass
class Got:
    body: bytes
    headers: dict[str, Any]
    properties: pika.BasicProperties


class TcpSite(Site):
    """A real broker behind a relay; the other side is a plain blocking connection that goes past the relay."""

    def __init__(self, direct_url: str, wrong_password_url: str) -> None:
        super().__init__()
        parts = urlsplit(direct_url)
        assert parts.port is not None
        self.relay = Relay(parts.port)
        self.url = direct_url.replace(f":{parts.port}", f":{self.relay.port}")
        self.wrong_url = wrong_password_url.replace(f":{parts.port}", f":{self.relay.port}")
        self._admin = pika.BlockingConnection(pika.URLParameters(direct_url))
        self._channel = self._admin.channel()
        self._channel.basic_qos(prefetch_count=1)
        self._queues: set[str] = set()
        self._exchanges: set[str] = set()

    def make(self, url: str | Callable[[], str], **options: Any) -> Connection:
        return AmqpConnection(url, **options)

    def exchange(self, name: str, kind: str = "direct") -> None:
        self._channel.exchange_declare(name, kind, durable=True)
        self._exchanges.add(name)

    def queue(self, name: str) -> None:
        self._channel.queue_declare(name, durable=True)
        self._queues.add(name)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        self._channel.queue_bind(queue, exchange, key)

    def delete_exchange(self, name: str) -> None:
        self._channel.exchange_delete(name)
        self._exchanges.discard(name)

    def delete_queue(self, name: str) -> None:
        self._channel.queue_delete(name)
        self._queues.discard(name)

    def put(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        for body in bodies:
            self._channel.basic_publish("", queue, body, pika.BasicProperties(**properties))

    def take(self, queue: str, count: int) -> list[Any]:
        got: list[Got] = []
        for method, properties, body in self._channel.consume(queue, inactivity_timeout=WAIT_S):
            assert method is not None, f"only {len(got)} of {count} messages came to {queue}"
            self._channel.basic_ack(method.delivery_tag)
            got.append(Got(body, properties.headers or {}, properties))
            if len(got) == count:
                break
        self._channel.cancel()
        return got

    def depth(self, queue: str) -> int:
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def cut(self) -> None:
        self.relay.cut()

    def refuse(self, on: bool) -> None:
        self.relay.refuse(on)
        if on:
            self.relay.cut()

    def lose(self, direction: str) -> None:
        self.relay.lose(direction)

    def wait_lost(self, direction: str) -> None:
        self.relay.wait_lost(direction)

    def close(self) -> None:
        super().close()
        for queue in list(self._queues):
            self.delete_queue(queue)
        for exchange in list(self._exchanges):
            self.delete_exchange(exchange)
        self._admin.close()
        self.relay.close()


@dataclass(frozen=True)
class Principal:
    name: str


class Everybody:
    """An authority that lets whoever knows the password do everything."""

    async def authenticate(self, username: str, password: str) -> Principal | None:
        return Principal(username) if password == "secret" else None

    def allows(self, principal: Principal, action: str, resource: str, name: str) -> bool:
        return True

    def allows_routing_key(self, principal: Principal, exchange: str, routing_key: str) -> bool:
        return True


class Embedded:
    """The service's own broker, on an event loop in a thread."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="broker", daemon=True)
        self._thread.start()
        self.broker: Broker = self.call(Broker)
        self.server: BrokerServer = self._wait(serve(self.broker, Everybody(), "127.0.0.1", 0, **options))
        self.url = f"amqp://user:secret@127.0.0.1:{self.server.port}/%2F?heartbeat=30"

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            return function(*args, **kwargs)

        return self._wait(run())

    def close(self) -> None:
        if self.loop.is_closed():
            return
        self._wait(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    broker = Embedded()
    yield broker
    broker.close()


@pytest.fixture
def embedded_with(request: pytest.FixtureRequest) -> Callable[..., Embedded]:
    """Makes embedded brokers of the test's own."""

    def make(**options: Any) -> Embedded:
        broker = Embedded(**options)
        request.addfinalizer(broker.close)
        return broker

    return make


@pytest.fixture
def relay_to(request: pytest.FixtureRequest) -> Callable[[int], Relay]:
    def make(port: int) -> Relay:
        relay = Relay(port)
        request.addfinalizer(relay.close)
        return relay

    return make


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """FARCALL_TEST_RABBITMQ_URL (amqp://user:password@host:port/vhost), or a server of our own."""
    given = os.environ.get("FARCALL_TEST_RABBITMQ_URL")
    if given is not None:
        yield given
        return
    with rabbitmq_server() as server:
        yield server.url


@pytest.fixture(params=["memory", "embedded", "rabbitmq"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    made: Site
    if request.param == "memory":
        made = MemorySite()
    elif request.param == "embedded":
        url = request.getfixturevalue("embedded").url
        made = TcpSite(url, url.replace("secret", "wrong"))
    else:
        url = request.getfixturevalue("rabbitmq_url")
        made = TcpSite(url, url.replace(f":{urlsplit(url).password}@", ":wrong@"))
    yield made
    made.close()


@pytest.fixture
def events() -> Recorder:
    return Recorder()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
