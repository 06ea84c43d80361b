"""What callers of this part see: one connection, its consumers and publishers, and the messages they carry.

Two implementations: `AmqpConnection` (pika) and `MemoryConnection` (in this process, for tests). Code that takes a
`ConnectionFactory` works with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from farcall.amqp.events import Event
from farcall.amqp.operations import OnOutcome, Operation

__all__ = [
    "Connection",
    "ConnectionFactory",
    "Consumer",
    "Delivery",
    "OnDone",
    "OnEvent",
    "OnMessages",
    "Operator",
    "Publisher",
    "Url",
]


@dataclass(slots=True, eq=False)
class Delivery:
    """One message from a queue. Treat as read-only (frozen would cost a microsecond each).

    Attributes:
        body: the message.
        headers: of the message; empty if it has none.
        tag: its number on the channel.
        epoch: which life of the consumer it belongs to; an acknowledgement in a later one is void.
        redelivered: the broker has delivered it before, here or elsewhere.
        timestamp: unix seconds as the sender set them, or None.
        content_type: as the sender set it, or None.
        routing_key: with which it was published.
    """

    body: bytes
    headers: Mapping[str, Any]
    tag: int
    epoch: int
    redelivered: bool
    timestamp: int | None
    content_type: str | None
    routing_key: str


OnMessages = Callable[[list[Delivery]], None]
"""Called on the connection's thread with what arrived in one turn of its loop, in order, at least one."""

OnDone = Callable[[bool], None]
"""Called on the connection's thread, exactly once: True when the broker has confirmed the message; False when it
refused it, could not route it, or the connection has ended before a confirm came (it may have arrived all the same)."""

OnEvent = Callable[[Event], None]
"""Called on the connection's thread."""

Url = str | Callable[[], str]


class Consumer(Protocol):
    """A subscription to one queue, over all reconnects. All methods from any thread."""

    @property
    def queue(self) -> str: ...

    @property
    def is_ready(self) -> bool:
        """Whether the broker holds the subscription at this moment."""
        ...

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """These are done. In any order; those of an earlier epoch are ignored, as is a second time."""
        ...

    def nack(self, deliveries: Iterable[Delivery], requeue: bool) -> None:
        """Give these back to the queue (`requeue`), or drop them. Ignored as for `ack`."""
        ...

    def cancel(self) -> None:
        """No more deliveries; those handed out can still be acknowledged, the others go back to the queue."""
        ...


class Publisher(Protocol):
    """Sends messages with confirms, in order, over all reconnects. All methods from any thread."""

    @property
    def pending(self) -> int:
        """Messages published and not settled."""
        ...

    def publish(self, body: bytes, kwargs: Mapping[str, Any], on_done: OnDone | None = None) -> None:
        """Send one message. Returns at once; there is no bound on what waits (see `pending`).

        Args:
            body: the message.
            kwargs: `queue_publish_kwargs` of the info object: `exchange`, `routing_key`, `mandatory`, `properties`.
            on_done: told what became of it.

        Raises:
            TypeError, ValueError: the message cannot be sent as described; names the member.
            ConnectionEnded: the connection was closed, or its credential refused.
            UsedAfterFork: in a forked child of the process that made the connection.
        """
        ...

    def wait_confirmed(self, timeout_s: float) -> bool:
        """Wait until every message published so far is settled. False: not in this time, or the connection ended.

        Raises:
            RuntimeError: called on the connection's own thread, where it would wait for itself.
        """
        ...

    def after_confirmed(self, callback: Callable[[], None]) -> None:
        """Call this on the connection's thread when every message published so far is settled; at once if all are.

        Raises:
            ConnectionEnded: the connection has ended. If it ends later, the callback is never called.
        """
        ...


class Operator(Protocol):
    """Makes, empties and removes queues. Methods from any thread."""

    def perform(self, operation: Operation, on_outcome: OnOutcome | None = None) -> None:
        """Have the broker do this, after what was asked before. Returns at once. `Failed` with code 0 if there is no
        connection: it is not done later.

        Raises:
            ConnectionEnded: the connection was closed, or its credential refused.
        """
        ...


class Connection(Protocol):
    """One connection to a broker, kept up by a thread of its own. All methods from any thread."""

    @property
    def name(self) -> str: ...

    @property
    def is_connected(self) -> bool: ...

    def start(self) -> None:
        """Begin to connect. Returns at once. Consumers and publishers may be made before or after."""
        ...

    def consume(self, queue: str, on_messages: OnMessages, prefetch: int = 0, exclusive: bool = False) -> Consumer:
        """Subscribe to a queue.

        Args:
            queue: must exist; while it does not, `ConsumerLost` events come and the subscription is tried again.
            on_messages: takes each batch. Keep it short: nothing else happens on this connection meanwhile. If it
                raises, this is logged and its deliveries stay unacknowledged. It may be called before `consume` has
                returned, unless the connection is started later.
            prefetch: deliveries that the broker sends ahead of their acknowledgement; 0 for no bound.
            exclusive: refuse to share the queue; while another consumer holds it, it is tried again.
        """
        ...

    def operator(self) -> Operator:
        """What makes queues; `OperatorReady` events say when it can."""
        ...

    def publisher(self, exchange: str, queue: str | None = None, *, resends: bool = True) -> Publisher:
        """A publisher. Exchange and queue are declared passively before anything is sent, as the protocol says.

        Args:
            exchange: empty for the default exchange, which is not declared.
            queue: None or empty to declare none.
            resends: publish again what was not confirmed when a channel was lost. If not, it is settled with False
                then, as is at once whatever is published between `PublisherLost` or `Disconnected` and
                `PublisherReady`.
        """
        ...

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for a login. False: not in this time, or the connection ended."""
        ...

    def retry_now(self) -> None:
        """If it is waiting to connect again: do so at once (its owner knows that the service is back)."""
        ...

    def close(self, timeout_s: float = 5.0) -> None:
        """Send pending acknowledgements, close, and end the thread. What is not confirmed is settled with False.

        Waits at most about `timeout_s`, not at all on the connection's own thread. Twice is once.
        """
        ...


class ConnectionFactory(Protocol):
    """`AmqpConnection`, or `MemoryBroker.connection`."""

    def __call__(
        self, url: Url, *, name: str, on_event: OnEvent | None = None, port: int | None = None
    ) -> Connection: ...
