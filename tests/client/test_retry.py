from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.client.retry import (
    Failure,
    FailureKind,
    GiveUp,
    RetryIn,
    RetryPolicy,
    decide,
    retry_after_s_from_header,
)

POLICY = RetryPolicy(first_s=1.0, longest_s=8.0, budget_s=60.0, unmet_budget_s=5.0)
NOT_SENT = Failure(kind=FailureKind.NOT_SENT)
NO_ANSWER = Failure(kind=FailureKind.NO_ANSWER)


def status(code: int, retry_after_s: float | None = None) -> Failure:
    return Failure(kind=FailureKind.STATUS, status=code, retry_after_s=retry_after_s)


def judge(failure: Failure, *, attempt: int = 1, elapsed_s: float = 0.0, repeatable: bool = True, met: bool = True):
    return decide(
        POLICY, failure, attempt=attempt, elapsed_s=elapsed_s, is_repeatable=repeatable, has_met=met, jitter=0.999999
    )


@pytest.mark.parametrize(
    ("failure", "repeatable", "again"),
    [
        (NOT_SENT, True, True),
        (NOT_SENT, False, True),
        (NO_ANSWER, True, True),
        (NO_ANSWER, False, False),
        (status(429), False, True),
        (status(503), False, True),
        (status(502), True, True),
        (status(502), False, False),
        (status(504), True, True),
        (status(504), False, False),
        (status(500), True, False),
        (status(404), True, False),
        (status(401), True, False),
        (status(422), True, False),
    ],
)
def test_a_request_is_repeated_only_if_that_cannot_do_it_twice(failure, repeatable, again) -> None:
    assert isinstance(judge(failure, repeatable=repeatable), RetryIn if again else GiveUp)


def test_waits_double_up_to_the_longest() -> None:
    waits = [judge(NOT_SENT, attempt=n).wait_s for n in range(1, 7)]
    assert waits == pytest.approx([1, 2, 4, 8, 8, 8], rel=1e-3)


def test_a_wait_is_as_long_as_the_service_asks_for() -> None:
    assert judge(status(429, retry_after_s=30)).wait_s == 30


def test_no_wait_is_begun_that_ends_after_the_budget() -> None:
    assert isinstance(judge(NOT_SENT, attempt=5, elapsed_s=51.9), RetryIn)
    assert judge(NOT_SENT, attempt=5, elapsed_s=52.1) == GiveUp()
    assert judge(status(503, retry_after_s=61)) == GiveUp()


def test_a_service_that_never_answered_is_given_up_sooner() -> None:
    assert isinstance(judge(NOT_SENT, attempt=4, elapsed_s=7, met=True), RetryIn)
    assert judge(NOT_SENT, attempt=4, elapsed_s=7, met=False) == GiveUp()


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="attempt"):
        judge(NOT_SENT, attempt=0)


@given(attempt=st.integers(1, 10_000), elapsed_s=st.floats(0, 1e6), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_positive_and_within_its_bounds(attempt: int, elapsed_s: float, jitter: float) -> None:
    decision = decide(
        POLICY, NOT_SENT, attempt=attempt, elapsed_s=elapsed_s, is_repeatable=True, has_met=True, jitter=jitter
    )
    if isinstance(decision, RetryIn):
        assert 0 < decision.wait_s <= POLICY.longest_s
        assert elapsed_s + decision.wait_s <= POLICY.budget_s


@pytest.mark.parametrize("bad", [{"first_s": 0}, {"longest_s": 0.1}, {"budget_s": -1}, {"unmet_budget_s": -1}])
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        RetryPolicy(**bad)


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s_from_header(value, now=NOW) == expected
