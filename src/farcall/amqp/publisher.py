"""One publisher over all reconnects: a channel in confirm mode, and the messages that it has not settled.

What is sent when, again or not, is decided by `outbox`; when a closed channel is opened again, by `reconnect.Reopen`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from farcall.amqp.envelope import Envelopes, OutMessage
from farcall.amqp.events import PublisherLost, PublisherReady
from farcall.amqp.host import Host
from farcall.amqp.interface import OnDone
from farcall.amqp.link import Link, NoChannel, PublisherChannel
from farcall.amqp.loop import Timer
from farcall.amqp.outbox import Outbox, Settled
from farcall.amqp.reconnect import Reopen

__all__ = ["ConfirmPublisher"]

_log = logging.getLogger(__name__)

_WINDOW = 1000
_WINDOW_BYTES = 32 * 1024 * 1024


class _Waiter:
    __slots__ = ("is_done", "number", "ok")

    def __init__(self) -> None:
        self.number = 0
        self.ok = False
        self.is_done = threading.Event()

    def release(self, ok: bool) -> None:
        self.ok = ok
        self.is_done.set()


class _Callback(_Waiter):
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.number = 0  # it waits for nothing, so it needs no event
        self._callback = callback

    def release(self, ok: bool) -> None:
        if not ok:
            return
        try:
            self._callback()
        except Exception:
            _log.exception("A publisher's callback raised.", extra={"event": "amqp.callback_failed"})


class ConfirmPublisher:
    """Made by `AmqpConnection.publisher`; see `interface.Publisher` for what callers may do."""

    def __init__(self, host: Host, exchange: str, queue: str, *, resends: bool) -> None:
        self._host = host
        self._exchange = exchange
        self._queue = queue
        self._resends = resends
        self._envelopes = Envelopes()
        self._outbox: Outbox[OutMessage] = Outbox(_WINDOW, _WINDOW_BYTES)
        self._reopen = Reopen(host.backoff)
        self._link: Link | None = None
        self._channel: PublisherChannel | None = None
        self._timer: Timer | None = None
        self._is_ready = False
        self._has_ended = False
        self._waiters: list[_Waiter] = []
        self._lock = threading.Lock()
        self._published = 0
        self._settled = 0

    # From any thread

    @property
    def pending(self) -> int:
        return max(0, self._published - self._settled)

    def publish(self, body: bytes, kwargs: Mapping[str, Any], on_done: OnDone | None = None) -> None:
        if not isinstance(body, bytes):
            raise TypeError(f"A message's body must be bytes, got {type(body).__name__}.")
        self._host.check_usable()
        message = OutMessage(body, self._envelopes.of(kwargs), on_done)
        with self._lock:
            self._published += 1
        if not self._host.post(self._put, message):
            raise self._host.ended

    def wait_confirmed(self, timeout_s: float) -> bool:
        self._host.check_usable()
        if self._host.is_own_thread:
            raise RuntimeError("wait_confirmed was called in a callback of the connection that it would wait for.")
        waiter = _Waiter()
        return self._host.post(self._wait, waiter) and waiter.is_done.wait(timeout_s) and waiter.ok

    def after_confirmed(self, callback: Callable[[], None]) -> None:
        self._host.check_usable()
        if not self._host.post(self._wait, _Callback(callback)):
            raise self._host.ended

    # On the connection's thread, called by the host

    def attach(self, link: Link) -> None:
        self._link = link
        self._open()

    def detach(self, blamed: bool) -> None:
        self._link = None
        self._reopen.detached()
        self._forget_channel(blamed)

    def end(self) -> None:
        self._has_ended = True
        self._link = None
        self._forget_channel(False)
        self._settle(self._outbox.drain())
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release(False)

    def hand_over(self) -> None:
        """Publishers take no input in batches."""

    def flush(self) -> None:
        if self._is_ready and self._channel is not None:
            messages = self._outbox.take()
            if messages:
                self._channel.send(messages)

    # Called by the channel

    def channel_ready(self) -> None:
        self._is_ready = True
        self._reopen.ready(now_s=self._host.now_s())
        self._outbox.opened()
        self._host.has_output(self)
        self._host.emit(PublisherReady(exchange=self._exchange))

    def channel_closed(self, code: int, reason: str, blamed: bool) -> None:
        self._forget_channel(blamed)
        delay_s = self._reopen.closed(now_s=self._host.now_s(), jitter=self._host.jitter())
        self._timer = self._host.call_later(delay_s, self._open)
        self._host.emit(PublisherLost(exchange=self._exchange, code=code, reason=reason, retry_in_s=delay_s))

    def confirmed(self, tag: int, multiple: bool, ok: bool) -> None:
        self._settle(self._outbox.confirmed(tag, multiple, ok))
        self._host.has_output(self)

    def returned(self, exchange: str, routing_key: str, body: bytes) -> None:
        def is_it(message: OutMessage) -> bool:
            envelope = message.envelope
            return (
                envelope.mandatory
                and envelope.routing_key == routing_key
                and envelope.exchange == exchange
                and message.body == body
            )

        if not self._outbox.returned(is_it):
            _log.warning(
                "The broker returned a message that is not under way.",
                extra={"event": "amqp.unknown_return", "exchange": exchange, "routing_key": routing_key},
            )

    # Helpers, on the connection's thread

    def _open(self) -> None:
        self._timer = None
        if self._link is None:
            return
        try:
            self._channel = self._link.publisher_channel(self, self._exchange, self._queue)
        except NoChannel as exc:
            self.channel_closed(0, str(exc), False)

    def _forget_channel(self, blamed: bool) -> None:
        self._channel = None
        self._is_ready = False
        if self._timer is not None:
            self._timer.callback = None
            self._timer = None
        self._settle(self._outbox.closed(blamed=blamed) if self._resends else self._outbox.drain())

    def _put(self, message: OutMessage) -> None:
        if self._has_ended or not (self._resends or self._is_ready):
            self._settle([(message, False)])
            return
        self._outbox.put(message, len(message.body))
        if self._is_ready:
            self._host.has_output(self)

    def _settle(self, settled: Settled[OutMessage]) -> None:
        self._settled += len(settled)
        for message, ok in settled:
            if message.on_done is None:
                continue
            try:
                message.on_done(ok)
            except Exception:
                _log.exception(
                    "A publisher's callback raised.",
                    extra={"event": "amqp.callback_failed", "exchange": self._exchange},
                )
        if self._waiters and settled:
            oldest = self._outbox.oldest_number
            for waiter in [each for each in self._waiters if each.number < oldest]:
                self._waiters.remove(waiter)
                waiter.release(True)

    def _wait(self, waiter: _Waiter) -> None:
        waiter.number = self._outbox.last_number
        if waiter.number < self._outbox.oldest_number:
            waiter.release(not self._has_ended)
        elif self._has_ended:
            waiter.release(False)
        else:
            self._waiters.append(waiter)
