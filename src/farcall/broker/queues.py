"""A queue, its consumers, and which message goes to whom next.

Order: messages leave in the order in which they came; what is given back returns to its old place. A queue with
messages ready has no consumer that could take one, so an arriving message is either handed over at once or waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Protocol

from farcall.broker.ledgers import DeliveryBook
from farcall.broker.messages import Message

if TYPE_CHECKING:
    from farcall.broker.routing import Exchange

__all__ = ["UNLIMITED", "Consumer", "Gate", "Outlet", "Queue", "QueueOwner"]

UNLIMITED = 1 << 62


class Gate(Protocol):
    """What messages go out through: a connection. While `shut`, nothing is handed to its consumers."""

    shut: bool


class QueueOwner(Protocol):
    """The core, as a queue sees it."""

    def now_s(self) -> float: ...

    def note_delivered(self) -> None: ...

    def note_left(self, queue: Queue, count: int) -> None:
        """`count` messages have left the queue for good by a consumer's doing, or by age."""
        ...


class Outlet:
    """The consumers of one channel: one book of deliveries, one common limit, one gate.

    Attributes:
        limit: how many deliveries of the whole channel may be unacknowledged (basic.qos, global).
        consumers: by consumer tag.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.book = DeliveryBook()
        self.limit = UNLIMITED
        self.consumers: dict[str, Consumer] = {}

    def ack(self, tag: int, multiple: bool) -> int:
        """Settle deliveries as done. Returns how many; KeyError as `DeliveryBook.take`."""
        taken = self.book.take(tag, multiple)
        for message in taken:
            consumer = message.consumer
            if consumer is not None:
                consumer.held -= 1
            message.queue.acked(message)
        self._refill(taken)
        return len(taken)

    def reject(self, tag: int, multiple: bool, requeue: bool) -> int:
        """Give deliveries back, or drop them. Returns how many; KeyError as `DeliveryBook.take`."""
        taken = self.book.take(tag, multiple)
        self._give_back(taken, requeue)
        self._refill(taken)
        return len(taken)

    def recover(self) -> None:
        """Give everything unacknowledged back."""
        taken = self.book.take_all()
        self._give_back(taken, True)
        self._refill(taken)

    def wake(self) -> None:
        """Take what has been waiting for this outlet: the gate has opened, or a limit was raised."""
        for queue in dict.fromkeys(consumer.queue for consumer in self.consumers.values()):
            queue.drain()

    def _give_back(self, taken: list[Message], requeue: bool) -> None:
        by_queue: dict[Queue, list[Message]] = {}
        for message in taken:
            if message.consumer is not None:
                message.consumer.held -= 1
            by_queue.setdefault(message.queue, []).append(message)
        for queue, messages in by_queue.items():
            if requeue:
                queue.requeue(messages)
            else:
                queue.rejected(messages)

    def _refill(self, settled: list[Message]) -> None:
        if self.limit != UNLIMITED:
            self.wake()
        if len(settled) == 1:
            settled[0].queue.drain()
            return
        for queue in dict.fromkeys(message.queue for message in settled):
            queue.drain()


class Consumer:
    """One subscription of one queue. Subclasses know how to hand a message over.

    Attributes:
        limit: how many of its deliveries may be unacknowledged.
        held: how many are.
    """

    __slots__ = ("exclusive", "held", "limit", "no_ack", "outlet", "queue", "tag")

    def __init__(self, queue: Queue, outlet: Outlet, tag: str, *, limit: int, no_ack: bool, exclusive: bool) -> None:
        self.queue = queue
        self.outlet = outlet
        self.tag = tag
        self.limit = limit or UNLIMITED
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.held = 0

    def can_take(self) -> bool:
        outlet = self.outlet
        if outlet.gate.shut:
            return False
        return self.no_ack or (self.held < self.limit and len(outlet.book.held) < outlet.limit)

    def send(self, message: Message, tag: int) -> None:
        """Hand over; must not call back into the queue."""
        raise NotImplementedError

    def cancelled(self) -> None:
        """The queue is gone, and this subscription with it."""
        raise NotImplementedError


class Queue:
    """Messages waiting, and who waits for them.

    Args:
        confirm_on_ack: whether a publisher's confirm waits for the consumer's acknowledgement.
        max_length: how many messages may be ready; beyond, the oldest is dropped. None: no limit.
        refilled: its maker fills it anew for each exclusive consumer: nothing that one had before is given to the next.
        owner: the connection that alone may use it (exclusive), or None.
        arguments: as declared, kept for the comparison when it is declared again.
    """

    def __init__(
        self,
        name: str,
        core: QueueOwner,
        *,
        confirm_on_ack: bool = False,
        max_length: int | None = None,
        refilled: bool = False,
        durable: bool = True,
        auto_delete: bool = False,
        owner: object | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.confirm_on_ack = confirm_on_ack
        self.max_length = max_length
        self.refilled = refilled
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = dict(arguments or {})
        self.bindings: dict[tuple[Exchange[Queue], str], None] = {}
        self.consumers: deque[Consumer] = deque()
        self.unacked = 0
        self.deleted = False
        self._core = core
        self._position = 0
        self._fresh: deque[Message] = deque()
        # Given back. All of them are older than all fresh ones: each has been at the head once.
        self._returned: list[tuple[int, Message]] = []

    @property
    def ready(self) -> int:
        """How many messages wait."""
        return len(self._fresh) + len(self._returned)

    def put(self, message: Message) -> None:
        """Take a new message: hand it to a consumer, or keep it at the end."""
        self._position = message.position = self._position + 1
        if not self._fresh and not self._returned:
            consumer = self._free_consumer()
            if consumer is not None:
                self._hand_over(message, consumer)
                return
        self._fresh.append(message)
        if self.max_length is not None and self.ready > self.max_length:
            _drop(self._pop())

    def drain(self) -> None:
        """Hand over what is ready for as long as a consumer can take it."""
        while self._fresh or self._returned:
            consumer = self._free_consumer()
            if consumer is None:
                return
            message = self._pop()
            if not self._expired(message):
                self._hand_over(message, consumer)

    def fetch(self) -> Message | None:
        """Take the message at the head, for basic.get; it counts as unacknowledged."""
        while self._fresh or self._returned:
            message = self._pop()
            if not self._expired(message):
                message.consumer = None
                self.unacked += 1
                return message
        return None

    def acked(self, message: Message) -> None:
        """A message that was handed over is done."""
        self.unacked -= 1
        if message.receipt is not None:
            message.receipt.settle(True)
        if not self._is_of_the_past(message):
            self._core.note_left(self, 1)

    def rejected(self, messages: list[Message]) -> None:
        """Messages that were handed over are not wanted."""
        self.unacked -= len(messages)
        for message in messages:
            _drop(message)
        self._core.note_left(self, len(messages))

    def requeue(self, messages: list[Message]) -> None:
        """Put back messages that were handed over, each to its old place; does not hand them over again yet."""
        self.unacked -= len(messages)
        if self.deleted:
            for message in messages:
                _drop(message)
            return
        for message in messages:
            if self._is_of_the_past(message):
                _drop(message)
                continue
            message.redelivered = True
            message.consumer = None
            heappush(self._returned, (message.position, message))

    def _is_of_the_past(self, message: Message) -> bool:
        """Whether it was handed to an exclusive consumer that has gone, and the queue is filled anew for the next."""
        consumer = message.consumer
        return self.refilled and consumer is not None and consumer.exclusive and consumer not in self.consumers

    def purge(self) -> int:
        """Drop what is ready. Returns how many."""
        dropped = [message for _, message in self._returned] + list(self._fresh)
        self._returned.clear()
        self._fresh.clear()
        for message in dropped:
            _drop(message)
        return len(dropped)

    @property
    def exclusively_consumed(self) -> bool:
        return any(consumer.exclusive for consumer in self.consumers)

    def _free_consumer(self) -> Consumer | None:
        """The next consumer in turn that can take a message."""
        consumers = self.consumers
        if len(consumers) == 1:
            consumer = consumers[0]
            return consumer if consumer.can_take() else None
        for _ in range(len(consumers)):
            consumer = consumers[0]
            consumers.rotate(-1)
            if consumer.can_take():
                return consumer
        return None

    def _hand_over(self, message: Message, consumer: Consumer) -> None:
        book = consumer.outlet.book
        self._core.note_delivered()
        if consumer.no_ack:
            self.unacked += 1
            consumer.send(message, book.skip())
            self.acked(message)
            return
        message.consumer = consumer
        consumer.held += 1
        self.unacked += 1
        consumer.send(message, book.hold(message))

    def _pop(self) -> Message:
        return heappop(self._returned)[1] if self._returned else self._fresh.popleft()

    def _expired(self, message: Message) -> bool:
        if message.expires_s is None or message.expires_s > self._core.now_s():
            return False
        _drop(message)
        self._core.note_left(self, 1)
        return True


def _drop(message: Message) -> None:
    if message.receipt is not None:
        message.receipt.settle(False)
