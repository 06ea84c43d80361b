"""Options of charts for ECharts. Names go in as values, never as keys, and tooltips are drawn rather than written as
markup: what a user named stays text.

Colours tell series apart also for people who tell few colours apart, and on light and dark ground; every chart has a
table or figures beside it that say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from farcall.console.views.formats import number

__all__ = ["COLORS", "bars_by_day", "figures_over_time", "utilisation"]

COLORS: Final = ("#2f7ed8", "#c9721a", "#2e9d6e", "#b04fb8", "#8a8f98", "#c94f4f", "#5c6bc0")
"""Okabe and Ito's idea, at a lightness that has a contrast of 3 to white and to black ground."""

_GREY: Final = "#80868f"


def figures_over_time(lines: Sequence[tuple[str, Sequence[tuple[float, float | None]]]]) -> dict[str, Any]:
    """Lines over time.

    Args:
        lines: (name, (Unix seconds, figure)); None leaves a gap. The browser writes the times in its own zone.
    """
    return {
        **_frame([name for name, _ in lines]),
        "xAxis": {"type": "time", "axisLabel": {"color": _GREY, "hideOverlap": True}},
        "series": [
            {
                "name": name,
                "type": "line",
                "step": "end",
                "showSymbol": False,
                "data": [[round(at * 1000), figure] for at, figure in points],
            }
            for name, points in lines
        ],
    }


def utilisation(points: Any) -> dict[str, Any]:  # `points` of GET /v3/endpoints/{id}/history
    """Workers over time: all, and those that have a task."""
    told = [each for each in points if isinstance(each, dict)] if isinstance(points, list) else []
    all_workers: list[tuple[float, float | None]] = []
    busy: list[tuple[float, float | None]] = []
    for each in told:
        at, workers, idle = (number(each.get(name)) for name in ("at", "workers", "idle_workers"))
        if at is None:
            continue
        all_workers.append((at, workers))
        busy.append((at, None if workers is None or idle is None else max(0, workers - idle)))
    return figures_over_time([("Workers", all_workers), ("Active workers", busy)])


def bars_by_day(days: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]) -> dict[str, Any]:
    """Stacked bars, one a day."""
    return {
        **_frame([name for name, _ in series]),
        "xAxis": {"type": "category", "data": list(days), "axisLabel": {"color": _GREY, "hideOverlap": True}},
        "series": [
            {"name": name, "type": "bar", "stack": "all", "barMaxWidth": 40, "data": [round(each, 3) for each in row]}
            for name, row in series
        ],
    }


def _frame(names: Sequence[str]) -> dict[str, Any]:
    return {
        "animation": False,
        "color": list(COLORS),
        "aria": {"enabled": True},
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 8, "containLabel": True},
        "legend": {"type": "scroll", "data": list(names), "textStyle": {"color": _GREY}},
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "yAxis": {
            "type": "value",
            "minInterval": 1,
            "axisLabel": {"color": _GREY},
            "splitLine": {"lineStyle": {"color": _GREY, "opacity": 0.25}},
        },
    }
