"""Links that log a browser in once: for whoever runs the service on their own machine and has no password there.

Kept in memory, by hash; a link counts once, for a short time, and for this machine only (`once` sees to that). Decides
only. A service of several processes makes none: the one that is asked may not be the one that knows.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Final

__all__ = ["LINK_LIFETIME_S", "LoginLinks"]

LINK_LIFETIME_S: Final = 900.0
_MOST: Final = 20


class LoginLinks:
    """The links that wait.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[str, tuple[str, float]] = {}

    def make(self, identity_id: str) -> str:
        """A code for somebody. The oldest goes if too many wait."""
        code = secrets.token_urlsafe(32)
        while len(self._waiting) >= _MOST:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[_hash(code)] = (identity_id, self._clock() + LINK_LIFETIME_S)
        return code

    def take(self, code: str) -> str | None:
        """Whose the code is; it counts no more. None if it never did, or does no longer."""
        found = self._waiting.pop(_hash(code), None)
        return found[0] if found is not None and self._clock() < found[1] else None


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode(errors="replace")).hexdigest()
