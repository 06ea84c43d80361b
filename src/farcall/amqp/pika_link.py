"""Links by pika: its SelectConnection on our loop. The only module that knows how pika names and reports things.

pika owns the protocol (handshake, heartbeats, channels, decoding). Sending messages goes past it, as whole batches
of encoded frames (`envelope.frames_of`).
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika import exceptions, spec
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel as PikaChannel

from farcall.amqp.envelope import OutMessage, frames_of
from farcall.amqp.link import ChannelOwner, ConsumerOwner, LinkOwner, NoChannel, PublisherOwner, Target
from farcall.amqp.loop import THREAD_PREFIX, Loop
from farcall.tls import Trust, find_trust, why_no_tls

__all__ = ["PikaLink"]

_log = logging.getLogger(__name__)

_CONNECTION_FORCED = 320
_NOT_ALLOWED = 530
_INTERNAL_ERROR = 541
_NOT_OUR_FAULT = frozenset({_CONNECTION_FORCED, _INTERNAL_ERROR})
_QUOTES = " '\""
_REFUSAL = re.compile(r"ConnectionClosedByBroker: \((\d+)\)(.*)", re.DOTALL)


class PikaLink:
    """A connection by pika; see `link.Link`."""

    def __init__(self, loop: Loop, target: Target, owner: LinkOwner) -> None:
        _hush_pika()
        self._owner: LinkOwner | None = owner
        self._channels: weakref.WeakSet[_Channel] = weakref.WeakSet()
        self._trust = target.trust or find_trust()
        parameters = _parameters(target, self._trust)
        self._host, self._port = parameters.host, parameters.port
        self._connection = SelectConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=loop,  # has the methods that pika's adapter asks for
        )

    def consumer_channel(self, owner: ConsumerOwner, queue: str, prefetch: int, exclusive: bool) -> _ConsumerChannel:
        channel = _ConsumerChannel(self._connection, owner, queue, prefetch, exclusive)
        self._channels.add(channel)
        return channel

    def publisher_channel(self, owner: PublisherOwner, exchange: str, queue: str) -> _PublisherChannel:
        channel = _PublisherChannel(self._connection, owner, exchange, queue)
        self._channels.add(channel)
        return channel

    def close(self) -> None:
        connection = self._connection
        if not (connection.is_closing or connection.is_closed):
            connection.close()

    # pika has no public way to drop a socket without talking to the peer; hence its private members here.

    def abandon(self) -> None:
        self._detach()
        if not self._connection.is_closed:
            self._connection._terminate_stream(exceptions.StreamLostError("abandoned"))

    def close_socket(self) -> None:
        # Not `abort`: it would take the socket out of the selector, which the kernel shares with our parent.
        sock = getattr(getattr(self._connection, "_transport", None), "_sock", None)
        if sock is not None:
            sock.close()

    def _detach(self) -> LinkOwner | None:
        owner, self._owner = self._owner, None
        for channel in list(self._channels):
            channel.detach()
        self._channels.clear()
        return owner

    def _on_open(self, _connection: object) -> None:
        if self._owner is not None:
            self._owner.link_opened()

    def _on_open_error(self, _connection: object, error: BaseException | str) -> None:
        owner = self._detach()
        if owner is not None:
            reason, refused = _why_not_opened(error)
            owner.link_failed(self._why_no_tls(error) or reason, refused)

    def _why_no_tls(self, error: BaseException | str) -> str | None:
        if isinstance(error, str):
            return None
        return why_no_tls(error, host=self._host, port=self._port, trust=self._trust)

    def _on_close(self, _connection: object, error: BaseException) -> None:
        owner = self._detach()
        if owner is not None:
            code = error.reply_code if isinstance(error, exceptions.ConnectionClosedByBroker) else _CONNECTION_FORCED
            owner.link_lost(_text(error), code not in _NOT_OUR_FAULT)


class _Channel:
    """What consumers' and publishers' channels have in common."""

    def __init__(self, connection: SelectConnection, owner: ChannelOwner) -> None:
        self._is_attached = True
        self._base_owner = owner
        self._connection = connection
        try:
            self._pika: PikaChannel = connection.channel(on_open_callback=self._on_open)
        except exceptions.AMQPError as exc:
            raise NoChannel(repr(exc)) from exc
        self._pika.add_on_close_callback(self._on_close)

    def detach(self) -> None:
        self._is_attached = False

    def close(self) -> None:
        self.detach()
        if not (self._pika.is_closing or self._pika.is_closed):
            self._pika.close()

    def _on_open(self, _channel: object) -> None:
        if self._is_attached:
            self._set_up()

    def _set_up(self) -> None:
        raise NotImplementedError

    def _guarded(self, callback: Callable[[], None]) -> Callable[[object], None]:
        """For pika's completion callbacks: nothing happens once nobody listens."""

        def complete(_frame: object) -> None:
            if self._is_attached:
                callback()

        return complete

    def _on_close(self, _channel: object, error: BaseException) -> None:
        # With the connection lost, or closed by us, its own callback tells the owner.
        if self._is_attached and isinstance(error, exceptions.ChannelClosedByBroker):
            self.detach()
            self._base_owner.channel_closed(error.reply_code, _text(error), error.reply_code not in _NOT_OUR_FAULT)


class _ConsumerChannel(_Channel):
    """A channel with one subscription; see `link.Channel`."""

    def __init__(
        self, connection: SelectConnection, owner: ConsumerOwner, queue: str, prefetch: int, exclusive: bool
    ) -> None:
        super().__init__(connection, owner)
        self._owner = owner
        self._queue = queue
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._tag = ""

    def ack(self, tag: int, multiple: bool) -> None:
        self._pika.basic_ack(tag, multiple)

    def nack(self, tag: int, requeue: bool) -> None:
        self._pika.basic_nack(tag, requeue=requeue)

    def stop_consuming(self) -> None:
        self._pika.basic_cancel(self._tag, callback=self._guarded(self._owner.consume_stopped))

    def _set_up(self) -> None:
        self._pika.add_on_cancel_callback(self._on_cancel)
        if self._prefetch:
            self._pika.basic_qos(prefetch_count=self._prefetch)
        self._tag = self._pika.basic_consume(
            self._queue,
            self._on_message,
            exclusive=self._exclusive,
            callback=self._guarded(self._owner.channel_ready),
        )

    def _on_cancel(self, _frame: object) -> None:
        if self._is_attached:
            self.close()
            self._owner.channel_closed(0, f"The broker cancelled the consumer of queue {self._queue!r}.", False)

    def _on_message(
        self, _channel: object, method: spec.Basic.Deliver, properties: spec.BasicProperties, body: bytes
    ) -> None:
        if self._is_attached:
            self._owner.delivered(
                body,
                properties.headers or {},
                method.delivery_tag,
                method.redelivered,
                properties.timestamp,
                properties.content_type,
                method.routing_key,
            )


class _PublisherChannel(_Channel):
    """A channel in confirm mode; see `link.Channel`."""

    def __init__(self, connection: SelectConnection, owner: PublisherOwner, exchange: str, queue: str) -> None:
        super().__init__(connection, owner)
        self._owner = owner
        self._exchange = exchange
        self._queue = queue

    def send(self, messages: Sequence[OutMessage]) -> None:
        frames = frames_of(self._pika.channel_number, messages, frame_max_bytes=self._connection.params.frame_max)
        self._connection._output_marshaled_frames(frames)  # the whole batch at once; see envelope.py

    def _set_up(self) -> None:
        # Each waits for the answer to the one before: pika queues them. Source: wire protocol, publisher.
        if self._exchange:
            self._pika.exchange_declare(self._exchange, passive=True)
        if self._queue:
            self._pika.queue_declare(self._queue, passive=True)
        self._pika.add_on_return_callback(self._on_return)
        self._pika.confirm_delivery(self._on_confirm, callback=self._guarded(self._owner.channel_ready))

    def _on_confirm(self, frame: Any) -> None:
        if self._is_attached:
            method = frame.method
            self._owner.confirmed(method.delivery_tag, method.multiple, isinstance(method, spec.Basic.Ack))

    def _on_return(self, _channel: object, method: spec.Basic.Return, _properties: object, body: bytes) -> None:
        if self._is_attached:
            self._owner.returned(method.exchange, method.routing_key, body)


class _Hush(logging.Filter):
    """pika reports each lost connection as several errors with stack traces, which without any configuration of
    logging land on a user's terminal. What matters reaches our owner as an event; so pika is heard on our threads
    only when we are debugged, and as ever on everybody else's."""

    def filter(self, record: logging.LogRecord) -> bool:
        thread = threading.current_thread()
        is_ours = thread.name.startswith(THREAD_PREFIX) or (
            # pika resolves names in a thread of its own.
            isinstance(thread, threading.Timer) and record.name.endswith("selector_ioloop_adapter")
        )
        return not is_ours or _log.isEnabledFor(logging.DEBUG)


_hush = _Hush()


def _hush_pika() -> None:
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("pika.") and isinstance(logger, logging.Logger):
            logger.addFilter(_hush)  # once: logging compares


def _parameters(target: Target, trust: Trust) -> pika.URLParameters:
    scheme = target.url.partition("://")[0]
    if scheme not in ("amqp", "amqps"):
        raise ValueError(f"A broker's URL begins with amqp:// or amqps://, this one with {scheme[:10]!r}.")
    parameters = pika.URLParameters(target.url)
    if target.port is not None:
        parameters.port = target.port
    if scheme == "amqps":
        parameters.ssl_options = pika.SSLOptions(trust.context(), parameters.host)
    parameters.socket_timeout = target.timeout_s
    parameters.stack_timeout = target.timeout_s
    parameters.client_properties = {"connection_name": target.name, "product": "farcall"}
    return parameters


def _why_not_opened(error: BaseException | str) -> tuple[str, bool]:
    """Reason, and whether the broker itself refused user, password or vhost.

    pika guesses "probable authentication error" also where the stream merely broke off during the login, so a
    service that is just being stopped would look like one that refuses us: only the broker's own words count.
    """
    text = _text(error)
    if isinstance(error, (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)):
        found = _REFUSAL.search(str(error.args[0]) if error.args else "")
        if found is not None:
            code, words = int(found[1]), found[2]
            # 530 is also a full or stopped vhost, which passes.
            refused = code == 403 or (code == _NOT_ALLOWED and "limit" not in words and "down" not in words)
            return f"{code} {words.strip(_QUOTES)}", refused
    if "Timeout while setting up" in text:
        return "no answer in time", False
    return text, False


def _text(error: BaseException | str) -> str:
    """One line for people out of what pika raises."""
    if isinstance(error, (exceptions.ConnectionClosed, exceptions.ChannelClosed)):
        return f"{error.reply_code} {error.reply_text}"
    found: object = error
    # "connection refused" sits at the bottom of pika's AMQPConnectionError(WorkflowFailed([... SocketConnectError(…)]))
    while isinstance(found, BaseException):
        inner = getattr(found, "exceptions", None) or getattr(found, "exception", None) or found.args
        inner = inner[-1] if isinstance(inner, (list, tuple)) and inner else inner
        if not isinstance(inner, BaseException):
            break
        found = inner
    return str(found) or type(found).__name__
