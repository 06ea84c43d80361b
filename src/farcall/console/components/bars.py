"""Stacked bars, one a day, and the same as a table."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from farcall.console.components.chart import _COLOURS, _GREY, _frame
from farcall.console.components.table import Column, DataTable, Empty
from farcall.console.components.text import Tag

__all__ = ["day_bars"]


def day_bars(days: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], *, label: str, unit: str) -> None:
    """Figures by day.

    Args:
        days: as they are shown.
        series: a name, which may be anybody's, and its figure on each day.
        label: what it shows, in words.
    """
    options = {
        **_frame(unit),
        "legend": {"type": "scroll", "textStyle": {"color": _GREY}, "top": 0, "data": [name for name, _ in series]},
        # Without markup: names are drawn, not written into the page.
        "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
        "xAxis": {"type": "category", "data": list(days), "axisLabel": {"color": _GREY, "hideOverlap": True}},
        "yAxis": {
            "type": "value",
            "minInterval": 1,
            "axisLabel": {"color": _GREY},
            "splitLine": {"lineStyle": {"color": "#8884"}},
        },
        "series": [
            {
                "type": "bar",
                "name": name,
                "stack": "all",
                "barMaxWidth": 36,
                "data": list(figures),
                "itemStyle": {"color": _COLOURS[place % len(_COLOURS)]},
            }
            for place, (name, figures) in enumerate(series)
        ],
    }
    columns = [Column(name="day", label="Day (UTC)")]
    columns += [Column(name=f"s{place}", label=name, kind="number") for place, (name, _) in enumerate(series)]
    rows = [
        {"day": day, **{f"s{place}": figures[index] for place, (_, figures) in enumerate(series)}}
        for index, day in enumerate(days)
    ]
    with ui.element("figure").classes("fc-chart"):
        chart = ui.echart(options, renderer="svg")
        chart.props.update({"role": "img", "aria-label": label})
        with Tag("details"):
            Tag("summary", "The same as a table")
            DataTable(columns, rows, caption=label, empty=Empty(title="No data."), sort_by="day", descending=True)
