"""Charts over time and of amounts: ECharts, which NiceGUI ships, and the same as a table for whoever cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nicegui import ui

from farcall.console.components.table import Column, DataTable, Empty
from farcall.console.components.text import Tag

__all__ = ["Series", "TimeChart", "bar_chart", "time_chart"]

_COLOURS: Final = ("#3b6fd4", "#1f9d76", "#c8641b", "#8a63c9", "#b8457e", "#7a8794")
"""Told apart also by people who see few colours, on light and on dark."""
_GREY: Final = "#828a96"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line.

    Attributes:
        name: member of the points, and with `label` what people are told.
        filled: whether the area below is tinted.
    """

    name: str
    label: str
    filled: bool = False


class TimeChart(ui.element):
    """Lines over time.

    Args:
        points: in order of time; each has `at` (Unix seconds) and the members that `series` name; None is a gap.
        label: what it shows, in words; screen readers read it, and a table of the same is below.
        unit: of the values, for the axis.
    """

    def __init__(
        self, series: Sequence[Series], points: Sequence[Mapping[str, Any]], *, label: str, unit: str = ""
    ) -> None:
        super().__init__("figure")
        self.classes("fc-chart")
        self._series = series
        with self:
            self._chart = ui.echart(_options(series, points, unit), renderer="svg")
            self._chart.props.update({"role": "img", "aria-label": label})
            self._summary = Tag("figcaption", _in_words(series, points))
            with Tag("details"):
                Tag("summary", "The same as a table")
                columns = [Column(name="at", label="Time", kind="time")]
                columns += [Column(name=each.name, label=each.label, kind="number") for each in series]
                self._table = DataTable(
                    columns, points, caption=label, empty=Empty(title="No data yet."), sort_by="at", descending=True
                )

    def set_points(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Show these instead."""
        for shown, each in zip(self._chart.options["series"], self._series, strict=True):
            shown["data"] = _data(each, points)
        self._chart.update()
        self._summary.text = _in_words(self._series, points)
        self._table.set_rows(points)


def time_chart(
    series: Sequence[Series], points: Sequence[Mapping[str, Any]], *, label: str, unit: str = ""
) -> TimeChart:
    """See `TimeChart`."""
    return TimeChart(series, points, label=label, unit=unit)


def bar_chart(amounts: Sequence[tuple[str, float]], *, label: str, unit: str = "") -> None:
    """Bars, one a name, in the order given. The names may be anybody's: they are shown as text.

    Args:
        label: what it shows, in words. The values themselves belong into a table beside it.
    """
    options = {
        **_frame(unit),
        "xAxis": {"type": "value", "axisLabel": {"color": _GREY}, "splitLine": {"lineStyle": {"color": "#8884"}}},
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": [name for name, _ in amounts],
            "axisLabel": {"color": _GREY, "width": 160, "overflow": "truncate"},
        },
        "series": [{"type": "bar", "data": [value for _, value in amounts], "itemStyle": {"color": _COLOURS[0]}}],
    }
    with ui.element("figure").classes("fc-chart"):
        chart = ui.echart(options, renderer="svg").style(f"height: {max(4, 2 * len(amounts) + 3)}rem")
        chart.props.update({"role": "img", "aria-label": label})


def _options(series: Sequence[Series], points: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any]:
    return {
        **_frame(unit),
        "legend": {"textStyle": {"color": _GREY}, "top": 0, "data": [each.label for each in series]},
        "xAxis": {"type": "time", "axisLabel": {"color": _GREY, "hideOverlap": True}},
        "yAxis": {
            "type": "value",
            "minInterval": 1,
            "name": unit,
            "axisLabel": {"color": _GREY},
            "nameTextStyle": {"color": _GREY},
            "splitLine": {"lineStyle": {"color": "#8884"}},
        },
        "series": [
            {
                "type": "line",
                "name": each.label,
                "data": _data(each, points),
                "showSymbol": False,
                "step": "end",
                "lineStyle": {"width": 2},
                **({"areaStyle": {"opacity": 0.15}} if each.filled else {}),
            }
            for each in series
        ],
    }


def _frame(unit: str) -> dict[str, Any]:
    return {
        "color": list(_COLOURS),
        "animation": False,
        "grid": {"left": 8, "right": 16, "top": 40 if unit else 34, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True},
    }


def _data(series: Series, points: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[point["at"] * 1000, point.get(series.name)] for point in points]


def _in_words(series: Sequence[Series], points: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for each in series:
        values = [point[each.name] for point in points if point.get(each.name) is not None]
        if values:
            parts.append(f"{each.label}: {values[-1]:g} at the end, {max(values):g} at most")
    return "; ".join(parts) + "." if parts else "No data yet."
