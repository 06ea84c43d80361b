"""What a feed has published and does not know to be taken: two ways to count it, by what the broker tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["AckedOutstanding", "EndedOutstanding"]


class AckedOutstanding:
    """The broker tells how many messages were acknowledged; they leave in the order in which they came.

    Attributes:
        count: messages.
        size: of all of them together.
    """

    def __init__(self) -> None:
        self._out: deque[tuple[int, int]] = deque()
        self.count = 0
        self.size = 0

    def add(self, seq: int, size: int) -> None:
        self._out.append((seq, size))
        self.count += 1
        self.size += size

    def settle(self, count: int) -> list[int]:
        """The oldest `count` have left. Returns their numbers."""
        out, left = self._out, []
        for _ in range(min(count, self.count)):
            seq, size = out.popleft()
            self.count -= 1
            self.size -= size
            left.append(seq)
        return left

    def seqs(self) -> set[int]:
        """The numbers of all that are out."""
        return {seq for seq, _ in self._out}

    def clear(self) -> None:
        self._out.clear()
        self.count = self.size = 0


class EndedOutstanding:
    """The broker tells nothing; what a message is about ends sooner or later, in any order.

    Attributes:
        count, size: as above.
    """

    def __init__(self) -> None:
        self._out: dict[int, int] = {}
        self.size = 0

    @property
    def count(self) -> int:
        return len(self._out)

    def add(self, seq: int, size: int) -> None:
        self.size += size - self._out.get(seq, 0)
        self._out[seq] = size

    def end(self, seqs: Iterable[int]) -> None:
        """These have ended; those that were not published are ignored."""
        for seq in seqs:
            self.size -= self._out.pop(seq, 0)

    def settle(self, count: int) -> list[int]:
        """`count` have ended, it is not known which: the oldest are taken for them. Returns none."""
        for seq in list(self._out)[:count] if count else ():
            self.size -= self._out.pop(seq)
        return []

    def seqs(self) -> set[int]:
        """The numbers of all that are out."""
        return set(self._out)

    def clear(self) -> None:
        self._out.clear()
        self.size = 0
