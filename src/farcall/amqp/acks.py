"""Which acknowledgements to send for one channel's deliveries, as few as the order allows. Decides only.

A channel has one consumer, so its delivery tags are 1, 2, 3 … One "up to and including" covers the run of settled
tags at the low end; those above a gap go one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["AckTracker"]


class AckTracker:
    """Deliveries of one channel, from its opening to its end. Make a new one for each channel."""

    __slots__ = ("_acked", "_lowest", "_next", "_settled")

    def __init__(self) -> None:
        self._next = 1
        self._lowest = 1
        """Every tag below is settled at the broker."""
        self._acked: set[int] = set()
        """Acknowledged here, not yet told to the broker."""
        self._settled: set[int] = set()
        """Settled at the broker, at or above `_lowest`."""

    @property
    def unsettled(self) -> int:
        """Deliveries that are neither acknowledged nor given back; those waiting for `take` count as acknowledged."""
        return self._next - self._lowest - len(self._acked) - len(self._settled)

    def delivered(self, tag: int) -> None:
        """A message arrived. Tags ascend."""
        self._next = tag + 1

    def ack(self, tags: Iterable[int]) -> None:
        """These are done. Unknown tags and those settled before are ignored."""
        for tag in tags:
            if self._lowest <= tag < self._next and tag not in self._settled:
                self._acked.add(tag)

    def give_back(self, tag: int) -> bool:
        """This one is refused: whether to tell the broker (False: unknown, or settled or acknowledged before)."""
        if not self._lowest <= tag < self._next or tag in self._settled or tag in self._acked:
            return False
        self._settled.add(tag)
        return True

    def take(self) -> list[tuple[int, bool]]:
        """What to tell the broker now: pairs (tag, multiple), ascending; a multiple one comes first, if any."""
        acked, settled = self._acked, self._settled
        lowest, run, top = self._lowest, 0, 0
        while True:
            if lowest in acked:
                acked.discard(lowest)
                top = lowest
                run += 1
            elif lowest in settled:
                settled.discard(lowest)
            else:
                break
            lowest += 1
        self._lowest = lowest
        # The tag of a multiple acknowledgement must itself be outstanding, hence `top` and not `lowest - 1`.
        commands = [(top, run > 1)] if run else []
        if acked:
            commands += [(tag, False) for tag in sorted(acked)]
            settled |= acked
            acked.clear()
        return commands
