"""From a request's bearer token to the identity behind it, remembered for a minute.

The memory is bounded, and `forget` drops a token at once when it is revoked in this process.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from farcall.service.accounts.rules import Identity, TokenRow, bearer_token, is_token_valid, token_hash
from farcall.service.accounts.store import find_token, mark_used
from farcall.service.db.engine import Database
from farcall.wire.errors import Unauthenticated

__all__ = ["Authenticator"]

_REMEMBERED = 1024


class Authenticator:
    """Identifies callers.

    Args:
        clock: Unix seconds.
        cache_s: how long an answer may be remembered.
    """

    def __init__(self, db: Database, clock: Callable[[], float], *, cache_s: float) -> None:
        self._db = db
        self._clock = clock
        self._cache_s = cache_s
        self._known: dict[str, tuple[Identity, float]] = {}

    async def identify(self, request: Request) -> Identity:
        """The caller.

        Raises:
            Unauthenticated: no bearer token, or one that is unknown, expired or revoked.
        """
        token = bearer_token(request.headers.get("authorization"))
        if token is None:
            raise Unauthenticated(
                "This needs a token: send it as `Authorization: Bearer …`. `farcall login URL` stores one."
            )
        key = token_hash(token)
        now = self._clock()
        known = self._known.get(key)
        if known is not None and now < known[1]:
            return known[0]
        found = await self._db.read(find_token, key)
        if found is None or not is_token_valid(found[1], now=now):
            self._known.pop(key, None)
            state = "is not known to this service" if found is None else _state_of(found[1])
            raise Unauthenticated(f"The token {state}. Log in again with `farcall login URL`.")
        identity, row = found
        if row.is_fresh:
            await self._db.write(mark_used, key, now)
        until = now + self._cache_s if row.expires_at is None else min(now + self._cache_s, row.expires_at)
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[key] = (identity, until)
        return identity

    def forget(self, token_hash: str | None = None) -> None:
        """Drop what is remembered of one token, or of all."""
        if token_hash is None:
            self._known.clear()
        else:
            self._known.pop(token_hash, None)


def _state_of(row: TokenRow) -> str:
    return "belongs to an account that is disabled" if row.is_disabled else "has expired or was revoked"
