"""Numbers, sizes, durations and ids as people read them. Times are not written here: only the browser knows the
viewer's zone."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["UNKNOWN", "count", "duration", "number", "percent", "plural", "short_id", "size", "text"]

UNKNOWN: Final = "–"
"""Shown for what nobody told."""

_STEPS: Final = ((86400, "d"), (3600, "h"), (60, "min"))
_SIZES: Final = ("KiB", "MiB", "GiB", "TiB")


def number(value: Any) -> float | None:  # a member of a JSON document
    """The value if it is a number that can be shown, else None: documents carry what agents reported."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 2**53:
        return None
    return value


def text(value: Any) -> str:  # a member of a JSON document
    """The value as text; `UNKNOWN` for what is null or empty."""
    return UNKNOWN if value is None or value == "" else str(value)


def count(value: Any) -> str:  # a member of a JSON document
    """`12,345`; `UNKNOWN` for what is no number."""
    known = number(value)
    return UNKNOWN if known is None else f"{round(known):,}"


def percent(part: float | None, whole: float | None) -> str:
    """`37 %`; `UNKNOWN` without a whole. Never 0 % of something, nor 100 % of not quite all."""
    if part is None or not whole:
        return UNKNOWN
    share = 100 * part / whole
    if 0 < share < 1:
        return "< 1 %"
    return f"{min(round(share), 99) if part < whole else round(share)} %"


def size(value_bytes: Any) -> str:  # a member of a JSON document
    """`817 B`, `1.5 KiB`, `12 MiB`: powers of 1024, two figures."""
    known = number(value_bytes)
    if known is None or known < 0:
        return UNKNOWN
    if known < 1024:
        return f"{known:.0f} B"
    for unit in _SIZES:
        known /= 1024
        if known < 1023.5 or unit == _SIZES[-1]:
            break
    return f"{known:.1f} {unit}" if known < 9.95 else f"{known:,.0f} {unit}"


def duration(value_s: Any) -> str:  # a member of a JSON document
    """`4 ms`, `1.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`: the two largest units that matter.

    What is negative is shown as nothing: the clocks of two machines differ, and no time ran backwards.
    """
    known = number(value_s)
    if known is None:
        return UNKNOWN
    if known <= 0:
        return "0 s"
    if known < 0.9995:
        return f"{max(1, round(known * 1000))} ms"
    if known < 9.95:
        return f"{known:.1f} s"
    whole = round(known)
    if whole < 60:
        return f"{whole} s"
    for (length, unit), (shorter, next_unit) in zip(_STEPS, (*_STEPS[1:], (1, "s")), strict=True):
        if whole >= length:
            rest = whole % length // shorter
            return f"{whole // length} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"  # pragma: no cover - the last unit fits whatever is a minute or more


def plural(amount: int, one: str, many: str | None = None) -> str:
    """`1 task`, `2,000 tasks`."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def short_id(value: Any) -> str:  # a member of a JSON document
    """The beginning of an id: enough to tell two lines of a table apart. The whole one belongs beside or behind it."""
    return UNKNOWN if not value else str(value)[:8]
