"""Usage as tables and series of a chart, of the rows that the interface counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from farcall.console.formats import MISSING
from farcall.console.views.values import number, short_id

__all__ = [
    "DIMENSIONS",
    "MEASURES",
    "UsageLine",
    "UsageQuestion",
    "days_between",
    "lines_by",
    "series_by_day",
    "totals",
]

DIMENSIONS: Final = {"day": "Day", "endpoint": "Endpoint", "function": "Function", "user": "User", "account": "Account"}
"""By what usage is counted: name in the interface, title."""

MEASURES: Final = {
    "tasks": "Tasks",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "run_seconds": "Run time",
}
"""What is counted: member of a row, title."""

_MEMBERS: Final = {
    "day": ("day",),
    "endpoint": ("endpoint_name", "endpoint_id"),
    "function": ("function_name", "function_id"),
    "user": ("username",),
    "account": ("account",),
}


_SPANS: Final = {"7d": ("Last 7 days", 7), "30d": ("Last 30 days", 30), "90d": ("Last 90 days", 90)}
_SCOPES: Final = {"mine": "My tasks", "endpoint": "Everybody's at an endpoint", "all": "The whole service"}


@dataclass(frozen=True, kw_only=True)
class UsageQuestion:
    """What the page shows; `last`, `by`, `scope` and `endpoint_id` are the parameters of its address.

    Attributes:
        last: one of `spans`, counted back from now.
        by: one of `DIMENSIONS`.
        scope: one of `scopes`, which are those that the viewer has.
        endpoint_id: only there; "" is everywhere.
    """

    last: str
    by: str
    scope: str
    endpoint_id: str
    scopes: Mapping[str, str]

    @classmethod
    def from_address(cls, query: Mapping[str, str], *, is_operator: bool) -> UsageQuestion:
        """What an address asks for; what makes no sense does not count."""
        scopes = {name: title for name, title in _SCOPES.items() if name != "all" or is_operator}

        def one_of(name: str, known: Mapping[str, Any], otherwise: str) -> str:
            return query[name] if query.get(name) in known else otherwise

        return cls(
            last=one_of("last", _SPANS, "30d"),
            by=one_of("by", DIMENSIONS, "endpoint"),
            scope=one_of("scope", scopes, "mine"),
            endpoint_id=query.get("endpoint_id", "").strip()[:64],
            scopes=scopes,
        )

    @property
    def spans(self) -> dict[str, str]:
        """Times that can be chosen: name, title."""
        return {name: title for name, (title, _) in _SPANS.items()}

    def since(self, now: float) -> float:
        """When the time begins, Unix seconds."""
        return now - (_SPANS[self.last][1] - 1) * 86400

    def to_request(self, *, now: float) -> dict[str, str]:
        """Parameters of `GET /v3/usage`."""
        told = {
            "since": str(self.since(now)),
            "until": str(now),
            "by": ",".join(dict.fromkeys(("day", self.by))),
            "scope": self.scope,
            "endpoint_id": self.endpoint_id,
        }
        return {name: value for name, value in told.items() if value}


@dataclass(frozen=True, kw_only=True)
class UsageLine:
    """What was used under one name.

    Attributes:
        key: tells lines apart: an id where there is one.
        name: what is shown.
    """

    key: str
    name: str
    tasks: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    run_seconds: float = 0.0


def lines_by(rows: Iterable[Mapping[str, Any]], dimension: str) -> list[UsageLine]:
    """Rows added up over one dimension: days in their order, everything else with the most tasks first."""
    named: dict[str, str] = {}
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        key, name = _key_and_name(row, dimension)
        named.setdefault(key, name)
        kept = sums.setdefault(key, dict.fromkeys(MEASURES, 0.0))
        for measure in MEASURES:
            kept[measure] += number(row.get(measure)) or 0
    lines = [_line(key, named[key], kept) for key, kept in sums.items()]
    if dimension == "day":
        return sorted(lines, key=lambda line: line.key)
    return sorted(lines, key=lambda line: (-line.tasks, line.name.casefold(), line.key))


def totals(rows: Iterable[Mapping[str, Any]]) -> UsageLine:
    """All rows added up."""
    sums = dict.fromkeys(MEASURES, 0.0)
    for row in rows:
        for measure in MEASURES:
            sums[measure] += number(row.get(measure)) or 0
    return _line("", "Total", sums)


def days_between(since: float, until: float) -> list[str]:
    """Every day (UTC) from `since` to `until`, both included, as the interface writes them."""
    first = datetime.fromtimestamp(since, timezone.utc).date()
    last = datetime.fromtimestamp(until, timezone.utc).date()
    return [(first + timedelta(days=each)).isoformat() for each in range((last - first).days + 1)]


def series_by_day(
    rows: Iterable[Mapping[str, Any]], dimension: str, *, days: Sequence[str], measure: str, most: int = 6
) -> list[tuple[str, list[float]]]:
    """A line of figures for each name, one figure a day, for a stacked chart.

    Args:
        most: names; all the others come together as the last, "Others".

    Returns:
        (name, figures), the largest first; days on which there was nothing are 0. Of things with the same name each
        is a line of its own, with the end of its id behind the name.
    """
    place = {day: index for index, day in enumerate(days)}
    figures: dict[str, list[float]] = {}
    named: dict[str, str] = {}
    for row in rows:
        index = place.get(str(row.get("day")))
        if index is None:
            continue
        key, name = (measure, MEASURES[measure]) if dimension == "day" else _key_and_name(row, dimension)
        named.setdefault(key, name)
        figures.setdefault(key, [0.0] * len(days))[index] += number(row.get(measure)) or 0
    ranked = sorted(figures, key=lambda key: (-sum(figures[key]), named[key].casefold(), key))
    told = _told_apart(named)
    shown = [(told[key], figures[key]) for key in ranked[:most]]
    if rest := ranked[most:]:
        shown.append(("Others", [sum(column) for column in zip(*(figures[key] for key in rest), strict=True)]))
    return shown


def _told_apart(named: Mapping[str, str]) -> dict[str, str]:
    often = Counter(named.values())
    return {key: name if often[name] == 1 else f"{name} ({short_id(key)})" for key, name in named.items()}


def _key_and_name(row: Mapping[str, Any], dimension: str) -> tuple[str, str]:
    values = [str(row[member]) for member in _MEMBERS[dimension] if row.get(member)]
    if not values:
        return "", "(none)" if dimension == "account" else MISSING
    return values[-1], values[0]


def _line(key: str, name: str, sums: Mapping[str, float]) -> UsageLine:
    return UsageLine(
        key=key,
        name=name,
        tasks=int(sums["tasks"]),
        succeeded=int(sums["succeeded"]),
        failed=int(sums["failed"]),
        cancelled=int(sums["cancelled"]),
        run_seconds=sums["run_seconds"],
    )
