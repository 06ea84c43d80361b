"""When to connect again, by values."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.amqp.errors import ConnectionEnded, UsedAfterFork
from farcall.amqp.reconnect import Backoff, GiveUp, Reconnect, Reopen, Retry

BACKOFF = Backoff(first_s=0.1, ceiling_s=10.0, stable_s=10.0, refusals_limit=1)


def test_the_first_retry_comes_almost_at_once_and_later_ones_ever_later_up_to_the_ceiling() -> None:
    reconnect = Reconnect(BACKOFF)
    delays = [reconnect.failed(jitter=1.0).delay_s for _ in range(10)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_half_and_all_of_its_span_however_long_the_outage(retries: int, jitter: float) -> None:
    delay_s = BACKOFF.delay_s(retries, jitter)
    assert BACKOFF.first_s / 2 <= delay_s <= BACKOFF.ceiling_s
    assert BACKOFF.delay_s(retries, 0.0) <= delay_s


def test_attempts_are_counted_through_failures_and_losses_in_a_row() -> None:
    reconnect = Reconnect(BACKOFF)
    assert reconnect.failed(jitter=0.0) == Retry(delay_s=0.05, attempt=1)
    assert reconnect.failed(jitter=0.0) == Retry(delay_s=0.1, attempt=2)
    reconnect.opened(now_s=100.0)
    assert reconnect.lost(now_s=109.9, jitter=0.0) == Retry(delay_s=0.2, attempt=3), "it flaps"


def test_a_connection_that_was_stable_starts_afresh() -> None:
    reconnect = Reconnect(BACKOFF)
    for _ in range(8):
        reconnect.failed(jitter=0.0)
    reconnect.opened(now_s=100.0)
    assert reconnect.lost(now_s=110.0, jitter=0.0) == Retry(delay_s=0.05, attempt=1)


def test_a_refused_fixed_credential_ends_it_after_the_limit() -> None:
    assert Reconnect(BACKOFF).refused("a", may_change=False, jitter=0.0) == GiveUp(refusals=1)
    reconnect = Reconnect(Backoff(refusals_limit=3))
    assert isinstance(reconnect.refused("a", may_change=False, jitter=0.0), Retry)
    assert isinstance(reconnect.refused("a", may_change=False, jitter=0.0), Retry)
    assert reconnect.refused("a", may_change=False, jitter=0.0) == GiveUp(refusals=3)


def test_a_credential_that_may_change_is_asked_for_once_more() -> None:
    reconnect = Reconnect(BACKOFF)
    assert isinstance(reconnect.refused("a", may_change=True, jitter=0.0), Retry)
    assert isinstance(reconnect.refused("b", may_change=True, jitter=0.0), Retry), "a new one"
    assert reconnect.refused("b", may_change=True, jitter=0.0) == GiveUp(refusals=2)


def test_refusals_are_forgotten_when_a_login_was_accepted() -> None:
    reconnect = Reconnect(BACKOFF)
    reconnect.refused("a", may_change=True, jitter=0.0)
    reconnect.opened(now_s=0.0)
    assert isinstance(reconnect.refused("a", may_change=True, jitter=0.0), Retry)


def test_a_closed_channel_is_opened_twice_at_once_and_then_with_growing_waits() -> None:
    reopen = Reopen(BACKOFF)
    assert [reopen.closed(now_s=0.0, jitter=0.0) for _ in range(5)] == pytest.approx([0, 0, 0.05, 0.1, 0.2])


def test_a_channel_that_was_usable_for_long_is_opened_at_once_again() -> None:
    reopen = Reopen(BACKOFF)
    for _ in range(5):
        reopen.closed(now_s=0.0, jitter=0.0)
    reopen.ready(now_s=10.0)
    assert reopen.closed(now_s=19.9, jitter=0.0) > 0
    reopen.ready(now_s=20.0)
    assert reopen.closed(now_s=30.0, jitter=0.0) == 0


def test_closes_before_the_connection_was_lost_do_not_count_after_it() -> None:
    reopen = Reopen(BACKOFF)
    for _ in range(5):
        reopen.closed(now_s=0.0, jitter=0.0)
    reopen.detached()
    assert reopen.closed(now_s=0.0, jitter=0.0) == 0


@pytest.mark.parametrize("wrong", [{"first_s": 0}, {"first_s": 2, "ceiling_s": 1}, {"refusals_limit": 0}])
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_errors_survive_a_pickle_round_trip_and_say_what_to_do() -> None:
    for error in (ConnectionEnded("tasks", "closed"), UsedAfterFork("tasks", 1, 2)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
        assert "new AmqpConnection" in str(error)
