"""Numbers, sizes and durations as people read them. Pure; times of day are the browser's business (its zone)."""

from __future__ import annotations

import json
import math
from typing import Any, Final

__all__ = ["MISSING", "as_json", "count", "duration", "percent", "plural", "share", "size"]

MISSING: Final = "–"
"""Shown for what is not known."""
_SIZES: Final = ("KiB", "MiB", "GiB", "TiB")


def count(value: float | None) -> str:
    """With a thin gap at thousands: `12 345`."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}".replace(",", "\u202f")


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def size(value: float | None) -> str:
    """Bytes, with the largest unit of which there is at least one: `1.5 MiB`."""
    if value is None or not math.isfinite(value) or value < 0:
        return MISSING
    if value < 1024:
        return f"{value:.0f} B"
    for unit in _SIZES:
        value /= 1024
        if value < 1024 or unit == _SIZES[-1]:
            break
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def duration(seconds: float | None) -> str:
    """With the two largest units: `3 min 20 s`, `2 d 4 h`, `12 ms`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{count(whole // unit)} {name}" + (f" {rest} {below_name}" if rest else "")
    raise AssertionError(seconds)


def share(part: float | None, whole: float | None) -> float | None:
    """Part of whole, 0 to 1; None if that says nothing."""
    if part is None or not whole:
        return None
    return min(max(part / whole, 0.0), 1.0)


def percent(value: float | None) -> str:
    """0 to 1 as `37 %`."""
    return MISSING if value is None or not math.isfinite(value) else f"{value * 100:.0f} %"


def as_json(value: Any) -> str:
    """For people, indented; text as it is."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False)
