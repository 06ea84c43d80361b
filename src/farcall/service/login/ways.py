"""How people can prove who they are, apart from a password of this service; and the steps that a password needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

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


def other_ways(service: Service, next: str, *, again: bool = False) -> Sequence[Way]:
    """What the login page offers above the password.

    Args:
        next: where the login shall lead.
        again: the provider shall ask, though somebody may be logged in there.
    """
    query = urlencode({"next": next, **({"again": "1"} if again else {})})
    return [Way(label=each.shown_as, url=f"/login/oidc/{each.name}?{query}") for each in service.oidc.providers]


def next_step(account: LocalAccount, done: Collection[str]) -> Step | None:
    """What is still asked of somebody who knew the password; None: nothing."""
    if account.totp_secret is not None and account.totp_confirmed_at is not None and "totp" not in done:
        return "totp"  # first: a password that others know must not be enough to choose a new one
    if account.must_change and "new-password" not in done:
        return "new-password"
    return None
