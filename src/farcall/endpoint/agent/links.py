"""The agent's way to the broker: one consumer of tasks, publishers of results and reports.

Connections are `farcall.amqp`'s; this module knows which queue is what, and shares a connection where the service
hands out one address for several. What arrives is put on as it is; nothing is decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
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
from farcall.wire.rest import PublishKwargs, QueueInfo, RegistrationResponse

__all__ = ["PREFETCH", "Links"]

log = logging.getLogger(__name__)

PREFETCH: Final = 512
"""Tasks that may be here unacknowledged; only reached when the backlog is full."""

_TROUBLE_ATTEMPTS: Final = 3


class Links:
    """Connected after `start`, until `close`. All methods from one thread; callbacks come from others.

    Attributes:
        used: where the queues are, with the login of the present connection.

    Args:
        newest: where the queues are, with the login that counts now; asked at every connection anew.
        port: in place of the addresses' own.
        factory: makes connections; a double in tests.
        on_trouble: told once why the broker cannot be reached, until it was.
    """

    def __init__(
        self,
        newest: Callable[[], RegistrationResponse],
        *,
        port: int | None = None,
        factory: ConnectionFactory = AmqpConnection,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._newest = newest
        self._use(newest())
        self._port = port
        self._factory = factory
        self._connections: dict[str, Connection] = {}
        self._is_lost = False
        self._is_in_trouble = False
        self._on_trouble = on_trouble or _ignore
        self._is_refused = False
        self._on_tasks: Callable[[list[Delivery]], None] = _nobody
        self._on_online: Callable[[], None] = _nothing
        self._on_offline: Callable[[], None] = _nothing
        self._on_refused: Callable[[str], None] = _ignore

    def _use(self, registration: RegistrationResponse) -> None:
        self.used = registration
        self._tasks = _need(registration.task_queue_info, "task_queue_info")
        self._results = _need(registration.result_queue_info, "result_queue_info")
        self._heartbeats = registration.heartbeat_queue_info
        self._result_kwargs = _kwargs(self._results)
        self._heartbeat_kwargs = _kwargs(self._heartbeats)

    def start(
        self,
        *,
        on_tasks: Callable[[list[Delivery]], None],
        on_online: Callable[[], None],
        on_offline: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """Begin to connect. Returns at once.

        Args:
            on_tasks: what was delivered.
            on_online: the task queue is ours (again).
            on_offline: it is not any more; acknowledgements of what was delivered are void.
            on_refused: the credential is refused for good; with the broker's words.
        """
        self._on_online, self._on_offline, self._on_refused = on_online, on_offline, on_refused
        self._on_tasks = on_tasks
        self._connect()

    def reconnect(self) -> None:
        """Connect again after `on_refused`: the credential counts all the same, or there is a newer one. What was
        published and not confirmed has been answered with False."""
        self.close(timeout_s=0.0)
        self._connections.clear()
        self._is_refused = False
        self._use(self._newest())
        self._connect()

    def _connect(self) -> None:
        connection = self._connection(self._tasks.connection_url, "tasks")
        self._consumer = connection.consume(self._tasks.queue, self._on_tasks, prefetch=PREFETCH, exclusive=True)
        connection = self._connection(self._results.connection_url, "results")
        self._result_publisher = connection.publisher(self._results.exchange, self._results.queue)
        connection = self._connection(self._heartbeats.connection_url, "heartbeats")
        self._heartbeat_publisher = connection.publisher(self._heartbeats.exchange, self._heartbeats.queue)
        for connection in self._connections.values():
            connection.start()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._consumer.ack(deliveries)

    def stop_intake(self) -> None:
        """No more deliveries; what is here can still be acknowledged."""
        self._consumer.cancel()

    def publish_result(self, body: bytes, on_done: Callable[[bool], None]) -> None:
        """Send a result. `on_done(False)` also if the connection has ended."""
        try:
            self._result_publisher.publish(body, self._result_kwargs, on_done)
        except ConnectionEnded:
            on_done(False)

    def publish_report(self, body: bytes) -> None:
        """Send a status report, if there is a connection that may still take it."""
        try:
            self._heartbeat_publisher.publish(body, self._heartbeat_kwargs)
        except ConnectionEnded:
            log.debug("A report was not sent: the connection has ended.", extra={"event": "report.dropped"})

    def flush(self, timeout_s: float) -> bool:
        """Wait until the reports that were sent are confirmed. False: not in this time."""
        return bool(self._heartbeat_publisher.wait_confirmed(timeout_s))

    def close(self, timeout_s: float = 5.0) -> None:
        for connection in self._connections.values():
            connection.close(timeout_s)

    def _connection(self, url: str, name: str) -> Connection:
        if url not in self._connections:
            self._connections[url] = self._factory(
                url, name=f"endpoint {name}", on_event=partial(self._on_event, url), port=self._port
            )
        return self._connections[url]

    def _on_event(self, url: str, event: AmqpEvent) -> None:
        if isinstance(event, CredentialRefused):
            self._on_offline()
            if not self._is_refused:  # several connections have one credential
                self._is_refused = True
                self._on_refused(event.reason)
        elif isinstance(event, ConsumerReady):
            self._is_lost = self._is_in_trouble = False
            self._on_online()
        elif isinstance(event, ConnectFailed):
            self._no_connection(event)
        elif isinstance(event, ConsumerLost) or (isinstance(event, Disconnected) and url == self._tasks.connection_url):
            log.log(
                logging.DEBUG if self._is_lost else logging.WARNING,  # once is enough, however often it is tried
                "The task queue was lost; connecting again. Tasks that run go on.",
                extra={"event": "broker.lost", "reason": event.reason, "retry_in_s": round(event.retry_in_s, 2)},
            )
            self._is_lost = True
            self._on_offline()

    def _no_connection(self, event: ConnectFailed) -> None:
        """The first failure may be a moment's; a certificate does not become better by itself, a port does not open."""
        if self._is_in_trouble or event.attempt < _TROUBLE_ATTEMPTS:
            return
        self._is_in_trouble = True
        log.warning(
            "The message broker cannot be reached; trying again.",
            extra={"event": "broker.unreachable", "reason": event.reason},
        )
        self._on_trouble(event.reason)


def _need(info: QueueInfo | None, name: str) -> QueueInfo:
    if info is None:
        raise ValueError(
            f"the service answered the registration without '{name}': it treats this endpoint as one that starts "
            "others, which this release is not. Is the service older than the endpoint?"
        )
    return info


def _kwargs(info: QueueInfo) -> Mapping[str, Any]:
    publish = info.queue_publish_kwargs or PublishKwargs(exchange=info.exchange, routing_key=info.queue)
    return asdict(publish)


def _nothing() -> None:
    pass


def _nobody(deliveries: list[Delivery]) -> None:
    del deliveries


def _ignore(reason: str) -> None:
    del reason
