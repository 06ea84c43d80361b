"""One subscription over all reconnects: gathers deliveries into batches, coalesces acknowledgements.

Which acknowledgements are sent is decided by `acks`, when a closed channel is opened again by `reconnect.Reopen`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from farcall.amqp.acks import AckTracker
from farcall.amqp.events import ConsumerLost, ConsumerReady
from farcall.amqp.host import Host
from farcall.amqp.interface import Delivery, OnMessages
from farcall.amqp.link import ConsumerChannel, Link, NoChannel
from farcall.amqp.loop import Timer
from farcall.amqp.reconnect import Reopen

__all__ = ["QueueConsumer"]

_log = logging.getLogger(__name__)


class QueueConsumer:
    """Made by `AmqpConnection.consume`; see `interface.Consumer` for what callers may do."""

    def __init__(self, host: Host, queue: str, on_messages: OnMessages, *, prefetch: int, exclusive: bool) -> None:
        self._host = host
        self._queue = queue
        self._on_messages = on_messages
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._reopen = Reopen(host.backoff)
        self._link: Link | None = None
        self._channel: ConsumerChannel | None = None
        self._timer: Timer | None = None
        self._epoch = 0
        self._tracker = AckTracker()
        self._batch: list[Delivery] = []
        self._is_ready = False
        self._is_cancelled = False

    @property
    def queue(self) -> str:
        return self._queue

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    # From any thread

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        self._host.post(self._ack, tuple(deliveries))  # the caller may go on changing his list

    def nack(self, deliveries: Iterable[Delivery], requeue: bool) -> None:
        self._host.post(self._nack, tuple(deliveries), requeue)

    def cancel(self) -> None:
        self._host.post(self._cancel)

    # On the connection's thread, called by the host

    def attach(self, link: Link) -> None:
        self._link = link
        if not self._is_cancelled:
            self._open()

    def detach(self, blamed: bool) -> None:
        self._link = None
        self._reopen.detached()
        self._forget_channel()
        if self._is_cancelled:
            self._host.dismiss(self)

    def end(self) -> None:
        self._is_cancelled = True
        self._link = None
        self._forget_channel()

    def hand_over(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return  # the channel went away in the same turn
        try:
            self._on_messages(batch)
        except Exception:
            _log.exception(
                "A consumer's callback raised; its messages stay unacknowledged.",
                extra={"event": "amqp.callback_failed", "queue": self._queue, "count": len(batch)},
            )

    def flush(self) -> None:
        channel = self._channel
        if channel is None:
            return
        for tag, multiple in self._tracker.take():
            channel.ack(tag, multiple)
        if self._is_cancelled and not self._is_ready and not self._tracker.unsettled:
            channel.close()
            self._forget_channel()
            self._host.dismiss(self)

    # Called by the channel

    def channel_ready(self) -> None:
        self._is_ready = True
        self._reopen.ready(now_s=self._host.now_s())
        self._host.emit(ConsumerReady(queue=self._queue, epoch=self._epoch))
        if self._is_cancelled and self._channel is not None:
            self._channel.stop_consuming()

    def channel_closed(self, code: int, reason: str, blamed: bool) -> None:
        self._forget_channel()
        if self._is_cancelled:
            self._host.dismiss(self)
            return
        delay_s = self._reopen.closed(now_s=self._host.now_s(), jitter=self._host.jitter())
        self._timer = self._host.call_later(delay_s, self._open)
        self._host.emit(ConsumerLost(queue=self._queue, code=code, reason=reason, retry_in_s=delay_s))

    def delivered(
        self,
        body: bytes,
        headers: Mapping[str, Any],
        tag: int,
        redelivered: bool,
        timestamp: int | None,
        content_type: str | None,
        routing_key: str,
    ) -> None:
        self._tracker.delivered(tag)
        if self._is_cancelled:
            self._give_back(tag, True)
            return
        if not self._batch:
            self._host.has_input(self)
        self._batch.append(Delivery(body, headers, tag, self._epoch, redelivered, timestamp, content_type, routing_key))

    def consume_stopped(self) -> None:
        self._is_ready = False
        self._host.has_output(self)

    # Helpers, on the connection's thread

    def _open(self) -> None:
        self._timer = None
        if self._link is None or self._is_cancelled:
            return
        self._epoch = self._host.next_epoch()
        self._tracker = AckTracker()
        try:
            self._channel = self._link.consumer_channel(self, self._queue, self._prefetch, self._exclusive)
        except NoChannel as exc:
            self.channel_closed(0, str(exc), False)

    def _forget_channel(self) -> None:
        self._channel = None
        self._is_ready = False
        self._batch.clear()
        if self._timer is not None:
            self._timer.callback = None
            self._timer = None

    def _ack(self, deliveries: Iterable[Delivery]) -> None:
        epoch = self._epoch
        if self._channel is not None:
            self._tracker.ack([each.tag for each in deliveries if each.epoch == epoch])
            self._host.has_output(self)

    def _nack(self, deliveries: Iterable[Delivery], requeue: bool) -> None:
        for each in deliveries:
            if each.epoch == self._epoch:
                self._give_back(each.tag, requeue)
        self._host.has_output(self)

    def _give_back(self, tag: int, requeue: bool) -> None:
        if self._channel is not None and self._tracker.give_back(tag):
            self._channel.nack(tag, requeue)

    def _cancel(self) -> None:
        if self._is_cancelled:
            return
        self._is_cancelled = True
        batch, self._batch = self._batch, []
        for each in batch:
            self._give_back(each.tag, True)
        if self._channel is None:
            self._forget_channel()
            self._host.dismiss(self)
        elif self._is_ready:
            self._channel.stop_consuming()
