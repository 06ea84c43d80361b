"""How people can prove who they are, apart from a password of this service; and the steps that a password needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from farcall.service.context import Service
from farcall.service.login.rules import Step
from farcall.service.users.rules import LocalAccount

__all__ = ["Way", "next_step", "other_ways"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A button on the login page.

    Attributes:
        label: who vouches, in the operator's words.
        url: where the button leads; a path of this service.
    """

    label: str
    url: str


def other_ways(service: Service, next: str) -> Sequence[Way]:
    """What the login page offers above the password. `next`: where the login shall lead."""
    return ()


def next_step(account: LocalAccount, done: Collection[str]) -> Step | None:
    """What is still asked of somebody who knew the password; None: nothing."""
    if account.must_change and "new-password" not in done:
        return "new-password"
    return None
