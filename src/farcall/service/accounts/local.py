"""The login of the person who runs the service: an identity with administrator's rights, and a token."""

from __future__ import annotations

from dataclasses import dataclass

from farcall.service.accounts.rules import Identity
from farcall.service.accounts.store import log_in
from farcall.service.context import Service

__all__ = ["LocalLogin", "local_login"]


@dataclass(frozen=True, kw_only=True)
class LocalLogin:
    """Somebody with a token that counts.

    Attributes:
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
    identity, good = await service.db.write(log_in, username, token, is_admin, service.clock())
    return LocalLogin(identity=identity, token=good)
