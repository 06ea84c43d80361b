"""What goes into one queue of the broker, and when. Decides only; `runner` reads the store and publishes.

The store is the truth and the queue a window on it. A feed publishes only while somebody consumes its queue, in
ascending `seq`, with a bounded number of unacknowledged messages; what does not fit stays in the store. Whenever a
consumer attaches, the feed begins again at the oldest entry that the store still has for it: that is how nothing
is lost by a broker, a connection or an agent that forgets. Both kinds of queue work like this: the tasks of an
endpoint (the entry is there until the task ends) and the results of a task group (until the client acknowledged).

Freshly committed entries are published from memory if the feed has nothing else left to publish, and otherwise are
found in the store later. This needs `seq` to grow in the order of the commits, and `committed` to be called in
that order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from farcall.service.relay.window import AckedOutstanding, EndedOutstanding

__all__ = ["Command", "Entry", "Feed", "Publish", "Purge", "ReadPage", "Taken", "Window"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """How much may be published and unacknowledged. The last message may go beyond `size`, however large it is."""

    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that is or can be published.

    Attributes:
        seq: position in the order of this feed.
        id: of the task.
        size: of the message, roughly, in the unit of the window.
        content: for the runner.
        since: when it was accepted, in Unix seconds; likewise for the runner.
    """

    seq: int
    id: str
    size: int
    content: Any  # the runner's own; opaque here
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class ReadPage:
    """Read entries after `after` from the store, oldest first: at most `messages`, and of at most `size` together
    (but at least one). Then call `page` with the same `epoch`."""

    epoch: int
    after: int
    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish these, in this order."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Purge:
    """Remove whatever waits in the queue: it will be published anew."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The consumer has acknowledged these, by number. Only where it tells."""

    seqs: Sequence[int]


Command = ReadPage | Publish | Purge | Taken


class Feed:
    """One queue's feed.

    Args:
        window: bound on what is unacknowledged.
        by_ends: the broker does not tell what was acknowledged: an entry counts as unacknowledged until `ended`.

    Attributes:
        settled_seq: what was published up to this entry has been acknowledged; 0 at first.
        tells_taken: `Taken` follows each acknowledgement.
    """

    def __init__(self, window: Window, *, by_ends: bool = False) -> None:
        self._window = window
        self._epoch = 0
        self._is_attached = False
        self._is_reading = False
        self._is_behind = False  # the store may have entries after the cursor
        self._is_repeating = False  # the store may show what is out already
        self._cursor = 0  # everything up to here has been published in this epoch
        self._by_ends = by_ends
        self._out: AckedOutstanding | EndedOutstanding = EndedOutstanding() if by_ends else AckedOutstanding()
        self._withdrawn: set[int] = set()
        self.settled_seq = 0
        self.tells_taken = False

    @property
    def is_attached(self) -> bool:
        return self._is_attached

    @property
    def is_caught_up(self) -> bool:
        """Whether everything that was committed has been published."""
        return self._is_attached and not self._is_reading and not self._is_behind

    @property
    def unacknowledged(self) -> int:
        return self._out.count

    def attached(self, *, from_now: bool = False) -> list[Command]:
        """The queue got its first consumer, or another incarnation of it: begin at the beginning.

        Args:
            from_now: begin with what is committed next; the consumer learns by other means what was before.
        """
        self._reset()
        self._is_attached = True
        return [Purge()] if from_now else [Purge(), self._read()]

    def again(self) -> list[Command]:
        """The store has entries before the cursor once more: read from the beginning. What is out stays out."""
        if not self._is_attached:
            return []
        self._epoch += 1
        self._cursor = 0
        self._withdrawn.clear()
        self._is_repeating = True
        return [self._read()]

    def detached(self) -> list[Command]:
        """The queue has no consumer any more."""
        self._reset()
        return [Purge()]

    def released(self) -> None:
        """Somebody else feeds the queue from now on; what waits in it stays."""
        self._reset()

    def committed(self, entries: Sequence[Entry]) -> list[Command]:
        """These have just been committed. In the order of the commits, ascending `seq` within."""
        if not self.is_caught_up:
            self._is_behind = True  # a page that is being read may or may not show them
            return []
        fresh = [entry for entry in entries if entry.seq > self._cursor]
        taken = self._take(fresh)
        self._is_behind = len(taken) < len(fresh)
        return [Publish(taken)] if taken else []

    def committed_elsewhere(self) -> list[Command]:
        """Something has been committed that is not at hand; the store has it. In the order of the commits."""
        self._is_behind = True
        return self._read_on()

    def page(
        self, epoch: int, entries: Sequence[Entry], *, is_last: bool, not_these: Collection[int] = ()
    ) -> list[Command]:
        """What the store has, as asked by `ReadPage`.

        Args:
            is_last: the store had no more after these when it was read.
            not_these: numbers of entries that are not to be published all the same.
        """
        if epoch != self._epoch or not self._is_reading:
            return []
        self._is_reading = False
        if not is_last:
            self._is_behind = True
        if self._is_repeating:
            not_these = self._out.seqs().union(not_these)
        fresh = [entry for entry in entries if entry.seq not in self._withdrawn and entry.seq not in not_these]
        self._withdrawn.clear()
        for entry in fresh:
            self._out.add(entry.seq, entry.size)
        if entries:
            self._cursor = max(self._cursor, entries[-1].seq)
        commands: list[Command] = [Publish(fresh)] if fresh else []
        return commands + self._read_on()

    def page_failed(self, epoch: int) -> None:
        """The store could not be read. The next commit or acknowledgement tries again."""
        if epoch == self._epoch:
            self._is_reading = False
            self._is_behind = True

    def settled(self, count: int) -> list[Command]:
        """`count` messages have left the queue for good, oldest first."""
        left = self._out.settle(count)
        self.settled_seq = max(self.settled_seq, max(left, default=0))
        taken: list[Command] = [Taken(left)] if left and self.tells_taken else []
        return taken + self._read_on()

    def ended(self, seqs: Collection[int]) -> list[Command]:
        """These are not to be published any more, and no room is needed for them if they were."""
        if self._is_reading:
            self._withdrawn.update(seq for seq in seqs if seq > self._cursor)
        if isinstance(self._out, EndedOutstanding):
            self._out.end(seqs)
        return self._read_on()

    def withdrawn(self, entry: Entry, *, tell: bool = True) -> list[Command]:
        """The entry's task has ended by other means (cancelled). Returns nothing or, if the consumer may have got
        the entry, the given one to publish instead (the cancellation; its `seq` and `id` are the task's).

        Args:
            tell: the consumer understands cancellations.
        """
        if not self._is_attached:
            return []
        if entry.seq > self._cursor:
            if self._is_reading:
                self._withdrawn.add(entry.seq)
            return []
        if not tell:
            return []
        if isinstance(self._out, AckedOutstanding):
            self._out.add(0, entry.size)
        return [Publish([entry])]

    def _take(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """As many of the first entries as fit, now counted as published."""
        window, out = self._window, self._out
        count = 0
        for entry in entries:
            if out.count and (out.count >= window.messages or out.size + entry.size > window.size):
                break
            out.add(entry.seq, entry.size)
            self._cursor = entry.seq
            count += 1
        return entries if count == len(entries) else entries[:count]

    def _read_on(self) -> list[Command]:
        """The next page, if there may be one and half of the window is free (small pages cost as much as large)."""
        if not self._is_attached or self._is_reading or not self._is_behind:
            return []
        out, window = self._out, self._window
        if out.count and (2 * out.count > window.messages or 2 * out.size > window.size):
            return []
        return [self._read()]

    def _read(self) -> ReadPage:
        self._is_reading = True
        self._is_behind = False
        return ReadPage(
            self._epoch,
            self._cursor,
            max(1, self._window.messages - self._out.count),
            max(1, self._window.size - self._out.size),
        )

    def _reset(self) -> None:
        self._epoch += 1
        self._is_attached = self._is_reading = self._is_behind = self._is_repeating = False
        self._cursor = 0
        self._out.clear()
        self._withdrawn.clear()
