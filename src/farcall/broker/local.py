"""A consumer in this process: deliveries come as one batch per loop turn, and are acknowledged by tag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farcall.broker.messages import Delivery, Message
from farcall.broker.queues import Consumer, Outlet, Queue
from farcall.broker.turns import Turns

__all__ = ["LocalConsumer"]


class _OpenGate:
    shut = False


class LocalConsumer(Consumer):
    """Made by `Broker.consume`.

    `ack` and `nack` take effect at once. After `cancel`, or when the queue is deleted, they do nothing: what was
    not acknowledged has gone back.
    """

    __slots__ = ("_close", "_on_cancelled", "_on_messages", "_pending", "_turns")

    def __init__(
        self,
        queue: Queue,
        tag: str,
        turns: Turns,
        on_messages: Callable[[Sequence[Delivery]], None],
        on_cancelled: Callable[[], None] | None,
        close: Callable[[Outlet], None],
        *,
        limit: int,
        no_ack: bool,
        exclusive: bool,
    ) -> None:
        super().__init__(queue, Outlet(_OpenGate()), tag, limit=limit, no_ack=no_ack, exclusive=exclusive)
        self._turns = turns
        self._on_messages = on_messages
        self._on_cancelled = on_cancelled
        self._close = close
        self._pending: list[Delivery] = []

    @property
    def is_active(self) -> bool:
        return bool(self.outlet.consumers)

    def ack(self, *tags: int) -> None:
        """The messages with these tags are done.

        Raises:
            KeyError: a tag that is not unacknowledged (already settled, or never delivered); those before it
                are settled.
        """
        if self.is_active:
            for tag in tags:
                self.outlet.ack(tag, False)

    def ack_up_to(self, tag: int) -> None:
        """Every message up to and with this tag is done. Raises KeyError if `tag` itself is not
        unacknowledged."""
        if self.is_active:
            self.outlet.ack(tag, True)

    def nack(self, *tags: int, requeue: bool = True) -> None:
        """The messages with these tags go back to their place in the queue, or are dropped. Raises as `ack`."""
        if self.is_active:
            for tag in tags:
                self.outlet.reject(tag, False, requeue)

    def cancel(self) -> None:
        """End the subscription; what is not acknowledged goes back to the queue. Twice is once."""
        self._pending.clear()
        self._close(self.outlet)

    def send(self, message: Message, tag: int) -> None:
        if not self._pending:
            self._turns.soon(self._flush)
        self._pending.append(Delivery(tag, message))

    def cancelled(self) -> None:
        self.cancel()
        if self._on_cancelled is not None:
            self._turns.soon(self._on_cancelled)

    def _flush(self) -> None:
        batch, self._pending = self._pending, []
        if batch and self.is_active:
            self._on_messages(batch)
