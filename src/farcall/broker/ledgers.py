"""The two books of a channel: what a consumer holds unacknowledged, and what a publisher waits to have confirmed.

Both number their entries 1, 2, 3…, settle in any order, and know `multiple`. Settling n entries takes n steps
however they are grouped: the lowest open number is a pointer that only moves forward.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from farcall.broker.messages import Message

__all__ = ["Confirm", "ConfirmBook", "DeliveryBook"]


class DeliveryBook:
    """Delivery tags of one channel, and the messages behind those that are not acknowledged yet."""

    __slots__ = ("_low", "_next", "held")

    def __init__(self) -> None:
        self.held: dict[int, Message] = {}
        self._next = 1
        self._low = 1

    def hold(self, message: Message) -> int:
        """Number a delivery that must be acknowledged."""
        tag = self._next
        self._next = tag + 1
        self.held[tag] = message
        return tag

    def skip(self) -> int:
        """Number a delivery that needs no acknowledgement."""
        tag = self._next
        self._next = tag + 1
        return tag

    def take(self, tag: int, multiple: bool) -> list[Message]:
        """Remove and return what `tag` stands for, in order of delivery.

        Args:
            tag: 0 with `multiple` means all.

        Raises:
            KeyError: nothing unacknowledged has this tag.
        """
        if not multiple:
            return [self.held.pop(tag)]
        held = self.held
        if tag and tag not in held:
            raise KeyError(tag)
        last = tag or self._next - 1
        taken = [held.pop(number) for number in range(self._low, last + 1) if number in held]
        self._low = max(self._low, last + 1)
        return taken

    def take_all(self) -> list[Message]:
        """Remove and return everything, in order of delivery."""
        taken = list(self.held.values())
        self.held.clear()
        self._low = self._next
        return taken


@dataclass(frozen=True, slots=True)
class Confirm:
    """One basic.ack (ok) or basic.nack for a publisher."""

    number: int
    multiple: bool
    ok: bool


class ConfirmBook:
    """Publish numbers of one channel in confirm mode.

    Args:
        on_due: called when something can be told to the publisher, once until `take` is called.
    """

    __slots__ = ("_acked", "_low", "_nacked", "_next", "_on_due", "_open")

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        self._next = 1
        self._low = 1
        self._open: set[int] = set()
        self._acked: list[int] = []
        self._nacked: list[int] = []

    def begin(self) -> int:
        """Number a message that will be settled later."""
        number = self._next
        self._next = number + 1
        self._open.add(number)
        return number

    def begin_settled(self) -> None:
        """Number a message that counts as confirmed at once."""
        if not self._acked and not self._nacked:
            self._on_due()
        self._acked.append(self._next)
        self._next += 1

    def settle(self, number: int, ok: bool) -> None:
        if not self._acked and not self._nacked:
            self._on_due()
        self._open.discard(number)
        (self._acked if ok else self._nacked).append(number)

    def take(self) -> list[Confirm]:
        """What to tell the publisher now: as few frames as possible, refusals first."""
        confirms = [Confirm(number, False, False) for number in self._nacked]
        self._nacked.clear()
        acked = self._acked
        if not acked:
            return confirms
        acked.sort()
        while self._low < self._next and self._low not in self._open:
            self._low += 1
        # Everything below the lowest open number is settled, so one `multiple` covers it.
        below = bisect_left(acked, self._low)
        if below:
            confirms.append(Confirm(acked[below - 1], below > 1, True))
        confirms += [Confirm(number, False, True) for number in acked[below:]]
        acked.clear()
        return confirms
