"""One channel of one connection: its methods, one by one, turned into calls of the core, after asking the authority.

Raises AmqpError for what it refuses; `protocol` decides from the code whether the channel or the connection closes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import uuid4

from pamqp import commands

from farcall.broker.authority import Action, Authority, Principal, ResourceKind
from farcall.broker.core import Broker
from farcall.broker.errors import AmqpError, Reply
from farcall.broker.frames import (
    CONTENT,
    FRAME_HEADER,
    content_frames,
    decode_method,
    deliver_frames,
    deliver_prefix,
    encode_ack,
    encode_declare_ok,
    encode_get_ok,
    encode_method,
    encode_nack,
    encode_return,
    whole_content,
)
from farcall.broker.ledgers import ConfirmBook
from farcall.broker.messages import Message, Route
from farcall.broker.properties import read_fields
from farcall.broker.queues import UNLIMITED, Consumer, Outlet, Queue
from farcall.broker.routing import Exchange, ExchangeKind
from farcall.broker.topology import server_named

__all__ = ["Channel", "ChannelHost"]

_TARGETS_KEPT: Final = 512
_PASSIVE: Final[tuple[Action, ...]] = ("read", "write", "configure")


class ChannelHost(Protocol):
    """The connection, as its channels see it."""

    shut: bool
    body_max: int
    max_message_bytes: int
    broker: Broker
    authority: Authority
    can_cancel: bool
    """The client understands a basic.cancel from us."""

    @property
    def principal(self) -> Principal: ...

    def send(self, *pieces: bytes | memoryview) -> None:
        """Write frames that the client waits for, at the end of the turn."""
        ...

    def deliver(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write the frames of a delivery, at the end of the turn."""
        ...

    def confirms_due(self, channel: Channel) -> None:
        """Have `flush_confirms` called before the turn's output is written."""
        ...

    def charge(self, size_bytes: int) -> None: ...

    def release(self, size_bytes: int) -> None: ...


class Channel:
    """An open channel.

    Attributes:
        number: as the client chose it.
        assembling: a basic.publish has been read whose content is not complete.
    """

    def __init__(self, number: int, host: ChannelHost) -> None:
        self.number = number
        self.assembling = False
        self.outlet = Outlet(host)
        self._host = host
        self._broker = host.broker
        self._prefetch = 0
        self._last_queue = ""
        self._confirms: ConfirmBook | None = None
        self._targets: dict[bytes, tuple[Route, bool]] = {}
        self._content: _Content | None = None

    # --- The way of a message ----------------------------------------------------------------------------------

    def publish(self, data: bytes, at: int, stop: int, end: int) -> int:
        """Take a basic.publish, with its content if all of it is in the buffer.

        Args:
            data: the buffer; its bytes from `at` to `stop` are the arguments of the method.
            end: where the buffer ends.

        Returns:
            Where the next frame begins.
        """
        route, mandatory = self._targets.get(data[at + 2 : stop]) or self._find_target(data[at + 2 : stop])
        content = whole_content(data, stop + 1, end, self.number, self._host.body_max)
        if content is None:
            self.assembling = True
            self._content = _Content(route, mandatory)
            return stop + 1
        raw_properties, body, next_at = content
        self._submit(route, mandatory, raw_properties, body)
        return next_at

    def content_frame(self, kind: int, payload: bytes) -> None:
        """Take a header or body frame of a message that did not come in one piece."""
        content = self._content
        if content is None or (kind == FRAME_HEADER) != (content.raw_properties is None):
            raise AmqpError(Reply.UNEXPECTED_FRAME, "content frame out of place")
        if kind == FRAME_HEADER:
            content.begin(payload, self._host.max_message_bytes)
        else:
            content.add(payload)
        if content.left == 0 and content.raw_properties is not None:
            self._content = None
            self.assembling = False
            self._submit(content.route, content.mandatory, content.raw_properties, b"".join(content.parts))

    def ack(self, tag: int, multiple: bool) -> None:
        try:
            self.outlet.ack(tag, multiple)
        except KeyError:
            raise _unknown_tag(tag) from None

    def flush_confirms(self) -> None:
        """Write what the publisher is to be told by now."""
        if self._confirms is None:
            return
        for confirm in self._confirms.take():
            encode = encode_ack if confirm.ok else encode_nack
            self._host.send(encode(self.number, confirm.number, confirm.multiple))

    def _find_target(self, address: bytes) -> tuple[Route, bool]:
        """Read exchange, routing key and bits of a basic.publish; remembered, with the authority's consent."""
        try:
            key_at = 1 + address[0]
            exchange = address[1:key_at].decode()
            bits_at = key_at + 1 + address[key_at]
            key = address[key_at + 1 : bits_at].decode()
            bits = address[bits_at]
        except (IndexError, UnicodeDecodeError) as exc:
            raise AmqpError(Reply.SYNTAX_ERROR, "illegal arguments of Basic.Publish") from exc
        if bits & 2:
            raise AmqpError(Reply.NOT_IMPLEMENTED, "immediate=true")
        self._require("exchange", exchange, "write")
        found = self._broker.topology.exchange(exchange)
        if found.internal:
            raise AmqpError(Reply.ACCESS_REFUSED, f"cannot publish to internal exchange '{exchange}' in vhost '/'")
        self._require_key(found, key)
        if len(self._targets) >= _TARGETS_KEPT:
            self._targets.clear()
        target = self._targets[address] = (self._broker.topology.route(exchange, key), bool(bits & 1))
        return target

    def _submit(self, route: Route, mandatory: bool, raw_properties: bytes, body: bytes) -> None:
        try:
            fields = read_fields(raw_properties)
        except ValueError as exc:
            raise AmqpError(Reply.SYNTAX_ERROR, f"illegal content header: {exc}") from exc
        name = self._host.principal.name
        if fields.get("user_id", name) != name:
            raise AmqpError(
                Reply.PRECONDITION_FAILED,
                f"user_id property set to '{fields['user_id']}' but authenticated user was '{name}'",
            )
        routed = self._broker.submit(route, body, raw_properties, fields.get("expiration"), self._confirms, self._host)
        if mandatory and not routed:
            self._host.send(
                encode_return(self.number, Reply.NO_ROUTE, route.encoded),
                *content_frames(self.number, raw_properties, body, self._host.body_max),
            )

    # --- Other methods ------------------------------------------------------------------------------------------

    def handle(self, method: int, payload: bytes) -> None:
        """Take any other method of an open channel.

        Raises:
            AmqpError: among others 540 for what this broker does not do, 503 for what only a broker may say.
        """
        value = decode_method(method, payload)
        handler = _HANDLERS.get(type(value))
        if handler is None:
            raise AmqpError(
                *(
                    (Reply.NOT_IMPLEMENTED, f"{value.name} is not implemented by this broker")
                    if value.name in _NOT_IMPLEMENTED
                    else (Reply.COMMAND_INVALID, f"{value.name} is not for a client to send here")
                )
            )
        handler(self, value)

    def _reply(self, value: Any) -> None:
        self._host.send(encode_method(self.number, value))

    def _flow(self, value: Any) -> None:
        if not value.active:
            raise AmqpError(Reply.NOT_IMPLEMENTED, "active=false")
        self._reply(commands.Channel.FlowOk(True))

    def _exchange_declare(self, value: Any) -> None:
        name = value.exchange
        if value.passive:
            self._require("exchange", name, *_PASSIVE)
            self._broker.topology.exchange(name)
        else:
            self._require("exchange", name, "configure")
            _refuse_arguments(value.arguments, "exchange", name, {})
            self._broker.topology.add_exchange(
                Exchange(
                    name,
                    _kind(value.exchange_type),
                    durable=value.durable,
                    auto_delete=value.auto_delete,
                    internal=value.internal,
                )
            )
        if not value.nowait:
            self._reply(commands.Exchange.DeclareOk())

    def _exchange_delete(self, value: Any) -> None:
        self._require("exchange", value.exchange, "configure")
        try:
            self._broker.topology.remove_exchange(value.exchange, if_unused=value.if_unused)
        except AmqpError as error:
            if error.reply is not Reply.NOT_FOUND:  # deleting what is not there is done
                raise
        if not value.nowait:
            self._reply(commands.Exchange.DeleteOk())

    def _queue_declare(self, value: Any) -> None:
        if value.passive:
            name = self._queue_name(value.queue)
            self._require("queue", name, *_PASSIVE)
            queue = self._broker.topology.queue(name, self._host)
        else:
            queue = self._declare(value)
        self._last_queue = queue.name
        if not value.nowait:
            self._host.send(encode_declare_ok(self.number, queue.name, queue.ready, len(queue.consumers)))

    def _declare(self, value: Any) -> Queue:
        name = value.queue or server_named()
        self._require("queue", name, "configure")
        arguments = value.arguments or {}
        _refuse_arguments(arguments, "queue", name, _QUEUE_ARGUMENTS)
        return self._broker.topology.add_queue(
            Queue(
                name,
                self._broker,
                max_length=arguments.get("x-max-length"),
                durable=value.durable,
                auto_delete=value.auto_delete,
                owner=self._host if value.exclusive else None,
                arguments=arguments,
            )
        )

    def _queue_bind(self, value: Any) -> None:
        queue, key = self._binding(value)
        self._broker.topology.bind(queue, value.exchange, key)
        if not value.nowait:
            self._reply(commands.Queue.BindOk())

    def _queue_unbind(self, value: Any) -> None:
        queue, key = self._binding(value)
        self._broker.topology.unbind(queue, value.exchange, key)
        self._reply(commands.Queue.UnbindOk())

    def _binding(self, value: Any) -> tuple[Queue, str]:
        name = self._queue_name(value.queue)
        key = value.routing_key if value.queue or value.routing_key else name
        self._require("queue", name, "write")
        self._require("exchange", value.exchange, "read")
        queue = self._broker.topology.queue(name, self._host)
        self._require_key(self._broker.topology.exchange(value.exchange), key)
        return queue, key

    def _queue_purge(self, value: Any) -> None:
        count = self._readable_queue(value.queue).purge()
        if not value.nowait:
            self._reply(commands.Queue.PurgeOk(count))

    def _queue_delete(self, value: Any) -> None:
        name = self._queue_name(value.queue)
        self._require("queue", name, "configure")
        count = 0
        if self._broker.has_queue(name):  # deleting what is not there is done
            queue = self._broker.topology.queue(name, self._host)
            if value.if_unused and queue.consumers:
                raise AmqpError(Reply.PRECONDITION_FAILED, f"queue '{name}' in vhost '/' in use")
            if value.if_empty and queue.ready:
                raise AmqpError(Reply.PRECONDITION_FAILED, f"queue '{name}' in vhost '/' is not empty")
            count = self._broker.remove_queue(queue)
        if not value.nowait:
            self._reply(commands.Queue.DeleteOk(count))

    def _qos(self, value: Any) -> None:
        if value.prefetch_size:
            raise AmqpError(Reply.NOT_IMPLEMENTED, f"prefetch_size!=0 ({value.prefetch_size})")
        self._reply(commands.Basic.QosOk())
        if value.global_:
            self.outlet.limit = value.prefetch_count or UNLIMITED
            self.outlet.wake()
        else:
            self._prefetch = value.prefetch_count

    def _consume(self, value: Any) -> None:
        queue = self._readable_queue(value.queue)
        tag = value.consumer_tag or f"amq.ctag-{uuid4().hex}"
        if tag in self.outlet.consumers:
            raise AmqpError(Reply.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
        self._broker.admit(queue, value.exclusive)
        consumer = _WireConsumer(queue, self, tag, self._prefetch, value.no_ack, value.exclusive)
        if not value.nowait:
            self._reply(commands.Basic.ConsumeOk(tag))
        self._broker.attach(consumer)

    def _cancel(self, value: Any) -> None:
        consumer = self.outlet.consumers.get(value.consumer_tag)
        if not value.nowait:
            self._reply(commands.Basic.CancelOk(value.consumer_tag))
        if consumer is not None:
            self._broker.detach(consumer)

    def _get(self, value: Any) -> None:
        queue = self._readable_queue(value.queue)
        message = queue.fetch()
        if message is None:
            self._reply(commands.Basic.GetEmpty())
            return
        tag = self.outlet.book.skip() if value.no_ack else self.outlet.book.hold(message)
        self._host.send(
            encode_get_ok(self.number, tag, message, queue.ready),
            *content_frames(self.number, message.raw_properties, message.body, self._host.body_max),
        )
        if value.no_ack:
            queue.acked(message)

    def _ack(self, value: Any) -> None:
        self.ack(value.delivery_tag, value.multiple)

    def _nack(self, value: Any) -> None:
        self._give_back(value.delivery_tag, value.multiple, value.requeue)

    def _reject(self, value: Any) -> None:
        self._give_back(value.delivery_tag, False, value.requeue)

    def _give_back(self, tag: int, multiple: bool, requeue: bool) -> None:
        try:
            self.outlet.reject(tag, multiple, requeue)
        except KeyError:
            raise _unknown_tag(tag) from None

    def _recover(self, value: Any) -> None:
        if not value.requeue:
            raise AmqpError(Reply.NOT_IMPLEMENTED, "requeue=false")
        if isinstance(value, commands.Basic.Recover):
            self._reply(commands.Basic.RecoverOk())
        self.outlet.recover()

    def _confirm_select(self, value: Any) -> None:
        if self._confirms is None:
            self._confirms = ConfirmBook(lambda: self._host.confirms_due(self))
        if not value.nowait:
            self._reply(commands.Confirm.SelectOk())

    # --- Names and rights ----------------------------------------------------------------------------------------

    def _queue_name(self, name: str) -> str:
        """An empty name means the queue that was declared last on this channel."""
        if name:
            return name
        if not self._last_queue:
            raise AmqpError(Reply.NOT_ALLOWED, "no previously declared queue")
        return self._last_queue

    def _readable_queue(self, name: str) -> Queue:
        name = self._queue_name(name)
        self._require("queue", name, "read")
        return self._broker.topology.queue(name, self._host)

    def _require(self, resource: ResourceKind, name: str, *one_of: Action) -> None:
        allows, principal = self._host.authority.allows, self._host.principal
        if not any(allows(principal, action, resource, name) for action in one_of):
            raise AmqpError(
                Reply.ACCESS_REFUSED,
                f"access to {resource} '{name}' in vhost '/' refused for user '{principal.name}'",
            )

    def _require_key(self, exchange: Exchange[Queue], key: str) -> None:
        if exchange.kind is not ExchangeKind.TOPIC:
            return
        user = self._host.principal
        if not self._host.authority.allows_routing_key(user, exchange.name, key):
            raise AmqpError(
                Reply.ACCESS_REFUSED,
                f"access to topic '{key}' in exchange '{exchange.name}' in vhost '/' refused for user '{user.name}'",
            )


class _WireConsumer(Consumer):
    """A consumer at the other end of the connection."""

    __slots__ = ("_host", "_number", "_prefix")

    def __init__(self, queue: Queue, channel: Channel, tag: str, limit: int, no_ack: bool, exclusive: bool) -> None:
        super().__init__(queue, channel.outlet, tag, limit=limit, no_ack=no_ack, exclusive=exclusive)
        self._host = channel._host
        self._number = channel.number
        self._prefix = deliver_prefix(tag)

    def send(self, message: Message, tag: int) -> None:
        self._host.deliver(deliver_frames(self._number, self._prefix, tag, message, self._host.body_max))

    def cancelled(self) -> None:
        if self._host.can_cancel:
            self._host.send(encode_method(self._number, commands.Basic.Cancel(self.tag, True)))


class _Content:
    """A message whose frames come one by one."""

    __slots__ = ("left", "mandatory", "parts", "raw_properties", "route")

    def __init__(self, route: Route, mandatory: bool) -> None:
        self.route = route
        self.mandatory = mandatory
        self.raw_properties: bytes | None = None
        self.parts: list[bytes] = []
        self.left = 0

    def begin(self, payload: bytes, max_bytes: int) -> None:
        if len(payload) < CONTENT.size + 2:
            raise AmqpError(Reply.FRAME_ERROR, "content header is truncated")
        class_id, _, size = CONTENT.unpack_from(payload)
        if class_id != 60:
            raise AmqpError(Reply.UNEXPECTED_FRAME, f"expected content header for class 60, got one for {class_id}")
        if size > max_bytes:
            raise AmqpError(
                Reply.PRECONDITION_FAILED, f"message size {size} is larger than configured max size {max_bytes}"
            )
        self.raw_properties = payload[CONTENT.size :]
        self.left = size

    def add(self, payload: bytes) -> None:
        if len(payload) > self.left:
            raise AmqpError(Reply.FRAME_ERROR, "message body is longer than its header says")
        self.left -= len(payload)
        self.parts.append(payload)


_HANDLERS: Final[Mapping[type, Callable[[Channel, Any], None]]] = {
    commands.Channel.Flow: Channel._flow,
    commands.Exchange.Declare: Channel._exchange_declare,
    commands.Exchange.Delete: Channel._exchange_delete,
    commands.Queue.Declare: Channel._queue_declare,
    commands.Queue.Bind: Channel._queue_bind,
    commands.Queue.Unbind: Channel._queue_unbind,
    commands.Queue.Purge: Channel._queue_purge,
    commands.Queue.Delete: Channel._queue_delete,
    commands.Basic.Qos: Channel._qos,
    commands.Basic.Consume: Channel._consume,
    commands.Basic.Cancel: Channel._cancel,
    commands.Basic.Get: Channel._get,
    commands.Basic.Ack: Channel._ack,
    commands.Basic.Nack: Channel._nack,
    commands.Basic.Reject: Channel._reject,
    commands.Basic.Recover: Channel._recover,
    commands.Basic.RecoverAsync: Channel._recover,
    commands.Confirm.Select: Channel._confirm_select,
}

_NOT_IMPLEMENTED: Final = frozenset(
    ("Exchange.Bind", "Exchange.Unbind", "Tx.Select", "Tx.Commit", "Tx.Rollback", "Connection.UpdateSecret")
)


def _queue_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_QUEUE_ARGUMENTS: Final[Mapping[str, Callable[[object], bool]]] = {
    "x-max-length": _queue_length,
    "x-queue-type": lambda value: value == "classic",
}


def _refuse_arguments(
    arguments: Mapping[str, Any] | None, what: str, name: str, known: Mapping[str, Callable[[object], bool]]
) -> None:
    """A promise that is not kept is worse than a refusal, so unknown x-arguments are not ignored."""
    for key, value in (arguments or {}).items():
        if key not in known and not key.startswith("x-") and key != "alternate-exchange":
            continue
        if key not in known or not known[key](value):
            raise AmqpError(
                Reply.PRECONDITION_FAILED, f"invalid arg '{key}' for {what} '{name}' in vhost '/': not supported here"
            )


def _kind(name: str) -> ExchangeKind:
    try:
        return ExchangeKind(name)
    except ValueError:
        raise AmqpError(Reply.COMMAND_INVALID, f"unknown exchange type '{name}'") from None


def _unknown_tag(tag: int) -> AmqpError:
    return AmqpError(Reply.PRECONDITION_FAILED, f"unknown delivery tag {tag}")
