"""What the relay needs of a broker, and the embedded broker as one that provides it; `rabbit` has the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from farcall.broker import Broker, LocalConsumer
from farcall.service.relay.messages import Outgoing
from farcall.wire.topology import EXCHANGES, HEARTBEATS, RESULTS, TASKS, BrokerUser, UserKind, is_endpoint_queue

__all__ = ["EmbeddedTransport", "Incoming", "Listener", "Transport"]


_logger = logging.getLogger(__name__)


class Incoming(Protocol):
    """A message in the relay's hands; `Delivery` of `farcall.broker` and of `farcall.amqp`.

    `redelivered`: it has been in somebody's hands before.
    """

    @property
    def body(self) -> bytes: ...

    @property
    def routing_key(self) -> str: ...

    @property
    def redelivered(self) -> bool: ...


class Listener(Protocol):
    """What a transport tells. Called on the event loop."""

    def on_results(self, deliveries: Sequence[Incoming]) -> None:
        """Messages of the result queue; each is to be acknowledged once."""
        ...

    def on_reports(self, deliveries: Sequence[Incoming]) -> None:
        """Messages of the heartbeat queue, already acknowledged."""
        ...

    def on_consumers(self, queue: str, count: int) -> None:
        """A consumer of a queue came or went; `count` are there now. All are gone when the broker is."""
        ...

    def on_settled(self, queue: str, count: int) -> None:
        """`count` messages have left a queue for good. Told only if the transport `sees_acks`."""
        ...


class Transport(Protocol):
    """A broker, as the relay uses it. Called on the event loop; only what is async waits.

    Attributes:
        sees_acks: `Listener.on_settled` is told when clients acknowledge.
    """

    sees_acks: bool

    def open(self, listener: Listener) -> None:
        """Make exchanges and the service's own queues, and begin to consume: at once, or as soon as the broker is
        there."""
        ...

    async def close(self) -> None:
        """Consume no more. What was not acknowledged goes back."""
        ...

    def ensure_queue(self, queue: str) -> None:
        """Make a task queue or a group queue, if it is not there: at once, or as soon as may be."""
        ...

    async def prepare_queue(self, queue: str) -> None:
        """The same for a task queue that somebody is about to read: it is there when this returns, if it can be."""
        ...

    def unwatch(self, which: Callable[[str], bool]) -> None:
        """Other processes care for these task queues from now on. Told as if their consumers had gone."""
        ...

    def drop_queue(self, queue: str, *, if_unused: bool) -> None:
        """Delete a queue with what waits in it, unless it has consumers and `if_unused`."""
        ...

    def purge(self, queue: str) -> None:
        """Remove what waits in a queue; what is published after this call stays."""
        ...

    def publish(self, queue: str, messages: Iterable[Outgoing]) -> None:
        """Publish to a task queue or group queue, in order."""
        ...

    def ack_results(self, deliveries: Iterable[Any]) -> None:
        """Deliveries of `on_results` are done, once what was published before this call is safe."""
        ...

    def fault(self) -> str | None:
        """What keeps messages from flowing, in words; None if nothing does."""
        ...

    async def depths(self) -> Mapping[str, tuple[int, int]]:
        """By kind of queue ("tasks", "results", "heartbeats", "groups"): waiting, delivered and unacknowledged.
        Kinds of which the broker does not tell cheaply are left out."""
        ...

    def cut(self, kind: UserKind, user_id: str, generation: int, reason: str) -> None:
        """Close the connections of logins of this user that are older than `generation`."""
        ...


class EmbeddedTransport:
    """The broker in this process.

    Args:
        prefetch: how many results may be in the relay's hands.
    """

    sees_acks = True

    def __init__(self, broker: Broker, *, prefetch: int) -> None:
        self._broker = broker
        self._prefetch = prefetch
        self._results: LocalConsumer | None = None
        self._reports: LocalConsumer | None = None

    def open(self, listener: Listener) -> None:
        broker = self._broker
        for exchange, kind in EXCHANGES.items():
            broker.declare_exchange(exchange, kind)  # type: ignore[arg-type]  # the values are those of its Literal
        broker.declare_queue(RESULTS, confirm_on="ack")
        broker.bind(RESULTS, RESULTS, "*.results")
        broker.declare_queue(HEARTBEATS)
        broker.bind(HEARTBEATS, HEARTBEATS, "*.heartbeats")
        broker.on_consumers_changed = listener.on_consumers
        broker.on_acked = listener.on_settled
        self._results = broker.consume(RESULTS, listener.on_results, prefetch=self._prefetch, exclusive=True)
        self._reports = broker.consume(HEARTBEATS, listener.on_reports, no_ack=True, exclusive=True)

    async def close(self) -> None:
        self._broker.on_consumers_changed = self._broker.on_acked = None
        for consumer in (self._results, self._reports):
            if consumer is not None:
                consumer.cancel()

    def ensure_queue(self, queue: str) -> None:
        if self._broker.has_queue(queue):
            return
        self._broker.declare_queue(queue, refilled=is_endpoint_queue(queue))
        if is_endpoint_queue(queue):
            self._broker.bind(queue, TASKS, queue)

    async def prepare_queue(self, queue: str) -> None:
        self.ensure_queue(queue)

    def unwatch(self, which: Callable[[str], bool]) -> None:
        """Nothing: there is no other process."""

    def drop_queue(self, queue: str, *, if_unused: bool) -> None:
        broker = self._broker
        if broker.has_queue(queue) and not (if_unused and broker.queue_depth(queue).consumers):
            broker.delete_queue(queue)

    def purge(self, queue: str) -> None:
        if self._broker.has_queue(queue):
            self._broker.purge_queue(queue)

    def publish(self, queue: str, messages: Iterable[Outgoing]) -> None:
        publish = self._broker.publish
        exchange = TASKS if is_endpoint_queue(queue) else ""
        for message in messages:
            publish(exchange, queue, message.body, message.properties)

    def ack_results(self, deliveries: Iterable[Any]) -> None:
        if self._results is not None and self._results.is_active:
            self._results.ack(*[delivery.tag for delivery in deliveries])

    def fault(self) -> str | None:
        for consumer in (self._results, self._reports):
            if consumer is None or not consumer.is_active:
                return "the message broker is closed"
        return None

    async def depths(self) -> Mapping[str, tuple[int, int]]:
        found = dict.fromkeys(("tasks", "results", "heartbeats", "groups"), (0, 0))
        for name in self._broker.queue_names():
            kind = "tasks" if is_endpoint_queue(name) else name if name in found else "groups"
            depth = self._broker.queue_depth(name)
            found[kind] = (found[kind][0] + depth.ready, found[kind][1] + depth.unacked)
        return found

    def cut(self, kind: UserKind, user_id: str, generation: int, reason: str) -> None:
        """What they held is back in the queues when this returns."""

        def is_old(principal: Any) -> bool:  # the broker's Principal; ours are BrokerUsers
            return (
                isinstance(principal, BrokerUser)
                and (principal.kind, principal.id) == (kind, user_id)
                and principal.generation < generation
            )

        count = self._broker.close_connections(is_old, reason)
        if count:
            _logger.info(
                "Connections were cut",
                extra={"event": "broker.cut", "user_id": user_id, "connections": count, "reason": reason},
            )
