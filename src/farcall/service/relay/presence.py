"""Whether an endpoint is online, from its connection and its status reports. Decides only.

Reports alone do not prove that tasks are taken (an agent that lost the race for its queue goes on reporting), and
a connection alone does not prove that the agent behind it lives. So it takes both: the task queue has a consumer,
and the last sign of life is not older than a few announced periods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from farcall.wire.limits import DEFAULT_HEARTBEAT_PERIOD_S, HEARTBEAT_TOLERANCE, MIN_HEARTBEAT_PERIOD_S

__all__ = ["Presence", "after_report", "as_stored", "attached", "detached", "is_online"]


_PERIOD_LIMIT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """What is known of one endpoint's life. Times are Unix seconds.

    Attributes:
        attached_at: since when its queue has a consumer; None if it has none.
        says_goodbye: its last report announced the end, and nobody attached since.
        period_s: how often it announced to report.
    """

    attached_at: float | None = None
    reported_at: float | None = None
    says_goodbye: bool = False
    period_s: float = DEFAULT_HEARTBEAT_PERIOD_S


def attached(presence: Presence, *, now: float) -> Presence:
    """A consumer has come."""
    return replace(presence, attached_at=now, says_goodbye=False)


def detached(presence: Presence) -> Presence:
    """The last consumer has gone."""
    return replace(presence, attached_at=None)


def after_report(presence: Presence, global_state: Mapping[str, Any], *, now: float) -> Presence:
    """A status report has come. One that carries `error` is about something else and changes nothing.

    Source: wire protocol, `global_state` (`active` false, or a period of 0, is the last message of an agent).
    """
    if "error" in global_state:
        return presence
    period = global_state.get("heartbeat_period")
    if isinstance(period, bool) or not isinstance(period, (int, float)) or not abs(period) < _PERIOD_LIMIT_S:
        period = presence.period_s
    goodbye = global_state.get("active") is False or period <= 0
    period_s = presence.period_s if period <= 0 else max(float(period), MIN_HEARTBEAT_PERIOD_S)
    return replace(presence, reported_at=now, says_goodbye=goodbye, period_s=period_s)


def as_stored(attached_at: float | None, report: Mapping[str, Any] | None, reported_at: float | None) -> Presence:
    """What is known from the database, where several processes write it.

    Args:
        attached_at: since when its queue has a consumer; None if it has none.
        report: the last one, and when it came; None if there was none.
    """
    known = Presence(attached_at=attached_at)
    if report is None or reported_at is None:
        return known
    known = after_report(known, report, now=reported_at)
    if attached_at is not None and attached_at > reported_at:
        return replace(known, says_goodbye=False)  # that was its predecessor
    return known


def is_online(presence: Presence, *, now: float) -> bool:
    """Whether tasks sent now would be taken, as far as can be known."""
    if presence.attached_at is None or presence.says_goodbye:
        return False
    last_sign = max(presence.attached_at, presence.reported_at or 0.0)
    return now - last_sign <= HEARTBEAT_TOLERANCE * presence.period_s
