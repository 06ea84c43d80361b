"""Local passwords: which are good enough, and how they are stored and compared.

Argon2id with the library's defaults (64 MiB each), in threads of its own: two at a time, so that a crowd at the login
page takes neither all memory nor the threads that write tasks. Who asks how often is `throttle`'s business.
"""

from __future__ import annotations

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from farcall.wire.errors import InvalidRequest

__all__ = [
    "LONGEST_PASSWORD",
    "SHORTEST_PASSWORD",
    "PasswordCheck",
    "PasswordTooWeak",
    "Passwords",
    "check_new_password",
    "hash_password",
    "why_weak",
]

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 1024
"""Characters; more would only be work for us."""
_FEWEST_DIFFERENT: Final = 5
_COMMON: Final = frozenset(
    # What people type when twelve characters are asked for; names and repetitions are found by rule.
    {"123456789012", "1234567890123", "12345678901234", "123456789abc", "1q2w3e4r5t6y", "1qaz2wsx3edc", "abcdefghijkl"}
    | {"administrator", "changeme1234", "changemenow1", "correcthorsebatterystaple", "iloveyou1234", "letmein12345"}
    | {"password1234", "password12345", "password123456", "passwordpassword", "qwerty123456", "qwertyuiop12"}
    | {"qwertyuiop123", "qwertyuiopas", "qwertyuiopasdf", "qwertyuiopasdfghjkl", "thisisapassword", "welcome12345"}
)


class PasswordTooWeak(InvalidRequest):
    """The new password is refused; the message says why, and never the password."""

    code = "PASSWORD_TOO_WEAK"


@dataclass(frozen=True, kw_only=True, slots=True)
class PasswordCheck:
    """What came of comparing.

    Attributes:
        new_hash: to be stored in place of the old one, if that was made with less effort than is usual today.
    """

    is_right: bool
    new_hash: str | None = None


def why_weak(password: str, username: str) -> str | None:
    """Why `password` will not do for `username`, as the rest of a sentence; None if it will.

    Length decides, not the kinds of characters. Source: NIST SP 800-63B, section 5.1.1.2.
    """
    text = _normal(password)
    if len(text) < SHORTEST_PASSWORD:
        return f"must have {SHORTEST_PASSWORD} characters or more; a few unrelated words are good"
    if len(text) > LONGEST_PASSWORD:
        return f"may have {LONGEST_PASSWORD} characters at most"
    lower = text.casefold()
    name = username.casefold().partition("@")[0]
    if len(name) >= 4 and name in lower:
        return "must not contain the user name"
    if len(set(lower)) < _FEWEST_DIFFERENT or lower in _COMMON or lower.strip("0123456789!.?") in _COMMON:
        return "is among the first that somebody would try"
    return None


def check_new_password(password: str, username: str) -> None:
    """Raises PasswordTooWeak; see `why_weak`."""
    reason = why_weak(password, username)
    if reason is not None:
        raise PasswordTooWeak(f"The password {reason}.")


def hash_password(password: str) -> str:
    """What is stored. Takes some 50 ms of processor time and 64 MiB; for commands, which have no event loop."""
    return _HASHER.hash(_normal(password))


class Passwords:
    """Hashes and compares away from the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="password")

    async def hash(self, password: str) -> str:
        """What is stored of `password`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, password)

    async def check(self, stored: str | None, password: str) -> PasswordCheck:
        """Compare with what is stored.

        Args:
            stored: None if there is no such account: takes as long, and is wrong.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, _check, stored, password)

    def close(self) -> None:
        """Waits for nothing; what has not begun is not done."""
        self._threads.shutdown(wait=False, cancel_futures=True)


_HASHER: Final = PasswordHasher()
_NOBODYS: Final = (
    # Of a random text that was thrown away. Its parameters are the library's defaults; if they change, the time that
    # an unknown account takes would differ, so a test compares them.
    "$argon2id$v=19$m=65536,t=3,p=4$TlJ9Ei5YzQ1ku/R3PGYqSw$0000000000000000000000000000000000000000000"
)


def _check(stored: str | None, password: str) -> PasswordCheck:
    text = _normal(password[: LONGEST_PASSWORD + 1])
    try:
        _HASHER.verify(stored or _NOBODYS, text)
    except (VerificationError, InvalidHashError):
        return PasswordCheck(is_right=False)
    if stored is None or len(text) > LONGEST_PASSWORD:
        return PasswordCheck(is_right=False)
    is_old = _HASHER.check_needs_rehash(stored)
    return PasswordCheck(is_right=True, new_hash=_HASHER.hash(text) if is_old else None)


def _normal(password: str) -> str:
    """The same characters typed on another keyboard are the same password."""
    return unicodedata.normalize("NFKC", password)
