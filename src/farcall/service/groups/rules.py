"""What a group is, and what it may be called. Decides only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from farcall.wire.errors import InvalidRequest

__all__ = ["Group", "Member", "Role", "group_name"]

Role = Literal["member", "manager"]

_NAME: Final = re.compile(r"[^\W_](?:[\w .@/+-]{0,126}[\w.+])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Somebody in a group."""

    identity_id: str
    username: str
    role: Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Some people.

    Attributes:
        members: by name.
        created_at: Unix seconds.
    """

    id: str
    name: str
    description: str | None
    created_at: float
    members: Sequence[Member] = ()


def group_name(text: str) -> str:
    """The name as it is stored. Raises InvalidRequest."""
    name = " ".join(text.split())
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{text[:80]!r} cannot be the name of a group. Use letters, digits, spaces and . _ @ / + - (at most 128), "
            "with a letter or digit at the beginning."
        )
    return name
