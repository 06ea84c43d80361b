"""A double of broker and connection in this process, without sockets, with faults on demand. For tests.

`MemoryBroker.connection` stands in for `AmqpConnection`: the same threads, batches, retries and events, since only
the link below differs. The contract suite runs on both.

    broker = MemoryBroker()
    broker.declare_exchange("results", "topic")
    broker.declare_queue("results", confirm_on="ack")
    broker.bind("results", "results", "*.results")
    connection = broker.connection("amqp://user:secret@memory/%2F", name="test")
    …
    broker.take("results").body           # what a service would have got
    broker.drop_connections()             # and what it must survive
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from farcall.amqp.connection import AmqpConnection
from farcall.amqp.envelope import OutMessage
from farcall.amqp.link import (
    ChannelOwner,
    ConsumerOwner,
    Link,
    LinkFactory,
    LinkOwner,
    OperatorOwner,
    PublisherOwner,
    Target,
)
from farcall.amqp.loop import Loop
from farcall.amqp.memory_queues import Exchange, Message, Queue
from farcall.amqp.operations import (
    BindQueue,
    DeclareExchange,
    DeclareQueue,
    DeleteQueue,
    Done,
    Operation,
    PurgeQueue,
)

__all__ = ["MemoryBroker", "MemoryConnection", "Message"]


class MemoryBroker:
    """Queues and exchanges in this process. All methods from any thread.

    Attributes:
        accepts: asked (user, password) at each login.
        logins: (user, password) of every login so far, refused ones included.
    """

    def __init__(self) -> None:
        self.accepts: Callable[[str, str], bool] = lambda user, password: True
        self.logins: list[tuple[str, str]] = []
        self._changed = threading.Condition(threading.RLock())
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._links: list[_MemoryLink] = []
        self._is_stopped = False
        self._nacks = 0
        self._swallows = False
        self._swallowed = 0
        self._holds = False
        self._held: list[Callable[[], None]] = []

    def connection(self, url: str | Callable[[], str], *, name: str, **options: Any) -> MemoryConnection:
        """As `AmqpConnection(url, name=…, …)`; of the URL only user and password count."""
        return MemoryConnection(self, url, name=name, **options)

    # What exists

    def declare_exchange(self, name: str, kind: Literal["direct", "topic", "fanout"] = "direct") -> None:
        with self._changed:
            self._exchanges.setdefault(name, Exchange(kind, []))

    def declare_queue(self, name: str, confirm_on: Literal["enqueue", "ack"] = "enqueue") -> None:
        """`confirm_on`: whether publishers get their confirm when the message is queued, or when it was taken."""
        with self._changed:
            self._queues.setdefault(name, Queue(name, confirm_on))

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        with self._changed:
            self._exchanges[exchange].bindings.append((routing_key, queue))

    def delete_exchange(self, name: str) -> None:
        with self._changed:
            del self._exchanges[name]

    def delete_queue(self, name: str) -> None:
        """Its messages are dropped, its consumers cancelled."""
        with self._changed:
            queue = self._queues.pop(name)
            for exchange in self._exchanges.values():
                exchange.bindings = [each for each in exchange.bindings if each[1] != name]
            queue.purge()
            self.cancel_consumers(name, queue)

    def purge_queue(self, name: str) -> int:
        """Drops what waits; returns how many."""
        with self._changed:
            return len(self._queues[name].purge())

    # The other side, which is the service's in a test of an agent or an SDK

    def publish(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> bool:
        """Put a message where its key leads, with AMQP properties (`headers`, `timestamp`, …). Whether to any queue."""
        with self._changed:
            return bool(self._route(exchange, routing_key, body, properties, lambda ok: None))

    def take(self, queue: str, timeout_s: float = 10.0) -> Message:
        """Wait for the oldest message that waits in a queue, and acknowledge it. Raises TimeoutError."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._queues[queue].ready, timeout_s)
            if not found:
                raise TimeoutError(f"No message in queue {queue!r} within {timeout_s} s.")
            message = self._queues[queue].ready.pop(0)
            message.settle(True)
            return message

    def bodies(self, queue: str) -> list[bytes]:
        """What waits in a queue, oldest first; without what consumers hold unacknowledged."""
        with self._changed:
            return [message.body for message in self._queues[queue].ready]

    def wait_consumers(self, queue: str, count: int, timeout_s: float = 10.0) -> None:
        """Wait until a queue has this many consumers. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._queues[queue].outlets) == count, timeout_s):
                raise TimeoutError(f"Queue {queue!r} has {len(self._queues[queue].outlets)} consumers, not {count}.")

    # Faults

    def stop(self) -> None:
        """Nobody listens any more, and all connections drop. Queues keep their messages."""
        with self._changed:
            self._is_stopped = True
            self.drop_connections()

    def start(self) -> None:
        """Listen again after `stop`."""
        with self._changed:
            self._is_stopped = False

    def drop_connections(self, name: str | None = None) -> int:
        """Cut all connections, or those of this name, in the middle of whatever they do; returns how many."""
        with self._changed:
            dropped = [link for link in self._links if name is None or link.name == name]
            for link in dropped:
                link.cut("connection dropped by the test")
            return len(dropped)

    def close_channels(self, what: str, code: int = 406, reason: str = "PRECONDITION_FAILED - by the test") -> int:
        """Close the channels that consume from this queue, or were made to publish to this exchange."""
        with self._changed:
            channels = [each for link in self._links for each in link.channels if each.what == what]
            for channel in channels:
                channel.refuse(code, reason)
            return len(channels)

    def cancel_consumers(self, queue: str, _queue: Queue | None = None) -> None:
        """End all subscriptions to a queue (basic.cancel), as when it is deleted."""
        with self._changed:
            for outlet in list((_queue or self._queues[queue]).outlets):
                outlet.cancelled()

    def nack_next(self, count: int = 1) -> None:
        """Refuse the next messages that connections publish."""
        with self._changed:
            self._nacks += count

    def swallow_publishes(self, on: bool = True) -> None:
        """Lose what connections publish, as if it were still on the wire when the connection drops."""
        with self._changed:
            self._swallows = on
            self._swallowed = 0

    def wait_swallowed(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until so many messages were lost. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._swallowed >= count, timeout_s):
                raise TimeoutError(f"{self._swallowed} messages were lost, not {count}.")

    def hold_confirms(self) -> None:
        """Take messages, but keep their confirms back until `release_confirms`."""
        with self._changed:
            self._holds = True

    def wait_held(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until so many confirms are kept back. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._held) >= count, timeout_s):
                raise TimeoutError(f"{len(self._held)} confirms are kept back, not {count}.")

    def release_confirms(self) -> None:
        with self._changed:
            self._holds = False
            held, self._held = self._held, []
            for confirm in held:
                confirm()

    # For links and channels, which hold the lock

    def _route(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Mapping[str, Any],
        on_settled: Callable[[bool], None],
    ) -> list[str]:
        if exchange:
            names = [each for each in self._exchanges[exchange].route(routing_key) if each in self._queues]
        else:
            names = [routing_key] if routing_key in self._queues else []
        missing, taken = len(names), True

        def settled(ok: bool) -> None:
            nonlocal missing, taken
            missing, taken = missing - 1, taken and ok
            if missing == 0:
                on_settled(taken)

        for name in names:
            self._queues[name].put(Message(body, routing_key, properties, settled))
        self._changed.notify_all()
        return names

    def _confirm(self, confirm: Callable[[], None]) -> None:
        if self._holds:
            self._held.append(confirm)
            self._changed.notify_all()
        else:
            confirm()


class MemoryConnection(AmqpConnection):
    """An `AmqpConnection` whose link leads to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, url: str | Callable[[], str], *, name: str, **options: Any) -> None:
        super().__init__(url, name=name, **options)
        self._broker = broker

    def _link_factory(self) -> LinkFactory:
        def make(loop: Loop, target: Target, owner: LinkOwner) -> Link:
            return _MemoryLink(self._broker, loop, target, owner)

        return make


class _MemoryLink:
    """One login. Calls to its owner are posted to the loop, so they never happen inside a call of the owner's."""

    def __init__(self, broker: MemoryBroker, loop: Loop, target: Target, owner: LinkOwner) -> None:
        parts = urlsplit(target.url)
        if parts.scheme not in ("amqp", "amqps"):
            raise ValueError(f"Not an AMQP URL: scheme {parts.scheme!r}")
        self.broker = broker
        self.name = target.name
        self.channels: list[_Channel] = []
        self._loop = loop
        self._owner: LinkOwner | None = owner
        self._login = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
        self._is_open = False
        loop.post(self._open)

    @property
    def is_attached(self) -> bool:
        return self._owner is not None

    def tell(self, callback: Callable[..., None], *args: Any) -> None:
        self._loop.post(callback, *args)

    def consumer_channel(self, owner: ConsumerOwner, queue: str, prefetch: int, exclusive: bool) -> _ConsumerChannel:
        return _ConsumerChannel(self, owner, queue, prefetch, exclusive)

    def publisher_channel(self, owner: PublisherOwner, exchange: str, queue: str) -> _PublisherChannel:
        return _PublisherChannel(self, owner, exchange, queue)

    def operator_channel(self, owner: OperatorOwner) -> _OperatorChannel:
        return _OperatorChannel(self, owner)

    def close(self) -> None:
        if self._is_open:
            self.cut("closed")
        elif self._owner is not None:
            self.tell(self._tell_end, "closed while opening", False)

    def abandon(self) -> None:
        self._owner = None
        self.cut("abandoned")

    def close_socket(self) -> None:
        """There is none."""

    def cut(self, reason: str) -> None:
        with self.broker._changed:
            if self in self.broker._links:
                self.broker._links.remove(self)
            for channel in list(self.channels):
                channel.leave()
            self.broker._changed.notify_all()
        self.tell(self._tell_end, reason, False)

    def _open(self) -> None:
        broker, owner = self.broker, self._owner
        if owner is None:
            return
        with broker._changed:
            if broker._is_stopped:
                self._tell_end("connection refused: the broker is stopped", False)
                return
            broker.logins.append(self._login)
            if not broker.accepts(*self._login):
                self._tell_end("403 ACCESS_REFUSED - login was refused", True)
                return
            broker._links.append(self)
            self._is_open = True
        owner.link_opened()

    def _tell_end(self, reason: str, refused: bool) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self._is_open:
            owner.link_lost(reason, False)
        else:
            owner.link_failed(reason, refused)


class _Channel:
    def __init__(self, link: _MemoryLink, owner: ChannelOwner, what: str) -> None:
        self.what = what
        self._link = link
        self._broker = link.broker
        self._base_owner = owner
        self._is_open = True
        self._is_heard = True
        link.channels.append(self)
        link.tell(self._set_up)

    def leave(self) -> None:
        """Give everything back; what is on its way to the owner is lost."""
        self._is_open = False
        if self in self._link.channels:
            self._link.channels.remove(self)

    def close(self) -> None:
        with self._broker._changed:
            self._is_heard = False
            self.leave()
            self._broker._changed.notify_all()

    def refuse(self, code: int, reason: str, blamed: bool = True) -> None:
        self.leave()
        self._broker._changed.notify_all()
        self._link.tell(self._tell_closed, code, reason, blamed)

    def tell(self, callback: Callable[..., None], *args: Any) -> None:
        self._link.tell(self._tell, callback, args)

    def _tell_closed(self, code: int, reason: str, blamed: bool) -> None:
        if self._is_heard and self._link.is_attached:
            self._is_heard = False
            self._base_owner.channel_closed(code, reason, blamed)

    def _tell(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self._is_open:
            callback(*args)

    def _set_up(self) -> None:
        raise NotImplementedError


class _ConsumerChannel(_Channel):
    def __init__(self, link: _MemoryLink, owner: ConsumerOwner, queue: str, prefetch: int, exclusive: bool) -> None:
        super().__init__(link, owner, queue)
        self.exclusive = exclusive
        self._owner = owner
        self._prefetch = prefetch
        self._queue: Queue | None = None
        self._unacked: dict[int, Message] = {}
        self._delivered = 0

    @property
    def has_room(self) -> bool:
        return not self._prefetch or len(self._unacked) < self._prefetch

    def deliver(self, message: Message) -> None:
        self._delivered += 1
        self._unacked[self._delivered] = message
        self.tell(
            self._owner.delivered,
            message.body,
            message.headers,
            self._delivered,
            message.redelivered,
            message.timestamp,
            message.content_type,
            message.routing_key,
        )

    def cancelled(self) -> None:
        self.refuse(0, f"The broker cancelled the consumer of queue {self.what!r}.", False)

    def ack(self, tag: int, multiple: bool) -> None:
        with self._broker._changed:
            tags = [each for each in self._unacked if each <= tag] if multiple else [tag]
            if tag not in self._unacked:
                self.refuse(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
                return
            for each in tags:
                self._unacked.pop(each).settle(True)
            if self._queue is not None:
                self._queue.dispatch()
            self._broker._changed.notify_all()

    def nack(self, tag: int, requeue: bool) -> None:
        with self._broker._changed:
            message = self._unacked.pop(tag)
            if requeue and self._queue is not None:
                self._queue.put_back([message])
            else:
                message.settle(False)
            self._broker._changed.notify_all()

    def stop_consuming(self) -> None:
        with self._broker._changed:
            if self._queue is not None:
                self._queue.detach(self)
            self._broker._changed.notify_all()
        self.tell(self._owner.consume_stopped)

    def leave(self) -> None:
        super().leave()
        if self._queue is not None:
            self._queue.detach(self)
            self._queue.put_back(list(self._unacked.values()))
            self._unacked.clear()

    def _set_up(self) -> None:
        broker = self._broker
        with broker._changed:
            if not self._is_open:
                return
            queue = broker._queues.get(self.what)
            if queue is None:
                self.refuse(404, f"NOT_FOUND - no queue {self.what!r}")
                return
            if not queue.may_attach(self.exclusive):
                self.refuse(403, f"ACCESS_REFUSED - queue {self.what!r} in exclusive use")
                return
            self._queue = queue
            self.tell(self._owner.channel_ready)
            queue.attach(self)
            broker._changed.notify_all()


class _PublisherChannel(_Channel):
    def __init__(self, link: _MemoryLink, owner: PublisherOwner, exchange: str, queue: str) -> None:
        super().__init__(link, owner, exchange)
        self._owner = owner
        self._declared_queue = queue
        self._sent = 0

    def send(self, messages: Sequence[OutMessage]) -> None:
        with self._broker._changed:
            for message in messages:
                if not self._is_open:
                    return
                self._sent += 1
                if self._broker._swallows:
                    self._broker._swallowed += 1
                    self._broker._changed.notify_all()
                else:
                    self._take(message, self._sent)

    def _take(self, message: OutMessage, tag: int) -> None:
        broker, envelope = self._broker, message.envelope
        if envelope.exchange and envelope.exchange not in broker._exchanges:
            self.refuse(404, f"NOT_FOUND - no exchange {envelope.exchange!r}")
            return
        if broker._nacks:
            broker._nacks -= 1
            self._confirm(tag, False)
            return
        names = broker._route(
            envelope.exchange,
            envelope.routing_key,
            message.body,
            envelope.properties,
            lambda ok: self._confirm(tag, ok),
        )
        if not names:
            if envelope.mandatory:
                self.tell(self._owner.returned, envelope.exchange, envelope.routing_key, message.body)
            self._confirm(tag, True)

    def _confirm(self, tag: int, ok: bool) -> None:
        self._broker._confirm(lambda: self.tell(self._owner.confirmed, tag, False, ok))

    def _set_up(self) -> None:
        with self._broker._changed:
            if not self._is_open:
                return
            if self.what and self.what not in self._broker._exchanges:
                self.refuse(404, f"NOT_FOUND - no exchange {self.what!r}")
            elif self._declared_queue and self._declared_queue not in self._broker._queues:
                self.refuse(404, f"NOT_FOUND - no queue {self._declared_queue!r}")
            else:
                self.tell(self._owner.channel_ready)


class _OperatorChannel(_Channel):
    """Arguments of queues are not kept, and exclusive ones are as good as others."""

    def __init__(self, link: _MemoryLink, owner: OperatorOwner) -> None:
        super().__init__(link, owner, "")
        self._owner = owner

    def perform(self, operation: Operation) -> None:
        with self._broker._changed:
            if not self._is_open:
                return
            outcome = self._outcome(operation)
            if isinstance(outcome, str):
                self.refuse(int(outcome[:3]), outcome[4:])
            else:
                self.tell(self._owner.performed, outcome)

    def _outcome(self, operation: Operation) -> Done | str:
        broker = self._broker
        match operation:
            case DeclareExchange():
                if operation.passive and operation.name not in broker._exchanges:
                    return f"404 NOT_FOUND - no exchange {operation.name!r}"
                broker.declare_exchange(operation.name, operation.kind)  # type: ignore[arg-type]  # as its Literal
                return Done()
            case DeclareQueue():
                if operation.passive and operation.name not in broker._queues:
                    return f"404 NOT_FOUND - no queue {operation.name!r}"
                broker.declare_queue(operation.name)
                queue = broker._queues[operation.name]
                return Done(messages=len(queue.ready), consumers=len(queue.outlets))
            case BindQueue():
                if operation.exchange not in broker._exchanges:
                    return f"404 NOT_FOUND - no exchange {operation.exchange!r}"
                bindings = broker._exchanges[operation.exchange].bindings
                if (operation.routing_key, operation.queue) not in bindings:
                    bindings.append((operation.routing_key, operation.queue))
                return Done()
            case PurgeQueue():
                if operation.name not in broker._queues:
                    return f"404 NOT_FOUND - no queue {operation.name!r}"
                return Done(messages=broker.purge_queue(operation.name))
            case DeleteQueue():
                found = broker._queues.get(operation.name)
                if found is None:
                    return Done()
                if operation.if_unused and found.outlets:
                    return f"406 PRECONDITION_FAILED - queue {operation.name!r} in use"
                count = len(found.ready)
                broker.delete_queue(operation.name)
                return Done(messages=count)

    def _set_up(self) -> None:
        with self._broker._changed:
            if self._is_open:
                self.tell(self._owner.channel_ready)
