"""What is kept of an endpoint's past, and what charts show of it. Decides only.

A minute in which nothing new happened has no entry: numbers of workers hold until the next entry says otherwise, for at
most `CARRY_S`, and an endpoint that goes on working without change is noted once an hour. So an idle endpoint costs a
row an hour, and one that is away costs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "CARRY_S",
    "HOUR_S",
    "MINUTE_S",
    "Entry",
    "Gauges",
    "Minutes",
    "Point",
    "gauges_of",
    "hour_entry",
    "points",
    "summed",
]

MINUTE_S: Final = 60
HOUR_S: Final = 3600
CARRY_S: Final = 2 * HOUR_S
_ENTRIES_LIMIT: Final = 50_000
"""Of one process while they cannot be written; then the oldest are forgotten."""

Gauges = tuple[float | None, float | None, float | None, float | None]
"""Workers, idle workers, outstanding tasks, pending tasks; None where it is not known."""

_NONE: Final[Gauges] = (None, None, None, None)
_MEMBERS: Final = ("total_workers", "idle_workers", "outstanding_tasks", "pending_tasks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What one minute, or one hour, added.

    Attributes:
        at: its beginning, Unix seconds.
        step_s: its length.
        is_online: whether it was there at the end; None: this does not say, and neither do `gauges`.
        gauges: at the end of a minute; the mean of an hour.
        submitted, succeeded, failed: tasks.
    """

    endpoint_id: str
    at: int
    step_s: int = MINUTE_S
    is_online: bool | None = None
    gauges: Gauges = _NONE
    submitted: int = 0
    succeeded: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A step of a chart. `gauges` are means over the time in which they were known; None: at no time."""

    at: int
    gauges: Gauges
    submitted: int = 0
    succeeded: int = 0
    failed: int = 0


def gauges_of(state: Mapping[str, Any]) -> Gauges:
    """What a status report says. Source: wire protocol, `global_state`; members of another type are left out."""
    workers, idle, outstanding, pending = (_number(state.get(name)) for name in _MEMBERS)
    return workers, idle, outstanding, pending


@dataclass(slots=True)
class _Minute:
    is_online: bool | None = None
    gauges: Gauges = _NONE
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])


class Minutes:
    """What this process has seen and not yet given away. Times are Unix seconds."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, int], _Minute] = {}
        self._last: dict[str, tuple[Gauges, int]] = {}  # as given away, and for which minute

    def __bool__(self) -> bool:
        return bool(self._minutes)

    def reported(self, endpoint_id: str, gauges: Gauges, *, now: float) -> None:
        """It works, with these numbers. Nothing is noted if an entry of this hour says the same."""
        at = _floor(now, MINUTE_S)
        known = self._last.get(endpoint_id)
        is_new = known is None or known[0] != gauges or _floor(known[1], HOUR_S) != _floor(at, HOUR_S)
        if is_new or (endpoint_id, at) in self._minutes:
            minute = self._minute(endpoint_id, at)
            minute.is_online, minute.gauges = True, gauges

    def away(self, endpoint_id: str, *, now: float) -> None:
        """It works no longer."""
        minute = self._minute(endpoint_id, _floor(now, MINUTE_S))
        minute.is_online, minute.gauges = False, _NONE
        self._last.pop(endpoint_id, None)

    def counted(self, endpoint_id: str, *, now: float, submitted: int = 0, succeeded: int = 0, failed: int = 0) -> None:
        """Tasks have come or ended."""
        counts = self._minute(endpoint_id, _floor(now, MINUTE_S)).counts
        counts[0] += submitted
        counts[1] += succeeded
        counts[2] += failed

    def take(self) -> Sequence[Entry]:
        """Everything, to be written."""
        taken, self._minutes = self._minutes, {}
        entries = [
            Entry(
                endpoint_id=endpoint_id,
                at=at,
                is_online=minute.is_online,
                gauges=minute.gauges,
                submitted=minute.counts[0],
                succeeded=minute.counts[1],
                failed=minute.counts[2],
            )
            for (endpoint_id, at), minute in taken.items()
        ]
        for entry in entries:
            if entry.is_online:
                self._last[entry.endpoint_id] = entry.gauges, entry.at
        newest = max((entry.at for entry in entries), default=0)
        if newest:
            self._last = {each: known for each, known in self._last.items() if newest - known[1] <= CARRY_S}
        return entries

    def give_back(self, entries: Iterable[Entry]) -> None:
        """They could not be written."""
        for entry in entries:
            if len(self._minutes) >= _ENTRIES_LIMIT:
                return
            minute = self._minute(entry.endpoint_id, entry.at)
            if minute.is_online is None:
                minute.is_online, minute.gauges = entry.is_online, entry.gauges
            for at, count in enumerate((entry.submitted, entry.succeeded, entry.failed)):
                minute.counts[at] += count

    def _minute(self, endpoint_id: str, at: int) -> _Minute:
        return self._minutes.setdefault((endpoint_id, at), _Minute())


def points(entries: Iterable[Entry], *, since: int, until: int, step_s: int) -> list[Point]:
    """A chart of one endpoint.

    Args:
        entries: of one endpoint, in the order of time, from `CARRY_S` before `since` on.
        since: where the first step begins; `until`: before this the last one ends, or with it.
    """
    found = list(entries)
    starts = range(since, until, step_s)
    counts = [[0, 0, 0] for _ in starts]
    sums = [[[0.0, 0.0] for _ in _MEMBERS] for _ in starts]  # of value × time, and of time
    for entry in found:
        if since <= entry.at < until:
            of_step = counts[(entry.at - since) // step_s]
            for at, count in enumerate((entry.submitted, entry.succeeded, entry.failed)):
                of_step[at] += count
    for begin, end, gauges in _segments(found, until):
        first = max(begin, since)
        for step in range((first - since) // step_s, len(starts)):
            start = starts[step]
            seconds = min(end, start + step_s) - max(begin, start)
            if seconds <= 0:
                break
            for total, value in zip(sums[step], gauges, strict=True):
                if value is not None:
                    total[0] += value * seconds
                    total[1] += seconds
    return [
        Point(at=start, gauges=_means(sums[at]), submitted=of[0], succeeded=of[1], failed=of[2])
        for at, (start, of) in enumerate(zip(starts, counts, strict=True))
    ]


def summed(charts: Sequence[Sequence[Point]]) -> list[Point]:
    """Several endpoints' charts of the same steps as one."""
    return [
        Point(
            at=each[0].at,
            gauges=_sums([point.gauges for point in each]),
            submitted=sum(point.submitted for point in each),
            succeeded=sum(point.succeeded for point in each),
            failed=sum(point.failed for point in each),
        )
        for each in zip(*charts, strict=True)
    ]


def hour_entry(entries: Sequence[Entry]) -> Entry:
    """The minutes of one endpoint in one hour, in the order of time, as one entry."""
    at = _floor(entries[0].at, HOUR_S)
    (point,) = points(entries, since=at, until=at + HOUR_S, step_s=HOUR_S)
    said = [entry.is_online for entry in entries if entry.is_online is not None]
    return Entry(
        endpoint_id=entries[0].endpoint_id,
        at=at,
        step_s=HOUR_S,
        is_online=said[-1] if said else None,
        gauges=point.gauges,
        submitted=point.submitted,
        succeeded=point.succeeded,
        failed=point.failed,
    )


def _segments(entries: Sequence[Entry], until: int) -> Iterator[tuple[int, int, Gauges]]:
    """From when until when which numbers hold."""
    said = [entry for entry in entries if entry.is_online is not None]
    for at, entry in enumerate(said):
        end = entry.at + (HOUR_S if entry.step_s == HOUR_S else CARRY_S)
        end = min(end, said[at + 1].at if at + 1 < len(said) else until)
        if entry.gauges != _NONE and end > entry.at:
            yield entry.at, end, entry.gauges


def _means(totals: Sequence[Sequence[float]]) -> Gauges:
    workers, idle, outstanding, pending = (round(total / time, 2) if time else None for total, time in totals)
    return workers, idle, outstanding, pending


def _sums(gauges: Sequence[Gauges]) -> Gauges:
    known = ([value for value in values if value is not None] for values in zip(*gauges, strict=True))
    workers, idle, outstanding, pending = (round(sum(values), 2) if values else None for values in known)
    return workers, idle, outstanding, pending


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 2**53:
        return None
    return float(value)


def _floor(at: float, step_s: int) -> int:
    return int(at // step_s) * step_s
