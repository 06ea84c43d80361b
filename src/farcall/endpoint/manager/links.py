"""A manager's way to the broker: a consumer of its commands, a publisher of its heartbeats, and the notices that it
sends in the names of user endpoints.

Connections are `farcall.amqp`'s. Callbacks come from their threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from farcall.amqp import (
    AmqpConnection,
    ConnectFailed,
    Connection,
    ConnectionEnded,
    ConnectionFactory,
    ConsumerLost,
    ConsumerReady,
    CredentialRefused,
    Delivery,
    Disconnected,
)
from farcall.amqp import Event as AmqpEvent
from farcall.wire.messages import ERROR_IS_FINAL, EndpointStatusReport, pack_message
from farcall.wire.rest import PublishKwargs, QueueInfo, RegistrationResponse

__all__ = ["ManagerLinks", "Notices"]

_log = logging.getLogger(__name__)

PREFETCH: Final = 256
NOTICE_PERIOD_S: Final = 3
"""What a notice announces as its sender's period. Source: wire protocol, failure notice."""
NOTICE_LIFE_S: Final = 60.0
"""How long a notice is tried to be sent. The service asks again for what it hears nothing of."""
NOTICES_AT_ONCE: Final = 64

_TROUBLE_ATTEMPTS: Final = 3


class ManagerLinks:
    """Connected after `start`, until `close`. All methods from one thread.

    Args:
        registration: where the queues are; has a command queue.
        port: in place of the addresses' own.
        factory: makes connections.
        on_trouble: told once why the broker cannot be reached, until it was.
    """

    def __init__(
        self,
        registration: RegistrationResponse,
        *,
        port: int | None = None,
        factory: ConnectionFactory = AmqpConnection,
        on_trouble: Callable[[str], None],
    ) -> None:
        if registration.command_queue_info is None:
            raise ValueError("the service answered the registration without 'command_queue_info'")
        self._endpoint_id = registration.endpoint_id
        self._commands = registration.command_queue_info
        self._heartbeats = registration.heartbeat_queue_info
        self._kwargs = _kwargs(self._heartbeats)
        self._port = port
        self._factory = factory
        self._on_trouble = on_trouble
        self._connections: dict[str, Connection] = {}
        self._is_refused = self._is_lost = self._is_in_trouble = False

    def start(
        self,
        *,
        on_commands: Callable[[list[Delivery]], None],
        on_online: Callable[[], None],
        on_offline: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """Begin to connect. Returns at once.

        Args:
            on_commands: what was delivered; to be acknowledged.
            on_online: the command queue is ours (again).
            on_offline: it is not any more.
            on_refused: the credential is refused for good; with the broker's words.
        """
        self._on_commands = on_commands
        self._on_online, self._on_offline, self._on_refused = on_online, on_offline, on_refused
        self._connect()

    def reconnect(self) -> None:
        """Connect again after `on_refused`: the credential counts all the same."""
        self.close(0.0)
        self._connections.clear()
        self._is_refused = False
        self._connect()

    def _connect(self) -> None:
        connection = self._connection(self._commands.connection_url)
        self._consumer = connection.consume(self._commands.queue, self._on_commands, prefetch=PREFETCH)
        connection = self._connection(self._heartbeats.connection_url)
        self._publisher = connection.publisher(self._heartbeats.exchange, self._heartbeats.queue)
        for connection in self._connections.values():
            connection.start()

    def ack(self, deliveries: list[Delivery]) -> None:
        self._consumer.ack(deliveries)

    def heartbeat(self, period_s: float) -> None:
        """Say that the manager is here for so long; 0: that it ends. Nothing happens without a connection."""
        period = int(period_s) if period_s == int(period_s) else period_s
        report = EndpointStatusReport(endpoint_id=self._endpoint_id, global_state={"heartbeat_period": period})
        try:
            self._publisher.publish(pack_message(report), self._kwargs)
        except ConnectionEnded:
            _log.debug("A heartbeat was not sent: the connection has ended.", extra={"event": "report.dropped"})

    def flush(self, timeout_s: float) -> None:
        """Wait until heartbeats are confirmed, not longer than this."""
        if any(each.is_connected for each in self._connections.values()):
            self._publisher.wait_confirmed(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        for connection in self._connections.values():
            connection.close(timeout_s)

    def _connection(self, url: str) -> Connection:
        if url not in self._connections:
            self._connections[url] = self._factory(
                url, name="manager commands", on_event=self._on_event, port=self._port
            )
        return self._connections[url]

    def _on_event(self, event: AmqpEvent) -> None:
        if isinstance(event, CredentialRefused):
            self._on_offline()
            if not self._is_refused:  # several connections have one credential
                self._is_refused = True
                self._on_refused(event.reason)
        elif isinstance(event, ConsumerReady):
            self._is_lost = self._is_in_trouble = False
            self._on_online()
        elif isinstance(event, ConnectFailed):
            if not self._is_in_trouble and event.attempt >= _TROUBLE_ATTEMPTS:
                self._is_in_trouble = True
                _log.warning(
                    "The message broker cannot be reached; trying again.",
                    extra={"event": "broker.unreachable", "reason": event.reason},
                )
                self._on_trouble(event.reason)
        elif isinstance(event, (ConsumerLost, Disconnected)):
            _log.log(
                logging.DEBUG if self._is_lost else logging.WARNING,  # once is enough, however often it is tried
                "The command queue was lost; connecting again. User endpoints go on.",
                extra={"event": "broker.lost", "reason": event.reason, "retry_in_s": round(event.retry_in_s, 2)},
            )
            self._is_lost = True
            self._on_offline()


class Notices:
    """Sends notices of failed starts, each over a short connection with the user endpoint's own login.

    Its status reports are the only thing that the service hears of a user endpoint, and nobody else may send them.
    Methods return at once, and are called by one thread.
    """

    def __init__(self, *, port: int | None = None, factory: ConnectionFactory = AmqpConnection) -> None:
        self._port = port
        self._factory = factory
        self._lock = threading.Lock()
        self._open: dict[Connection, float] = {}
        self._is_empty = threading.Event()
        self._is_empty.set()

    def send(self, user_endpoint_id: str, queues: Mapping[str, Any], text: str, *, is_final: bool) -> None:
        """Tell the service that the user endpoint could not be started, or was lost."""
        self.prune()
        info = queues.get("heartbeat_queue_info") or {}
        try:
            kwargs = info.get("queue_publish_kwargs") or asdict(
                PublishKwargs(exchange=info["exchange"], routing_key=info["queue"])
            )
            url, exchange, queue = info["connection_url"], info["exchange"], info["queue"]
        except KeyError as exc:
            self._not_sent(user_endpoint_id, f"the start command has no {exc} of its status reports")
            return
        with self._lock:
            is_full = len(self._open) >= NOTICES_AT_ONCE
        if is_full:
            self._not_sent(user_endpoint_id, "too many wait to be sent")
            return
        state = {"error": text, "heartbeat_period": NOTICE_PERIOD_S, ERROR_IS_FINAL: is_final}
        body = pack_message(EndpointStatusReport(endpoint_id=user_endpoint_id, global_state=state))

        def ended(reason: str | None) -> None:
            if reason is not None:
                self._not_sent(user_endpoint_id, reason)
            self._close(connection)

        connection = self._factory(
            url,
            name="notice",
            on_event=lambda event: ended(event.reason) if isinstance(event, CredentialRefused) else None,
            port=self._port,
        )
        with self._lock:
            self._open[connection] = time.monotonic() + NOTICE_LIFE_S
            self._is_empty.clear()
        try:
            publisher = connection.publisher(exchange, queue)
            publisher.publish(body, kwargs, lambda ok: ended(None if ok else "the broker did not take it"))
            connection.start()
        except (ConnectionEnded, TypeError, ValueError) as exc:
            ended(str(exc))

    def prune(self) -> None:
        """Give up those that have been tried for long enough."""
        now_s = time.monotonic()
        with self._lock:
            old = [each for each, until_s in self._open.items() if until_s < now_s]
        for connection in old:
            self._close(connection)

    def close(self, timeout_s: float) -> None:
        """Wait for what is being sent, not longer than this, and end."""
        self._is_empty.wait(timeout_s)
        with self._lock:
            left = list(self._open)
        for connection in left:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        with self._lock:
            if self._open.pop(connection, None) is None:
                return
        connection.close(0.0)
        with self._lock:
            if not self._open:
                self._is_empty.set()

    def _not_sent(self, user_endpoint_id: str, reason: str) -> None:
        _log.warning(
            "The service could not be told of a user endpoint that failed.",
            extra={"event": "notice.lost", "user_endpoint_id": user_endpoint_id, "reason": reason},
        )


def _kwargs(info: QueueInfo) -> Mapping[str, Any]:
    return asdict(info.queue_publish_kwargs or PublishKwargs(exchange=info.exchange, routing_key=info.queue))
