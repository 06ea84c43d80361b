"""The broker's sockets: listens, runs one `protocol.Connection` for each client, keeps its timers.

Output is written once per loop turn. When a client reads too slowly its connection is told, and no more deliveries
are made to it until it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as tls
from typing import Final, cast

from farcall.broker.authority import Authority
from farcall.broker.core import Broker
from farcall.broker.handshake import Credentials, Limits
from farcall.broker.protocol import Connection

__all__ = ["BrokerServer", "serve"]

_logger = logging.getLogger(__name__)

_OPENING_S: Final = 10.0
_CLOSING_S: Final = 3.0
_WRITE_HIGH_BYTES: Final = 256 * 1024
_BACKLOG: Final = 1024


async def serve(
    broker: Broker,
    authority: Authority,
    host: str | None,
    port: int,
    ssl: tls.SSLContext | None = None,
    heartbeat_s: int = 30,
    *,
    max_message_bytes: int = 128 * 1024 * 1024,
    held_bytes_max: int = 64 * 1024 * 1024,
) -> BrokerServer:
    """Listen for AMQP clients on the running event loop.

    Args:
        host: address to bind; None: all.
        port: 0: any free one; see `BrokerServer.port`.
        ssl: for AMQPS.
        heartbeat_s: proposed to clients; one that is silent for two of them is dropped. 0: none.
        max_message_bytes: a larger message is refused (406).
        held_bytes_max: of one client, that wait for an acknowledgement in queues that confirm on it; beyond, nothing
            is read from that client until half of it is settled.

    Raises:
        OSError: the address cannot be bound.
    """
    server = BrokerServer(broker, authority, Limits(heartbeat_s=heartbeat_s), max_message_bytes, held_bytes_max)
    await server._listen(host, port, ssl)
    return server


class BrokerServer:
    """A listening broker. Made by `serve`."""

    def __init__(
        self, broker: Broker, authority: Authority, limits: Limits, max_message_bytes: int, held_bytes_max: int
    ) -> None:
        self.broker = broker
        self.authority = authority
        self.limits = limits
        self.max_message_bytes = max_message_bytes
        self.held_bytes_max = held_bytes_max
        self._server: asyncio.Server | None = None
        self._sessions: set[_Session] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("The broker's server is closed")
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, tell the clients (320 CONNECTION_FORCED, so that they come again), and wait for them
        briefly. Twice is once."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for session in list(self._sessions):
            session.connection.force_close("the service is shutting down")
        try:
            await asyncio.wait_for(self._empty.wait(), _CLOSING_S)
        except asyncio.TimeoutError:
            for session in list(self._sessions):
                session.abort()
            await self._empty.wait()
        await server.wait_closed()

    async def _listen(self, host: str | None, port: int, ssl: tls.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Session(self, loop),
            host,
            port,
            ssl=ssl,
            ssl_handshake_timeout=_OPENING_S if ssl is not None else None,
            backlog=_BACKLOG,
            reuse_address=True,
        )

    def _came(self, session: _Session) -> None:
        self._sessions.add(session)
        self._empty.clear()

    def _went(self, session: _Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()


class _Session(asyncio.Protocol):
    """One client's socket and timers; the `Transport` of its connection."""

    connection: Connection

    def __init__(self, server: BrokerServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self._login: asyncio.Task[None] | None = None

    # --- Called by the event loop ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # what create_server makes
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        try:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:
            pass  # gone already; `connection_lost` follows
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        server = self._server
        self.connection = Connection(
            server.broker,
            server.authority,
            self,
            limits=server.limits,
            peer=f"{host}:{port}",
            max_message_bytes=server.max_message_bytes,
            held_bytes_max=server.held_bytes_max,
        )
        server._came(self)
        self._deadline = self._loop.call_later(_OPENING_S, self._not_opened)

    def data_received(self, data: bytes) -> None:
        self.connection.receive(data)

    def pause_writing(self) -> None:
        self.connection.pause()

    def resume_writing(self) -> None:
        self.connection.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._pulse, self._login):
            if timer is not None:
                timer.cancel()
        self.connection.lost()
        self._server._went(self)

    # --- Called by the connection ------------------------------------------------------------------------------------

    def flush_soon(self) -> None:
        self._loop.call_soon(self._flush)

    def login(self, credentials: Credentials) -> None:
        self._login = self._loop.create_task(self._ask_authority(credentials))

    def start_heartbeats(self, heartbeat_s: int) -> None:
        if heartbeat_s > 0:
            self._pulse = self._loop.call_later(heartbeat_s / 2, self._beat, heartbeat_s / 2)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._loop.call_soon(self.connection.receive, b"")

    def close_soon(self) -> None:
        self._abort_later()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self.connection.take_output())
            self._transport.close()
        self._abort_later()

    def abort(self) -> None:
        self._transport.abort()

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        connection = self.connection
        if not connection.may_write or self._transport.is_closing():
            return
        data = connection.take_output()
        if data:
            self._transport.write(data)
        connection.wrote()

    async def _ask_authority(self, credentials: Credentials) -> None:
        try:
            principal = await self._server.authority.authenticate(credentials.username, credentials.password)
        except Exception:
            _logger.exception("A broker login could not be checked", extra={"event": "broker.login_failed"})
            self.connection.login_failed()
            return
        if principal is None:
            self.connection.login_refused()
        else:
            self.connection.logged_in(principal)

    def _not_opened(self) -> None:
        if not self.connection.has_opened:
            _logger.info("A client did not finish its opening in time", extra={"event": "broker.opening_timeout"})
            self.abort()

    def _beat(self, interval_s: float) -> None:
        self._pulse = self._loop.call_later(interval_s, self._beat, interval_s)
        self.connection.tick(self._transport.get_write_buffer_size())

    def _abort_later(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(_CLOSING_S, self.abort)
