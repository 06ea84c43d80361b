"""What is known of people, and who may be changed how. Decides only; hashing is `accounts.passwords`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from farcall.service.accounts.rules import Kind

__all__ = ["LocalAccount", "Person", "new_password"]

_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""None that look alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """An identity as the operator sees it.

    Attributes:
        provider: who vouches for it; None: this service.
        person_id: the same for linked identities.
        created_at, disabled_at: Unix seconds.
    """

    id: str
    username: str
    kind: Kind
    display_name: str | None
    email: str | None
    organization: str | None
    provider: str | None
    person_id: str
    is_admin: bool
    has_password: bool
    has_totp: bool
    created_at: float
    disabled_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalAccount:
    """What a password login needs to know.

    Attributes:
        must_change: the password was made by somebody else.
        totp_secret: of the second factor; counts if `totp_confirmed_at` is set.
        totp_last_step: codes of this step and before were used.
        recovery_codes_json: hashes of the codes that are left.
    """

    identity_id: str
    username: str
    person_id: str
    password_hash: str
    must_change: bool
    is_disabled: bool
    totp_secret: str | None = None
    totp_confirmed_at: float | None = None
    totp_last_step: int | None = None
    recovery_codes_json: str | None = None


def new_password() -> str:
    """A password for somebody to change at the first login: 20 letters and digits in groups (100 random bits)."""
    letters = [secrets.choice(_LETTERS) for _ in range(20)]
    return "-".join("".join(letters[at : at + 5]) for at in range(0, 20, 5))
