"""What was used: tables, a chart and CSV, by whom, where, of which function, on which day."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from farcall.console.components import Column, DataTable, Empty, StatRow, empty_state, section
from farcall.console.components.bars import day_bars
from farcall.console.components.form import Field, Form
from farcall.console.formats import count, duration
from farcall.console.page import View, console_page, url
from farcall.console.views.usage import DIMENSIONS, UsageQuestion, days_between, lines_by, series_by_day, totals
from farcall.console.views.values import mappings, short_id
from farcall.wire.errors import InvalidRequest

__all__ = ["PAGES"]

_MOST_ENDPOINTS: Final = 200
_HOMES: Final = {"endpoint": "/compute/endpoints", "function": "/functions"}
_NO_USAGE: Final = Empty(title="Nothing was used in this time.")


@console_page("/usage", title="Usage", section="usage")
async def usage(view: View) -> None:
    """Of a time, counted by one thing; the address says which."""
    asked = UsageQuestion.from_address(view.query, is_operator=view.session.is_operator)
    now, fault = time.time(), None
    rows: list[Mapping[str, Any]] = []
    try:
        rows = mappings((await view.api.get("/v3/usage", **asked.to_request(now=now)))["rows"])
    except InvalidRequest as exc:
        fault = str(exc)
    endpoints = await view.api.get("/v3/endpoints", limit=_MOST_ENDPOINTS)
    _choice(asked, endpoints["endpoints"], fault)
    if not rows:
        if fault is None:
            empty_state("Nothing was used in this time.", "Choose a longer time, or something else above.")
        return
    _totals(rows)
    title = DIMENSIONS[asked.by].lower()
    with section("Tasks by day" if asked.by == "day" else f"Tasks by day and {title}"):
        days = days_between(asked.since(now), now)
        series = series_by_day(rows, asked.by, days=days, measure="tasks")
        day_bars(days, series, label=f"Tasks by day and {title}", unit="tasks")
    with section(f"By {title}"):
        _table(rows, asked.by)


def _choice(asked: UsageQuestion, endpoints: Sequence[Mapping[str, Any]], fault: str | None) -> None:
    known = {each["endpoint_id"]: str(each["display_name"] or each["name"]) for each in endpoints}
    if asked.endpoint_id and asked.endpoint_id not in known:
        known[asked.endpoint_id] = short_id(asked.endpoint_id) or ""
    form = Form(
        [
            Field(name="scope", label="Whose", kind="choice", options=list(asked.scopes.items()), value=asked.scope),
            Field(name="last", label="Time", kind="choice", options=list(asked.spans.items()), value=asked.last),
            Field(name="by", label="Counted by", kind="choice", options=list(DIMENSIONS.items()), value=asked.by),
            Field(
                name="endpoint_id",
                label="Endpoint",
                kind="choice",
                options=[("", "Any"), *known.items()],
                value=asked.endpoint_id,
            ),
        ],
        label="What usage is shown",
        send="Show",
        address="/usage",
        cancel="/usage",
    )
    if fault is not None:
        form.tell({"endpoint_id": "Choose an endpoint that you manage."} if asked.scope == "endpoint" else {}, fault)


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


def _table(rows: Sequence[Mapping[str, Any]], by: str) -> None:
    home = _HOMES.get(by)
    columns = [
        Column(
            name="name",
            label=DIMENSIONS[by],
            href=lambda row: url(f"{home}/{row['id']}") if home and row["id"] else None,
        ),
        Column(name="tasks", label="Tasks", kind="number"),
        Column(name="succeeded", label="Succeeded", kind="number"),
        Column(name="failed", label="Failed", kind="number"),
        Column(name="cancelled", label="Cancelled", kind="number"),
        Column(name="run_seconds", label="Run time", kind="number", show=duration),
    ]
    if home:
        columns.append(Column(name="id", label="ID", kind="code", show=lambda id: short_id(id) or ""))
    lines = [
        {
            "id": line.key,
            "name": line.name,
            "tasks": line.tasks,
            "succeeded": line.succeeded,
            "failed": line.failed,
            "cancelled": line.cancelled,
            "run_seconds": round(line.run_seconds, 3),
        }
        for line in lines_by(rows, by)
    ]
    caption = f"Usage by {DIMENSIONS[by].lower()}"
    DataTable(columns, lines, caption=caption, empty=_NO_USAGE, csv_name=f"usage-by-{by}.csv")


PAGES: Final = (usage,)
