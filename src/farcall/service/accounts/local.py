"""The login of the person who runs the service: an identity with administrator's rights, and a token."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from farcall.service.accounts.rules import Identity, is_token_valid, new_token, token_hash
from farcall.service.accounts.store import add_token, ensure_identity, find_token
from farcall.service.context import Service

__all__ = ["LocalLogin", "local_login"]


@dataclass(frozen=True, kw_only=True)
class LocalLogin:
    """Attributes:
    token: the one that was given, if it is still good, else a new one.
    """

    identity: Identity
    token: str


async def local_login(
    service: Service, username: str, token: str | None = None, *, is_admin: bool = True
) -> LocalLogin:
    """Make sure that `username` exists, and has a token that counts.

    Args:
        token: one that the user has already.
    """
    return await service.db.write(_log_in, username, token, is_admin, service.clock())


def _log_in(conn: Connection, username: str, token: str | None, is_admin: bool, now: float) -> LocalLogin:
    identity = ensure_identity(conn, username, is_admin=is_admin, now=now)
    if token is not None:
        found = find_token(conn, token_hash(token))
        if found is not None and found[0].id == identity.id and is_token_valid(found[1], now=now):
            return LocalLogin(identity=identity, token=token)
    token = new_token()
    add_token(conn, token_hash(token), identity.id, label="local login", now=now)
    return LocalLogin(identity=identity, token=token)
