"""Moments in addresses and forms. An address says them in UTC, so that it means the same to whoever opens it; a form
shows and takes them in the viewer's zone."""

from __future__ import annotations

import math
from datetime import datetime, timezone, tzinfo
from typing import Any, Final

from farcall.console.views.formats import UNKNOWN, number

__all__ = ["absolute", "from_address", "from_form", "to_address", "to_form"]

_FORM: Final = "%Y-%m-%dT%H:%M"


def to_address(at: float | None) -> str | None:
    """`2026-11-23T05:34Z`, or with seconds where there are any."""
    moment = _moment(at, timezone.utc)
    if moment is None:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment.second else f"{moment:%Y-%m-%dT%H:%MZ}"


def from_address(text: str | None) -> float | None:
    """Unix seconds; None for what is no moment: an address that somebody edited shows everything rather than fails."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace(" ", "+"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def to_form(at: float | None, zone: tzinfo) -> str:
    """What a `datetime-local` field shows; empty for None."""
    moment = _moment(at, zone)
    return "" if moment is None else moment.strftime(_FORM)


def from_form(text: str | None, zone: tzinfo) -> float | None:
    """Unix seconds of what a `datetime-local` field says; None if it is empty or nothing of the kind."""
    try:
        moment = datetime.fromisoformat((text or "").strip())
        return moment.replace(tzinfo=moment.tzinfo or zone).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def absolute(at: Any, zone: tzinfo) -> str:  # a member of a JSON document
    """`2026-11-23 06:34:05 CET`; `UNKNOWN` for what is no moment."""
    moment = _moment(number(at), zone)
    return UNKNOWN if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".rstrip()


def _moment(at: float | None, zone: tzinfo) -> datetime | None:
    if at is None or not math.isfinite(at):
        return None
    try:
        return datetime.fromtimestamp(at, zone)
    except (ValueError, OverflowError, OSError):
        return None
