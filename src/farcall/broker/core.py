"""The broker without its sockets: publishing, consuming, and what the service asks and is told.

`Broker` is what the service holds. It lives in one thread, the event loop's, and does no I/O. Calls that come back
(deliveries, hooks) are gathered and made at the end of the loop turn, never from inside a call into the broker.
Connections of other processes reach it through `channel`, which asks the authority first; callers in this process
are not asked anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from farcall.broker.authority import Principal
from farcall.broker.errors import AmqpError, Reply
from farcall.broker.ledgers import ConfirmBook
from farcall.broker.local import LocalConsumer
from farcall.broker.messages import Delivery, Message, PublisherAccount, Receipt, Route
from farcall.broker.properties import NO_PROPERTIES, Properties, encode_properties
from farcall.broker.queues import Consumer, Outlet, Queue
from farcall.broker.routing import Exchange, ExchangeKind
from farcall.broker.topology import Topology
from farcall.broker.turns import Defer, Turns, on_running_loop

__all__ = ["Broker", "BrokerStats", "ConnectionInfo", "Link", "QueueDepth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueDepth:
    """How full a queue is. Messages whose time is up count until they reach the head."""

    ready: int
    unacked: int
    consumers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionInfo:
    """One open connection, for people to look at."""

    principal_name: str
    peer: str
    since: datetime
    channels: int
    client_properties: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerStats:
    """How much there is now, and how much there has been since the start.

    Attributes:
        published: messages taken in, routed or not.
        delivered: hand-overs to consumers, repeated ones included.
        settled: messages that left a queue: acknowledged, rejected, out of time.
    """

    connections: int
    exchanges: int
    queues: int
    consumers: int
    ready: int
    unacked: int
    published: int
    delivered: int
    settled: int


class Link(Protocol):
    """A connection, as the core sees it."""

    @property
    def principal(self) -> Principal | None:
        """None until the login was accepted."""
        ...

    def info(self) -> ConnectionInfo: ...

    def force_close(self, reply_text: str) -> None:
        """Give everything back, then close with 320 CONNECTION_FORCED."""
        ...


class Broker:
    """An AMQP 0-9-1 broker in memory.

    Args:
        defer: how to run a function at the end of the loop turn; default: `call_soon` of the running event loop.
        clock: seconds, monotonic; for the expiration of messages.

    Attributes:
        on_consumers_changed: told (queue name, number of consumers) after each consumer that came or went.
        on_acked: told (queue name, count) of messages that have left a queue for good: acknowledged, rejected
            without requeue, or out of time. At most once a turn for each queue. Not told of purge and delete.
        links: the connections, from their first byte on.
    """

    def __init__(self, *, defer: Defer = on_running_loop, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_consumers_changed: Callable[[str, int], None] | None = None
        self.on_acked: Callable[[str, int], None] | None = None
        self.links: set[Link] = set()
        self.topology = Topology()
        self.now_s = clock
        self._turns = Turns(defer)
        self._acked: dict[str, int] = {}
        self._published = 0
        self._delivered = 0
        self._settled = 0
        self._local_consumers = 0

    # --- What exists -----------------------------------------------------------------------------------------

    def declare_exchange(self, name: str, kind: Literal["direct", "topic", "fanout"] = "direct") -> None:
        """Make an exchange. Raises AmqpError (406) if it exists and is of another kind."""
        self.topology.add_exchange(Exchange(name, ExchangeKind(kind)))

    def declare_queue(
        self,
        name: str,
        *,
        confirm_on: Literal["enqueue", "ack"] = "enqueue",
        max_length: int | None = None,
        refilled: bool = False,
    ) -> None:
        """Make a queue; nothing happens if it exists.

        Args:
            confirm_on: when a publisher gets its confirm: as soon as the message is in the queue, or only when its
                consumer has acknowledged it. In the second case a message that is dropped on the way (queue purged
                or deleted, rejected without requeue, out of time) is confirmed negatively (basic.nack), so the
                publisher still has it when this process dies.
            max_length: messages that may wait; beyond, the oldest is dropped.
            refilled: whoever declares it fills it anew for each exclusive consumer that comes: what one had and did not
                acknowledge is dropped when it goes, not given to the next, and what it acknowledges later is not told.

        Raises:
            AmqpError: 406 if it exists with another `confirm_on` or `max_length`.
        """
        new = Queue(name, self, confirm_on_ack=confirm_on == "ack", max_length=max_length, refilled=refilled)
        queue = self.topology.add_queue(new)
        if (queue.confirm_on_ack, queue.max_length) != (new.confirm_on_ack, new.max_length):
            raise AmqpError(
                Reply.PRECONDITION_FAILED,
                f"queue '{name}' exists with another confirm_on or max_length; delete it first",
            )

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Lead messages of `exchange` with this key, or pattern, to `queue`. Raises AmqpError (404)."""
        self.topology.bind(self._queue(queue), exchange, routing_key)

    def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Undo `bind`; nothing happens if there is no such binding. Raises AmqpError (404)."""
        self.topology.unbind(self._queue(queue), exchange, routing_key)

    def has_queue(self, name: str) -> bool:
        return name in self.topology.queues

    def queue_names(self) -> list[str]:
        return list(self.topology.queues)

    def queue_depth(self, name: str) -> QueueDepth:
        """Raises AmqpError (404)."""
        queue = self._queue(name)
        return QueueDepth(ready=queue.ready, unacked=queue.unacked, consumers=len(queue.consumers))

    def purge_queue(self, name: str) -> int:
        """Drop the messages that wait; returns how many. Raises AmqpError (404)."""
        return self._queue(name).purge()

    def delete_queue(self, name: str) -> int:
        """Drop the queue and the messages that wait in it; returns how many. Its consumers are cancelled.

        Messages that are unacknowledged just now may still be acknowledged; they cannot go back.

        Raises:
            AmqpError: 404.
        """
        return self.remove_queue(self._queue(name))

    # --- Messages --------------------------------------------------------------------------------------------

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: Properties = NO_PROPERTIES) -> bool:
        """Publish; False if no queue is bound for this key, and the message is gone.

        Raises:
            AmqpError: 404 if the exchange does not exist, 406 if `properties.expiration` is not a number.
            TypeError, ValueError: properties that AMQP cannot carry.
        """
        route = self.topology.route(exchange, routing_key)
        return self.submit(route, body, encode_properties(properties), properties.expiration, None, None)

    def consume(
        self,
        queue: str,
        on_messages: Callable[[Sequence[Delivery]], None],
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        on_cancelled: Callable[[], None] | None = None,
    ) -> LocalConsumer:
        """Subscribe to a queue.

        Args:
            on_messages: gets what has come in a loop turn, at least one message, in order.
            prefetch: how many may be unacknowledged; 0: any number.
            no_ack: messages count as acknowledged when they are handed over.
            on_cancelled: called if the queue is deleted.

        Raises:
            AmqpError: 404; 403 if another consumer is exclusive, or this one shall be and is not the first.
        """
        target = self._queue(queue)
        self.admit(target, exclusive)
        self._local_consumers += 1
        consumer = LocalConsumer(
            target,
            f"local-{self._local_consumers}",
            self._turns,
            on_messages,
            on_cancelled,
            self.close_outlet,
            limit=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
        )
        self.attach(consumer)
        return consumer

    # --- Connections -----------------------------------------------------------------------------------------

    def close_connections(self, predicate: Callable[[Principal], bool], reply_text: str) -> int:
        """Cut every connection whose principal fits; returns how many.

        What they held is back in its queues, and their consumers are gone, when this returns. Clients see
        connection.close 320 with `reply_text`, and will reconnect unless their login is refused by then.
        """
        chosen = [link for link in self.links if link.principal is not None and predicate(link.principal)]
        for link in chosen:
            link.force_close(reply_text)
        return len(chosen)

    def connections(self) -> list[ConnectionInfo]:
        """The connections that have logged in, oldest first."""
        infos = [link.info() for link in self.links if link.principal is not None]
        return sorted(infos, key=lambda info: info.since)

    def stats(self) -> BrokerStats:
        queues = self.topology.queues.values()
        return BrokerStats(
            connections=len(self.links),
            exchanges=len(self.topology.exchanges),
            queues=len(queues),
            consumers=sum(len(queue.consumers) for queue in queues),
            ready=sum(queue.ready for queue in queues),
            unacked=sum(queue.unacked for queue in queues),
            published=self._published,
            delivered=self._delivered,
            settled=self._settled,
        )

    # --- For connections: `channel` and the queues call these --------------------------------------------------

    def submit(
        self,
        route: Route,
        body: bytes,
        raw_properties: bytes,
        expiration: str | None,
        confirms: ConfirmBook | None,
        account: PublisherAccount | None,
    ) -> bool:
        """Publish with the property block at hand; returns whether any queue takes it.

        Args:
            expiration: the property of that name.
            confirms: the publisher's, if its channel is in confirm mode.
            account: the publisher's; charged with what waits for an acknowledgement. None: in this process.

        Raises:
            AmqpError: as `publish`; then the message has no number in `confirms`.
        """
        if route.version != self.topology.version:
            self.topology.resolve(route)
        expires_s = None if expiration is None else self.now_s() + _milliseconds(expiration) / 1000
        self._published += 1
        receipt = None
        if route.confirming and account is not None:
            account.charge(len(body))
            number = confirms.begin() if confirms is not None else 0
            receipt = Receipt(number, confirms, account, len(body), route.confirming)
        elif confirms is not None:
            confirms.begin_settled()
        for queue in route.queues:
            awaited = receipt if queue.confirm_on_ack else None
            queue.put(Message(queue, route, body, raw_properties, expires_s, awaited))
        return bool(route.queues)

    def admit(self, queue: Queue, exclusive: bool) -> None:
        """Raises AmqpError (403) if the queue has no room for another consumer."""
        if queue.exclusively_consumed or (exclusive and queue.consumers):
            raise AmqpError(Reply.ACCESS_REFUSED, f"queue '{queue.name}' in vhost '/' in exclusive use")

    def attach(self, consumer: Consumer) -> None:
        """Add an admitted consumer, and hand over what waits for it."""
        consumer.outlet.consumers[consumer.tag] = consumer
        consumer.queue.consumers.append(consumer)
        self._note_consumers(consumer.queue)
        consumer.queue.drain()

    def detach(self, consumer: Consumer) -> None:
        """Remove a consumer; what it holds stays in its channel's book."""
        del consumer.outlet.consumers[consumer.tag]
        queue = consumer.queue
        if queue.deleted:
            return
        queue.consumers.remove(consumer)
        self._note_consumers(queue)
        if queue.auto_delete and not queue.consumers:
            self.remove_queue(queue)

    def close_outlet(self, outlet: Outlet) -> None:
        """End a channel: its consumers go, then everything that they held goes back. Twice is once."""
        for consumer in list(outlet.consumers.values()):
            self.detach(consumer)
        outlet.recover()

    def remove_queue(self, queue: Queue) -> int:
        """As `delete_queue`, for a queue at hand."""
        consumers = list(queue.consumers)
        self.topology.remove_queue(queue)
        for consumer in consumers:
            self.detach(consumer)
            consumer.cancelled()
        queue.consumers.clear()
        if consumers:
            self._note_consumers(queue)
        return queue.purge()

    def remove_queues_of(self, owner: object) -> None:
        """A connection has ended: its exclusive queues end as well."""
        for queue in [queue for queue in self.topology.queues.values() if queue.owner == owner]:
            self.remove_queue(queue)

    def note_delivered(self) -> None:
        self._delivered += 1

    def note_left(self, queue: Queue, count: int) -> None:
        self._settled += count
        if self.on_acked is None or queue.deleted:
            return
        if not self._acked:
            self._turns.soon(self._tell_acked)
        self._acked[queue.name] = self._acked.get(queue.name, 0) + count

    # --- Inside ------------------------------------------------------------------------------------------------

    def _queue(self, name: str) -> Queue:
        queue = self.topology.queues.get(name)
        return queue if queue is not None else self.topology.queue(name)

    def _tell_acked(self) -> None:
        acked, self._acked = self._acked, {}
        if self.on_acked is not None:
            for name, count in acked.items():
                self.on_acked(name, count)

    def _note_consumers(self, queue: Queue) -> None:
        hook = self.on_consumers_changed
        if hook is not None:
            name, count = queue.name, len(queue.consumers)
            self._turns.soon(lambda: hook(name, count))


def _milliseconds(expiration: str) -> int:
    if not (expiration.isascii() and expiration.isdigit() and len(expiration) < 16):
        raise AmqpError(Reply.PRECONDITION_FAILED, f"invalid expiration '{expiration[:40]}': milliseconds expected")
    return int(expiration)
