"""Messages on their way to the broker: what to send now, what a confirm settles, what to send again. Decides only.

Order is the order of `put`. After the channel was lost, everything unconfirmed is sent again, in that order, before
anything newer: a message may arrive twice, never not at all and never out of order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Outbox", "Settled"]

T = TypeVar("T")


class _Item(Generic[T]):
    __slots__ = ("number", "returned", "size", "value")

    def __init__(self, value: T, size: int, number: int) -> None:
        self.value = value
        self.size = size
        self.number = number
        self.returned = False


Settled = list[tuple[T, bool]]
"""Pairs (message, whether the broker took it), in the order in which they were put."""


class Outbox(Generic[T]):
    """The messages of one publisher, over all channels that it has had.

    A broker that dislikes a message closes the channel without saying which one it meant. After such a close one
    message at a time is sent; if the channel closes again with a single one under way, that one is at fault.

    Args:
        window: messages under way (sent, not confirmed); at least 1.
        window_bytes: likewise; one message is always allowed.
    """

    def __init__(self, window: int, window_bytes: int) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self._window = window
        self._window_bytes = window_bytes
        self._waiting: deque[_Item[T]] = deque()
        self._sent: dict[int, _Item[T]] = {}
        self._sent_bytes = 0
        self._next_tag = 1
        self._lowest_tag = 1
        self._return_from = 1
        self._put = 0
        self._suspects = 0

    @property
    def pending(self) -> int:
        """Messages that are not settled."""
        return len(self._waiting) + len(self._sent)

    @property
    def last_number(self) -> int:
        """Number of the last message put; they count from 1."""
        return self._put

    @property
    def oldest_number(self) -> int:
        """Number of the oldest message that is not settled; `last_number + 1` if there is none."""
        for item in self._sent.values():
            return item.number
        return self._waiting[0].number if self._waiting else self._put + 1

    def put(self, value: T, size: int) -> None:
        """Add a message of `size` bytes at the end."""
        self._put += 1
        self._waiting.append(_Item(value, size, self._put))

    def opened(self) -> None:
        """A new channel in confirm mode: its tags begin at 1."""
        self._next_tag = self._lowest_tag = self._return_from = 1

    def take(self) -> list[T]:
        """The messages to send now, in order; each gets the next tag of the channel."""
        waiting, sent = self._waiting, self._sent
        window = 1 if self._suspects else self._window
        taken: list[T] = []
        while waiting and len(sent) < window:
            item = waiting[0]
            if sent and self._sent_bytes + item.size > self._window_bytes:
                break
            waiting.popleft()
            item.returned = False
            sent[self._next_tag] = item
            self._next_tag += 1
            self._sent_bytes += item.size
            taken.append(item.value)
        return taken

    def confirmed(self, tag: int, multiple: bool, ok: bool) -> Settled[T]:
        """The broker acknowledged (`ok`) or refused a tag, or all up to it. Unknown tags settle nothing."""
        if not multiple:
            tags = range(tag, tag + 1)
        else:
            # Tag 0 with multiple means all. Source: AMQP 0-9-1, basic.ack.
            tags = range(self._lowest_tag, (tag or self._next_tag - 1) + 1)
            self._lowest_tag = max(self._lowest_tag, tags.stop)
        settled: Settled[T] = []
        for each in tags:
            item = self._sent.pop(each, None)
            if item is not None:
                self._sent_bytes -= item.size
                settled.append((item.value, ok and not item.returned))
        self._suspects = max(0, self._suspects - len(settled))
        return settled

    def returned(self, matches: Callable[[T], bool]) -> bool:
        """The broker gave a message back as unroutable; its confirm still follows, and then settles it as not taken.

        A return names no tag. Returns come in the order of publication, so the first match after the one before
        is meant, or one with the same content, which amounts to the same.

        Returns:
            Whether a message under way matches.
        """
        for tag in range(self._return_from, self._next_tag):
            item = self._sent.get(tag)
            if item is not None and not item.returned and matches(item.value):
                item.returned = True
                self._return_from = tag + 1
                return True
        return False

    def closed(self, *, blamed: bool) -> Settled[T]:
        """The channel is gone; what was under way will be sent again.

        Args:
            blamed: the broker closed it, and not for reasons of its own: one of these messages may be why.

        Returns:
            The message at fault, as not taken, if it is known; else nothing.
        """
        items = [self._sent[tag] for tag in sorted(self._sent)]
        self._sent.clear()
        self._sent_bytes = 0
        settled: Settled[T] = []
        if blamed and len(items) == 1:
            settled.append((items.pop().value, False))
            self._suspects = max(0, self._suspects - 1)
        elif blamed:
            self._suspects = len(items)
        self._waiting.extendleft(reversed(items))
        return settled

    def drain(self) -> Settled[T]:
        """The end: every message that is not settled, as not taken."""
        items = [self._sent[tag] for tag in sorted(self._sent)] + list(self._waiting)
        self._sent.clear()
        self._waiting.clear()
        self._sent_bytes = 0
        return [(item.value, False) for item in items]
