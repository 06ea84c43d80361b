"""Whether a failed request is sent again, and when. Decides only; `rest` sends and waits.

What may be repeated depends on what may have happened at the other side:

    failure                        repeatable request      other request
    never reached the service      again                   again
    429, 503 (refused, unread)     again                   again
    sent, no answer; 502, 504      again                   give up: it may have been done
    every other status             give up                 give up
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum

__all__ = ["Failure", "FailureKind", "GiveUp", "RetryIn", "RetryPolicy", "decide", "retry_after_s_from_header"]


class FailureKind(Enum):
    NOT_SENT = "not sent"
    """No connection came about: the service cannot have seen the request."""
    NO_ANSWER = "no answer"
    """The request, or a part of it, was sent; the answer did not come or was cut off."""
    STATUS = "status"
    """The service, or something before it, answered with an error status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """How one attempt failed. `status` and `retry_after_s` only with FailureKind.STATUS."""

    kind: FailureKind
    status: int | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How patient a client is. All times in seconds.

    Attributes:
        first_s: upper bound of the wait before the second attempt; doubles with each further one.
        longest_s: upper bound of a wait that we choose; a server's `Retry-After` may ask for more.
        budget_s: no wait begins that would end later than this after the first attempt.
        unmet_budget_s: the same as long as the service has never answered this client: a wrong address or
            a service that is not running should be said soon, a restart of a service in use be waited for.
    """

    first_s: float = 0.25
    longest_s: float = 10.0
    budget_s: float = 60.0
    unmet_budget_s: float = 2.0

    def __post_init__(self) -> None:
        if self.first_s <= 0 or self.longest_s < self.first_s:
            raise ValueError(f"0 < first_s <= longest_s must hold, got {self.first_s} and {self.longest_s}")
        if self.budget_s < 0 or self.unmet_budget_s < 0:
            raise ValueError(f"budgets must not be negative, got {self.budget_s} and {self.unmet_budget_s}")


@dataclass(frozen=True, slots=True)
class RetryIn:
    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    pass


_ALWAYS = frozenset({429, 503})
_IF_REPEATABLE = frozenset({502, 504})


def decide(
    policy: RetryPolicy,
    failure: Failure,
    *,
    attempt: int,
    elapsed_s: float,
    is_repeatable: bool,
    has_met: bool,
    jitter: float,
) -> RetryIn | GiveUp:
    """Decide about the attempt that just failed.

    Args:
        attempt: how many attempts were made, this one included; at least 1.
        elapsed_s: since the first attempt began.
        is_repeatable: the request may be carried out twice without harm.
        has_met: the service has answered this client at some time.
        jitter: uniformly random in [0, 1); spreads the clients that a restart has thrown off together.

    Raises:
        ValueError: `attempt` is less than 1.
    """
    if attempt < 1:
        raise ValueError(f"attempt must be at least 1, got {attempt}")
    if not _may_repeat(failure, is_repeatable):
        return GiveUp()
    bound = min(policy.longest_s, policy.first_s * 2.0 ** min(attempt - 1, 32))
    wait_s = bound * (0.5 + 0.5 * jitter)
    if failure.retry_after_s is not None:
        wait_s = max(wait_s, failure.retry_after_s)
    budget_s = policy.budget_s if has_met else policy.unmet_budget_s
    return RetryIn(wait_s) if elapsed_s + wait_s <= budget_s else GiveUp()


def _may_repeat(failure: Failure, is_repeatable: bool) -> bool:
    if failure.kind is FailureKind.NOT_SENT:
        return True
    if failure.kind is FailureKind.NO_ANSWER:
        return is_repeatable
    return failure.status in _ALWAYS or (is_repeatable and failure.status in _IF_REPEATABLE)


def retry_after_s_from_header(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds of a `Retry-After` header, a number or an HTTP date; None if it is absent or makes no sense."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - (now or datetime.now(timezone.utc))).total_seconds())
