"""How many tasks an engine should hold. Decides only; the engines count and ask.

What an engine holds counts as started after a crash of the agent, so it should be little; but a worker must not idle
while the agent fetches the next task. Both are met by holding one task per slot plus what the workers finish within a
short horizon: nothing more if tasks are long, dozens if they take a fraction of a millisecond.
"""

from __future__ import annotations

import math

__all__ = ["Window"]

_MEMORY_S = 0.25  # how far back the rate looks


class Window:
    """Counts completions, and says how many tasks beyond the slots are worth holding.

    Args:
        horizon_s: the time in which the agent brings new tasks, generously.
        least: held beyond the slots in any case.
        most: never held more than this beyond the slots.
    """

    def __init__(self, *, horizon_s: float, least: int, most: int) -> None:
        self._horizon_s = horizon_s
        self._least = least
        self._most = most
        self._weight = 0.0
        self._at_s = 0.0

    def completed(self, count: int, now_s: float) -> None:
        """`count` tasks have ended; `now_s` from a monotonic clock."""
        self._weight = self._decayed(now_s) + count
        self._at_s = now_s

    def rate_hz(self, now_s: float) -> float:
        """Tasks per second, of about the last quarter of a second."""
        return self._decayed(now_s) / _MEMORY_S

    def extra(self, now_s: float) -> int:
        """How many tasks to hold beyond one per slot."""
        return max(self._least, min(self._most, round(self.rate_hz(now_s) * self._horizon_s)))

    def _decayed(self, now_s: float) -> float:
        return self._weight * math.exp((self._at_s - now_s) / _MEMORY_S) if self._weight else 0.0
