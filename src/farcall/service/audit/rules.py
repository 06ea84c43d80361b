"""What an entry of the audit table says. No SQL here; `store` writes and reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from farcall.service.accounts.rules import Identity

__all__ = ["NOBODY", "SERVICE", "Actor", "Entry", "Outcome", "actor_of", "operator"]

Outcome = Literal["done", "refused"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Who does something.

    Attributes:
        id: of an identity; None for a command on the service's machine, and for somebody unknown.
        name: as it is now; entries keep it.
        address: where the request came from.
    """

    id: str | None
    name: str
    address: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that somebody did, or was refused.

    Attributes:
        seq: grows; 0 before it is stored.
        at: Unix seconds.
        action: `kind.verb`, for example `user.disable` or `login.password`; stable, to search by.
        object_kind: `user`, `client`, `group`, `endpoint`, …
        detail: whatever else is worth knowing; no secrets, no tokens, no payloads.
    """

    seq: int = 0
    at: float
    actor_id: str | None
    actor_name: str
    action: str
    object_kind: str | None
    object_id: str | None
    address: str | None
    outcome: Outcome
    detail: Mapping[str, Any] = field(default_factory=dict)


NOBODY = Actor(id=None, name="(unknown)")
SERVICE = Actor(id=None, name="(service)")
"""What happens by itself, when its time has come."""


def operator(account: str) -> Actor:
    """A command on the service's machine. `account`: the operating system's name for who gave it."""
    return Actor(id=None, name=f"operator:{account}")


def actor_of(identity: Identity, address: str | None = None) -> Actor:
    """Somebody who asked with a token or is logged in."""
    return Actor(id=identity.id, name=identity.username, address=address)
