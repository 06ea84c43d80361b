"""What was used: tables, a chart and CSV, by whom, where, of which function, on which day."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from farcall.console.components import Column, DataTable, Empty, Series, StatRow, empty_state, section, time_chart
from farcall.console.components.form import Field, Form
from farcall.console.formats import count, duration
from farcall.console.page import View, console_page
from farcall.console.views.usage import DIMENSIONS, days_between, lines_by, series_by_day, totals
from farcall.console.views.values import mappings

__all__ = ["PAGES"]

_SPANS: Final = {"7d": ("Last 7 days", 7), "30d": ("Last 30 days", 30), "90d": ("Last 90 days", 90)}
_SCOPES: Final = {"mine": "My tasks", "endpoint": "Endpoints that I manage", "all": "The whole service"}
_NO_USAGE: Final = Empty(title="Nothing was used in this time.")


@console_page("/usage", title="Usage", section="usage")
async def usage(view: View) -> None:
    """Of a time, counted by one thing; the address says which."""
    span = view.query.get("last", "")
    span = span if span in _SPANS else "30d"
    by = view.query.get("by", "")
    by = by if by in DIMENSIONS else "endpoint"
    scopes = {name: title for name, title in _SCOPES.items() if name != "all" or view.session.is_operator}
    scope = view.query.get("scope", "")
    endpoint_id = view.query.get("endpoint_id", "")
    scope = scope if scope in scopes else "mine"
    _choice(scopes, scope, span, by, endpoint_id)
    now = time.time()
    since = now - _SPANS[span][1] * 86400
    found = await view.api.get(
        "/v3/usage",
        since=since,
        until=now,
        by=",".join(dict.fromkeys(["day", by])),
        scope=scope,
        endpoint_id=endpoint_id,
    )
    rows = mappings(found["rows"])
    if not rows:
        empty_state("Nothing was used in this time.", "Choose a longer time or another scope above.")
        return
    _totals(rows)
    with section(f"Tasks by day{'' if by == 'day' else ' and ' + DIMENSIONS[by].lower()}"):
        _chart(rows, by, days_between(since, now))
    with section(f"By {DIMENSIONS[by].lower()}"):
        _table(rows, by)


def _choice(scopes: Mapping[str, str], scope: str, span: str, by: str, endpoint_id: str) -> None:
    spans = [(name, title) for name, (title, _) in _SPANS.items()]
    Form(
        [
            Field(name="scope", label="Of", kind="choice", options=list(scopes.items()), value=scope),
            Field(name="last", label="Time", kind="choice", options=spans, value=span),
            Field(name="by", label="Counted by", kind="choice", options=list(DIMENSIONS.items()), value=by),
            Field(name="endpoint_id", label="Endpoint ID", value=endpoint_id),
        ],
        label="What usage is shown",
        send="Show",
        address="/usage",
        cancel="/usage",
    )


def _totals(rows: Sequence[Mapping[str, Any]]) -> None:
    total = totals(rows)
    stats = StatRow(("Tasks", "Succeeded", "Failed", "Cancelled", "Run time"), label="In all")
    stats.set(
        {
            "Tasks": count(total.tasks),
            "Succeeded": count(total.succeeded),
            "Failed": count(total.failed),
            "Cancelled": count(total.cancelled),
            "Run time": duration(total.run_seconds),
        }
    )


def _chart(rows: Sequence[Mapping[str, Any]], by: str, days: Sequence[str]) -> None:
    found = series_by_day(rows, by, days=days, measure="tasks")
    # Members have names of ours: what people named is text, in `label`.
    series = [Series(name=f"s{place}", label=name) for place, (name, _) in enumerate(found)]
    points = [
        {"at": _start_of(day), **{f"s{place}": figures[index] for place, (_, figures) in enumerate(found)}}
        for index, day in enumerate(days)
    ]
    time_chart(series, points, label=f"Tasks by day and {DIMENSIONS[by].lower()}", unit="tasks")


def _table(rows: Sequence[Mapping[str, Any]], by: str) -> None:
    columns = (
        Column(name="name", label=DIMENSIONS[by]),
        Column(name="tasks", label="Tasks", kind="number"),
        Column(name="succeeded", label="Succeeded", kind="number"),
        Column(name="failed", label="Failed", kind="number"),
        Column(name="cancelled", label="Cancelled", kind="number"),
        Column(name="run_seconds", label="Run time", kind="number", show=duration),
    )
    lines = [
        {
            "name": line.name,
            "tasks": line.tasks,
            "succeeded": line.succeeded,
            "failed": line.failed,
            "cancelled": line.cancelled,
            "run_seconds": round(line.run_seconds, 3),
        }
        for line in lines_by(rows, by)
    ]
    DataTable(
        columns, lines, caption=f"Usage by {DIMENSIONS[by].lower()}", empty=_NO_USAGE, csv_name=f"usage-by-{by}.csv"
    )


def _start_of(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=timezone.utc).timestamp()


PAGES: Final = (usage,)
