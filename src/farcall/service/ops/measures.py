"""What is measured while the service runs, in plain numbers; `exposition` writes them for Prometheus.

Hand-written, since it is on the way of each task: a batch of a thousand tasks is one `observe`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import Final

__all__ = ["Histogram", "Measures", "Stopwatch"]

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """Counts of values by upper bound.

    Args:
        bounds: ascending; there is one more for everything beyond the last.
    """

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` values like this; a negative one (a clock went backwards) counts as 0."""
        value = max(0.0, value)
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count


class Stopwatch:
    """How long things stay somewhere that they leave in the order in which they came."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._runs: deque[list[float]] = deque()  # when, how many

    @property
    def oldest(self) -> float | None:
        """When the first of those that are there came."""
        return self._runs[0][0] if self._runs else None

    def came(self, count: int, now: float) -> None:
        self._runs.append([now, count])

    def left(self, count: int, now: float) -> None:
        """The first `count`. More than are there is no fault: the others were forgotten by `clear`."""
        runs = self._runs
        while count > 0 and runs:
            run = runs[0]
            taken = min(count, int(run[1]))
            self._histogram.observe(now - run[0], taken)
            run[1] -= taken
            count -= taken
            if not run[1]:
                runs.popleft()

    def clear(self) -> None:
        """What is there will not leave in order."""
        self._runs.clear()


class Measures:
    """All of one service. Times in seconds; used on the event loop.

    Attributes:
        ended: tasks, by whether they succeeded.
        submit_s: by HTTP status class ("2xx").
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.ended: Counter[bool] = Counter()
        self.rate_limited = 0
        self.queue_full = 0
        self.submit_s: dict[str, Histogram] = {}
        self.fed_s = Histogram()
        self.taken_s = Histogram()
        self.stored_s = Histogram()
        self.result_taken_s = Histogram()
        self.write_units = Histogram(SIZES)
        self.write_s = Histogram()

    def submit_took(self, seconds: float, status: int) -> None:
        name = f"{status // 100}xx"
        found = self.submit_s.get(name)
        if found is None:
            found = self.submit_s[name] = Histogram()
        found.observe(seconds)

    def group_written(self, units: int, seconds: float) -> None:
        self.write_units.observe(units)
        self.write_s.observe(seconds)
