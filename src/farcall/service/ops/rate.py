"""How many requests somebody may make: a token bucket for each. Decides only; the clock is passed in."""

from __future__ import annotations

__all__ = ["RateLimit"]

_REMEMBERED = 10_000


class RateLimit:
    """Allows each key `burst` requests at once and `per_s` in the long run.

    A bucket that has not been used for long is full, and a full bucket need not be remembered, so the memory is
    bounded: of more than 10,000 keys the one that has waited longest is forgotten, to its advantage.

    Args:
        per_s: 0: no limit.
        burst: at least 1.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = float(max(1, burst))
        self._buckets: dict[str, tuple[float, float]] = {}  # key → requests left, and when that was

    def take(self, key: str, now_s: float) -> float:
        """Count one request of `key`.

        Args:
            now_s: of any clock; if it goes backwards, no time has passed.

        Returns:
            0.0 if the request may go on; else after how many seconds the next one may (and nothing is counted).
        """
        if not self._per_s:
            return 0.0
        left, at_s = self._buckets.pop(key, (self._burst, now_s))
        left = min(self._burst, left + max(0.0, now_s - at_s) * self._per_s)
        allowed = left >= 1.0 - 1e-9
        if allowed:
            left = max(0.0, left - 1.0)
        if len(self._buckets) >= _REMEMBERED:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = (left, now_s)  # now the most recently used
        return 0.0 if allowed else (1.0 - left) / self._per_s
