"""What the parts of the broker pass to each other: routes, messages, deliveries, receipts.

`Message` is one entry of one queue. A message routed to several queues becomes several of them, which share the
body, the property block and the route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from farcall.broker.properties import Properties, decode_properties

if TYPE_CHECKING:
    from farcall.broker.queues import Consumer, Queue

__all__ = ["Delivery", "Message", "PublisherAccount", "Receipt", "Route", "Settlements"]


class Route:
    """Where messages with this exchange and key go. Kept and shared, so that a publish is one look-up.

    Attributes:
        encoded: exchange and routing key as two short strings, as basic.deliver needs them.
        queues: valid while `version` is the core's; then resolved anew.
        confirming: how many of `queues` confirm a message only when it is acknowledged.
    """

    __slots__ = ("confirming", "encoded", "exchange", "queues", "routing_key", "version")

    def __init__(self, exchange: str, routing_key: str, encoded: bytes) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.encoded = encoded
        self.queues: tuple[Queue, ...] = ()
        self.confirming = 0
        self.version = -1


class Message:
    """One entry of one queue.

    Attributes:
        raw_properties: the property block as it came; `properties` is read from it on demand.
        expires_s: on the core's clock; None if never.
        receipt: told once when the message is acknowledged or dropped; None if nobody waits for that.
        position: grows along the queue; a message that is given back returns to its place.
        consumer: who holds it while it is unacknowledged; None in a queue, or if fetched by basic.get.
    """

    __slots__ = (
        "body",
        "consumer",
        "expires_s",
        "position",
        "queue",
        "raw_properties",
        "receipt",
        "redelivered",
        "route",
    )

    def __init__(
        self,
        queue: Queue,
        route: Route,
        body: bytes,
        raw_properties: bytes,
        expires_s: float | None,
        receipt: Receipt | None,
    ) -> None:
        self.queue = queue
        self.route = route
        self.body = body
        self.raw_properties = raw_properties
        self.expires_s = expires_s
        self.receipt = receipt
        self.position = 0
        self.redelivered = False
        self.consumer: Consumer | None = None


class Delivery:
    """A message in the hands of a consumer of this process.

    Attributes:
        tag: what to acknowledge it by; grows by one from delivery to delivery of one consumer.
        redelivered: it has been in somebody's hands before.
    """

    __slots__ = ("_raw_properties", "body", "exchange", "redelivered", "routing_key", "tag")

    def __init__(self, tag: int, message: Message) -> None:
        self.tag = tag
        self.body = message.body
        self.exchange = message.route.exchange
        self.routing_key = message.route.routing_key
        self.redelivered = message.redelivered
        self._raw_properties = message.raw_properties

    @property
    def properties(self) -> Properties:
        """Decoded at each access: keep it if it is needed twice."""
        return decode_properties(self._raw_properties)

    def __repr__(self) -> str:
        return f"<Delivery {self.tag} {self.exchange!r} {self.routing_key!r} {len(self.body)} bytes>"


class Settlements(Protocol):
    """Who wants to know what became of published messages (the confirms of a channel)."""

    def settle(self, number: int, ok: bool) -> None: ...


class PublisherAccount(Protocol):
    """Counts what a publisher's messages hold in memory until somebody acknowledges them."""

    def charge(self, size_bytes: int) -> None: ...

    def release(self, size_bytes: int) -> None: ...


class Receipt:
    """Follows one published message through the queues that confirm on acknowledgement.

    Args:
        number: of the publish on its channel; meaningless without `settlements`.
        settlements: told when the last queue is done; None if the channel is not in confirm mode.
        account: gets `size_bytes` back at the same moment.
        waiting: number of queues that have it.
    """

    __slots__ = ("_account", "_number", "_ok", "_settlements", "_size_bytes", "_waiting")

    def __init__(
        self, number: int, settlements: Settlements | None, account: PublisherAccount, size_bytes: int, waiting: int
    ) -> None:
        self._number = number
        self._settlements = settlements
        self._account = account
        self._size_bytes = size_bytes
        self._waiting = waiting
        self._ok = True

    def settle(self, ok: bool) -> None:
        """One queue is done with the message; not ok means that it was dropped."""
        self._ok = self._ok and ok
        self._waiting -= 1
        if self._waiting:
            return
        self._account.release(self._size_bytes)
        if self._settlements is not None:
            self._settlements.settle(self._number, self._ok)
