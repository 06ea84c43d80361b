"""A broker on an event loop of its own thread, an authority with a few users, and raw AMQP clients."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pika
import pytest
from pamqp import commands, frame
from pamqp.header import ContentHeader, ProtocolHeader

from farcall.broker import Broker, BrokerServer, serve

T = TypeVar("T")
WAIT_S = 20


@dataclass(frozen=True)
class User:
    name: str
    may: Callable[[str, str, str], bool]
    may_key: Callable[[str, str], bool]


USERS = {
    "admin": User("admin", lambda *_: True, lambda *_: True),
    "nobody": User("nobody", lambda *_: False, lambda *_: False),
    "reader": User(
        "reader", lambda action, kind, name: (action, kind, name) == ("read", "queue", "mine"), lambda *_: True
    ),
    "writer": User(
        "writer",
        lambda action, _kind, name: action == "write" and name in ("results", "mine"),
        lambda exchange, key: (exchange, key) == ("results", "writer.results"),
    ),
}


class Rules:
    """An `Authority`: password is the name backwards; `slow` holds logins back until it is set."""

    async def authenticate(self, username: str, password: str) -> User | None:
        if username == "broken":
            raise RuntimeError("no database")
        return USERS.get(username) if password == username[::-1] else None

    def allows(self, principal: User, action: str, resource: str, name: str) -> bool:
        return principal.may(action, resource, name)

    def allows_routing_key(self, principal: User, exchange: str, routing_key: str) -> bool:
        return principal.may_key(exchange, routing_key)


class Embedded:
    """The broker under test. `call` runs a function on its loop and waits for what it returns."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, **options: Any) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="broker", daemon=True)
        self._thread.start()
        self.broker: Broker = self.call(Broker)
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.server: BrokerServer = self.wait(serve(self.broker, Rules(), "127.0.0.1", 0, **options))
        self.port = self.server.port

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        async def run() -> T:
            return function(*args, **kwargs)

        return self.wait(run())

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def url(self, user: str = "admin", password: str | None = None, **query: Any) -> str:
        options = "&".join(f"{key}={value}" for key, value in query.items())
        return f"amqp://{user}:{password or user[::-1]}@127.0.0.1:{self.port}/%2F?{options}"

    def close(self) -> None:
        self.wait(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()


class RawClient:
    """AMQP frames by hand over a socket, for what no library would send."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self._buffer = b""

    def open(
        self,
        *,
        heartbeat: int = 0,
        user: str = "admin",
        password: str | None = None,
        vhost: str = "/",
        channels: int = 1,
        capabilities: Any = None,
    ) -> RawClient:
        self.start()
        properties = {"capabilities": {"authentication_failure_close": True} if capabilities is None else capabilities}
        self.send(commands.Connection.StartOk(properties, "PLAIN", f"\0{user}\0{password or user[::-1]}", "en_US"), 0)
        self.expect(commands.Connection.Tune)
        self.send(commands.Connection.TuneOk(2047, 131072, heartbeat), 0)
        self.send(commands.Connection.Open(vhost), 0)
        self.expect(commands.Connection.OpenOk)
        for channel in range(1, channels + 1):
            self.send(commands.Channel.Open(), channel)
            self.expect(commands.Channel.OpenOk)
        return self

    def start(self) -> None:
        self.socket.sendall(ProtocolHeader(0, 9, 1).marshal())
        self.expect(commands.Connection.Start)

    def send(self, value: Any, channel: int = 1) -> None:
        self.socket.sendall(frame.marshal(value, channel))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def publish(self, exchange: str, key: str, body: bytes, channel: int = 1, **properties: Any) -> None:
        header = ContentHeader(body_size=len(body), properties=commands.Basic.Properties(**properties))
        self.send_bytes(
            frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=key), channel)
            + frame.marshal(header, channel)
            + b"".join(
                b"\x03" + channel.to_bytes(2, "big") + len(part).to_bytes(4, "big") + part + b"\xce"
                for part in (body[at : at + 100_000] for at in range(0, len(body), 100_000))
            )
        )

    def read(self) -> tuple[int, Any]:
        """The next frame and its channel; (0, None) at the end of the connection."""
        while True:
            if len(self._buffer) >= 7:
                size = 8 if self._buffer.startswith(b"AMQP") else int.from_bytes(self._buffer[3:7], "big") + 8
                if len(self._buffer) >= size:
                    _, channel, value = frame.unmarshal(self._buffer[:size])
                    self._buffer = self._buffer[size:]
                    return channel, value
            try:
                data = self.socket.recv(262144)
            except ConnectionResetError:
                data = b""
            if not data:
                return 0, None
            self._buffer += data

    def expect(self, kind: type) -> Any:
        """The next frame that is no heartbeat; it must be of this kind."""
        while True:
            _, value = self.read()
            if value is None or value.name != "Heartbeat":
                assert isinstance(value, kind), value
                return value

    def read_to_end(self) -> list[Any]:
        """All frames until the broker ends the connection; answers its connection.close."""
        values = []
        while True:
            _, value = self.read()
            if value is None:
                return values
            values.append(value)
            if isinstance(value, commands.Connection.Close):
                try:
                    self.send(commands.Connection.CloseOk(), 0)
                except OSError:
                    pass

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def embedded(make_embedded: Callable[..., Embedded]) -> Embedded:
    return make_embedded()


@pytest.fixture
def make_embedded() -> Iterator[Callable[..., Embedded]]:
    """Brokers with options of their own."""
    made: list[Embedded] = []

    def make(loop: asyncio.AbstractEventLoop | None = None, **options: Any) -> Embedded:
        made.append(Embedded(loop, **options))
        return made[-1]

    yield make
    for broker in made:
        broker.close()
        assert broker.errors == []


@pytest.fixture
def raw() -> Iterator[Callable[[int], RawClient]]:
    clients: list[RawClient] = []

    def connect(port: int) -> RawClient:
        clients.append(RawClient(port))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


RABBITMQ_URL = os.environ.get("FARCALL_TEST_RABBITMQ_URL")
"""URL of a user with every permission on a virtual host; then the contract suite runs against it as well."""


@pytest.fixture(params=["embedded", "embedded-uvloop", *(["rabbitmq"] if RABBITMQ_URL else [])])
def amqp_url(request: pytest.FixtureRequest, make_embedded: Callable[..., Embedded]) -> str:
    """A broker to hold to the contract, as the URL of a user who may do anything."""
    if request.param == "rabbitmq":
        assert RABBITMQ_URL is not None
        return RABBITMQ_URL
    if request.param == "embedded":
        return make_embedded().url()
    return make_embedded(pytest.importorskip("uvloop").new_event_loop()).url()


@pytest.fixture
def connect(amqp_url: str) -> Iterator[Callable[..., pika.BlockingConnection]]:
    """Opens pika connections to that broker; closed at the end."""
    made: list[pika.BlockingConnection] = []

    def open_connection(**changes: Any) -> pika.BlockingConnection:
        parameters = pika.URLParameters(amqp_url)
        for key, value in changes.items():
            setattr(parameters, key, value)
        made.append(pika.BlockingConnection(parameters))
        return made[-1]

    yield open_connection
    for connection in made:
        if connection.is_open:
            connection.close()


@pytest.fixture
def channel(connect: Callable[..., pika.BlockingConnection]) -> Any:
    return connect().channel()


@pytest.fixture
def queue(connect: Callable[..., pika.BlockingConnection], channel: Any) -> Iterator[str]:
    """The name of an empty queue of this test's own."""
    name = f"test-{uuid.uuid4().hex}"
    channel.queue_declare(name, durable=True)
    yield name
    connect().channel().queue_delete(name)
