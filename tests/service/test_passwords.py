"""Local passwords: what is refused, what is stored, and that a wrong password and an unknown account look alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from argon2 import PasswordHasher, extract_parameters

from farcall.service.accounts import passwords as module
from farcall.service.accounts.passwords import (
    PasswordCheck,
    Passwords,
    PasswordTooWeak,
    check_new_password,
    hash_password,
    why_weak,
)

GOOD = "lamp orbit tuesday"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def run(story: Callable[[Passwords], Awaitable[None]]) -> None:
    passwords = Passwords()
    try:
        asyncio.run(story(passwords))  # type: ignore[arg-type]
    finally:
        passwords.close()


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "12 characters"),
        ("elevenchars", "12 characters"),
        ("x" * 1025, "1024 characters"),
        ("aaaaaaaaaaaaaaaa", "first that somebody would try"),
        ("abcabcabcabcabc", "first that somebody would try"),
        ("PasswordPassword", "first that somebody would try"),
        ("passwordpassword2024!", "first that somebody would try"),
        ("Lovelace-is-here", "user name"),
    ],
)
def test_a_password_that_will_not_do_is_refused_with_the_reason(password: str, reason: str) -> None:
    assert reason in str(why_weak(password, "lovelace@local"))
    with pytest.raises(PasswordTooWeak) as refusal:
        check_new_password(password, "lovelace@local")
    assert password not in str(refusal.value)


@pytest.mark.parametrize("password", [GOOD, "ünïcödé wörds yes", "한국어비밀번호입니다충분히길게", "a1b2c3d4e5f6g7"])
def test_a_long_password_of_any_characters_will_do(password: str) -> None:
    assert why_weak(password, "ada@local") is None


def test_a_short_user_name_may_occur_in_the_password() -> None:
    assert why_weak("armada of lanterns", "ada@local") is None


def test_right_and_wrong() -> None:
    async def story(passwords: Passwords) -> None:
        stored = await passwords.hash(GOOD)
        assert GOOD not in stored
        assert await passwords.check(stored, GOOD) == PasswordCheck(is_right=True)
        assert await passwords.check(stored, GOOD + "x") == PasswordCheck(is_right=False)
        assert await passwords.check(stored, "") == PasswordCheck(is_right=False)
        assert await passwords.check("no hash at all", GOOD) == PasswordCheck(is_right=False)

    run(story)


def test_the_same_password_is_stored_differently_each_time() -> None:
    assert hash_password(GOOD) != hash_password(GOOD)


def test_the_same_characters_composed_otherwise_are_the_same_password() -> None:
    async def story(passwords: Passwords) -> None:
        assert (await passwords.check(hash_password("caf\u00e9 au lait s'il"), "cafe\u0301 au lait s'il")).is_right

    run(story)


def test_a_hash_of_less_effort_is_replaced_when_the_password_was_right_and_only_then() -> None:
    async def story(passwords: Passwords) -> None:
        old = CHEAP.hash(GOOD)
        assert (await passwords.check(old, "wrong" + GOOD)).new_hash is None
        new = (await passwords.check(old, GOOD)).new_hash
        assert new is not None
        assert await passwords.check(new, GOOD) == PasswordCheck(is_right=True)

    run(story)


def test_an_unknown_account_is_wrong_and_costs_as_much_as_a_known_one() -> None:
    async def story(passwords: Passwords) -> None:
        assert await passwords.check(None, GOOD) == PasswordCheck(is_right=False)

    run(story)
    assert extract_parameters(module._NOBODYS) == extract_parameters(hash_password(GOOD))


def test_a_book_for_a_password_is_refused_without_being_hashed_whole() -> None:
    async def story(passwords: Passwords) -> None:
        assert not (await passwords.check(hash_password("a" * 1025), "a" * 1_000_000)).is_right

    run(story)
