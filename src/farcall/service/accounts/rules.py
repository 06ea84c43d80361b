"""What a token must look like and when it counts; what a broker login's password is. Decides only.

Broker passwords are not stored: each is a keyed hash of the user name, which contains the generation that grows
when the login is revoked. So a login costs no row, and every process that knows the secret can check it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from farcall.wire.topology import BrokerUser

__all__ = [
    "Identity",
    "TokenRow",
    "bearer_token",
    "broker_password",
    "connection_url",
    "is_broker_password",
    "is_token_valid",
    "new_token",
    "token_hash",
]

TOKEN_PREFIX: Final = "fc_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Somebody who may ask."""

    id: str
    username: str
    is_admin: bool
    credential_generation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """What is known of a token; its text is not."""

    created_at: float
    expires_at: float | None
    revoked_at: float | None


def new_token() -> str:
    """A new opaque bearer token: `fc_` and 43 URL-safe characters (32 random bytes)."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token. It is random, so a plain hash cannot be turned round by guessing."""
    return hashlib.sha256(token.encode()).hexdigest()


def bearer_token(authorization: str | None) -> str | None:
    """The token of an `Authorization` header; None if there is none of this kind."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def is_token_valid(token: TokenRow, *, now: float) -> bool:
    """Whether the token counts at `now` (Unix seconds)."""
    return token.revoked_at is None and (token.expires_at is None or now < token.expires_at)


def broker_password(secret: bytes, user: BrokerUser) -> str:
    """The password of a broker login."""
    return hmac.new(secret, user.name.encode(), hashlib.sha256).hexdigest()


def is_broker_password(secret: bytes, user: BrokerUser, password: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(broker_password(secret, user).encode(), password.encode(errors="replace"))


def connection_url(
    secret: bytes,
    user: BrokerUser,
    *,
    host: str,
    port: int,
    heartbeat_s: int,
    scheme: str = "amqp",
    vhost: str = "/",
) -> str:
    """The URL that a client connects to the broker with. Nothing in it needs quoting but the vhost."""
    where = f"{f'[{host}]' if ':' in host else host}:{port}/{quote(vhost, safe='')}"
    return f"{scheme}://{user.name}:{broker_password(secret, user)}@{where}?heartbeat={heartbeat_s}"
