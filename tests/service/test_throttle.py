"""Guessing is slowed, by account and by address; nobody is kept out for long by others, and memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.service.accounts.throttle import Attempts, Throttle, address_key


def test_a_few_failures_cost_nothing_and_then_each_doubles_the_wait() -> None:
    throttle = Throttle(free=3, first_s=1, longest_s=10, forget_s=100)
    assert [throttle.attempt("ada", 0) for _ in range(3)] == [0, 0, 0]
    assert throttle.attempt("ada", 0) == 1
    waits, now = [], 0.0
    for _ in range(6):
        wait = throttle.wait_s("ada", now)
        waits.append(wait)
        now += wait
        assert throttle.attempt("ada", now) == 0
    assert waits == [1, 2, 4, 8, 10, 10]


def test_an_attempt_that_was_not_let_in_does_not_prolong_the_wait() -> None:
    throttle = Throttle(free=1, first_s=10, longest_s=60)
    throttle.attempt("ada", 0)
    assert [throttle.attempt("ada", now) for now in (1, 5, 9.5)] == [9, 5, 0.5]
    assert throttle.attempt("ada", 10) == 0


def test_those_who_come_together_are_counted_before_any_has_failed() -> None:
    throttle = Throttle(free=5)
    assert sum(throttle.attempt("ada", 0) == 0 for _ in range(100)) == 5


def test_success_forgets_and_so_does_time() -> None:
    throttle = Throttle(free=1, first_s=50, longest_s=50, forget_s=100)
    throttle.attempt("ada", 0)
    throttle.succeeded("ada")
    assert throttle.attempt("ada", 0) == 0
    assert throttle.attempt("ada", 99) == 0  # the second failure
    assert throttle.wait_s("ada", 100) == 49
    assert throttle.wait_s("ada", 199) == 0
    assert len(throttle) == 1
    throttle.attempt("ada", 199)  # counts as the first again
    throttle.take_back("ada")
    assert len(throttle) == 0


def test_a_clock_that_goes_back_frees_nobody_and_locks_nobody_for_longer() -> None:
    throttle = Throttle(free=1, first_s=10, longest_s=60)
    throttle.attempt("ada", 1000)
    assert throttle.wait_s("ada", 0) == 10


def test_memory_is_bounded_and_the_most_recent_are_kept() -> None:
    throttle = Throttle(free=1, remembered=3)
    for number in range(5):
        throttle.attempt(str(number), 0)
    assert len(throttle) == 3
    assert [throttle.wait_s(str(number), 0) > 0 for number in range(5)] == [False, False, True, True, True]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 500)), max_size=60))
def test_however_it_is_used_no_wait_is_negative_or_longer_than_the_longest(steps: list[tuple[str, float]]) -> None:
    throttle = Throttle(free=2, first_s=1, longest_s=30, forget_s=60, remembered=2)
    now = 0.0
    for key, passed in steps:
        now += passed
        before = throttle.wait_s(key, now)
        assert 0 <= before <= 30
        assert throttle.attempt(key, now) == before
        assert len(throttle) <= 2


@pytest.mark.parametrize("wrong", [{"free": 0}, {"first_s": 0}, {"longest_s": 0.5}, {"forget_s": 1}, {"remembered": 0}])
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a throttle needs"):
        Throttle(**{"free": 1, **wrong})  # type: ignore[arg-type]


def test_one_account_is_protected_from_many_addresses() -> None:
    attempts = Attempts()
    let_in = sum(attempts.begin("ada@local", f"192.0.2.{n}", 0) == 0 for n in range(50))
    assert let_in == 5
    assert attempts.begin("ADA@LOCAL", "198.51.100.1", 0) > 0  # however it is written
    assert attempts.begin("bob@local", "198.51.100.1", 0) == 0


def test_many_accounts_are_protected_from_one_address_even_if_it_owns_one_of_them() -> None:
    attempts = Attempts()
    let_in = 0
    for number in range(100):
        let_in += attempts.begin(f"user{number}@local", "192.0.2.1", 0) == 0
        if attempts.begin("mallory@local", "192.0.2.1", 0) == 0:
            attempts.succeeded("mallory@local", "192.0.2.1")
    assert let_in == 30


def test_a_locked_account_waits_a_minute_at_most_and_success_frees_it() -> None:
    attempts, now = Attempts(), 0.0
    for _ in range(20):
        wait = attempts.begin("ada", None, now)
        now += wait
        assert wait <= 60
    attempts.succeeded("ada", "192.0.2.7")
    assert attempts.begin("ada", "192.0.2.7", now) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("testclient", "testclient", True),
        (None, "192.0.2.1", False),
    ],
)
def test_what_counts_as_one_address(one: str | None, other: str | None, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same
