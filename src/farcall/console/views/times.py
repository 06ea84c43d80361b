"""Moments in addresses: in UTC, so that they mean the same to whoever opens them. On pages the browser writes
them, in the viewer's zone."""

from __future__ import annotations

import math
from datetime import datetime, timezone

__all__ = ["from_address", "to_address"]


def to_address(at: float | None) -> str | None:
    """`2026-11-23T05:34Z`, or with seconds where there are any."""
    moment = _moment(at)
    if moment is None:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment.second else f"{moment:%Y-%m-%dT%H:%MZ}"


def from_address(text: str | None) -> float | None:
    """Unix seconds; None for what is no moment: an address that somebody edited shows everything rather than fails."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _moment(at: float | None) -> datetime | None:
    if at is None or not math.isfinite(at):
        return None
    try:
        return datetime.fromtimestamp(at, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
