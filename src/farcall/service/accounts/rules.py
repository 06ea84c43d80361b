"""Who may ask, what a token must look like and when it counts, what a broker login's password is. Decides only.

Broker passwords are not stored: each is a keyed hash of the user name, which contains the generation that grows
when the login is revoked. So a login costs no row, and every process that knows the secret can check it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from farcall.wire.errors import InvalidRequest
from farcall.wire.topology import BrokerUser, UserKind

__all__ = [
    "Authentication",
    "Cut",
    "Identity",
    "Kind",
    "TokenRow",
    "bearer_token",
    "broker_password",
    "client_username",
    "connection_url",
    "is_broker_password",
    "is_token_valid",
    "local_username",
    "new_token",
    "token_hash",
]

TOKEN_PREFIX: Final = "fc_"

Kind = Literal["user", "client"]

_LOCAL_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Authentication:
    """One identity proved that it is there.

    Attributes:
        at: Unix seconds.
        mfa: with a second factor.
        provider: who says so; None: this service itself.
    """

    identity_id: str
    username: str
    at: float
    mfa: bool
    provider: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Somebody who may ask, as one token shows them.

    Attributes:
        username: `name@domain`.
        person_id: the same for all identities of one person; the identity's own id unless others were linked.
        linked: ids of all identities of the person, this one among them.
        groups: ids of the groups that any of them is in.
        scopes: what the token opens; None: everything.
        authentications: what the token's login rests on; the last time of each identity, with and without a second
            factor. Empty for tokens that nobody logged in for (clients, the local login).
    """

    id: str
    username: str
    is_admin: bool
    credential_generation: int
    kind: Kind = "user"
    person_id: str = ""
    linked: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    authentications: tuple[Authentication, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "person_id", self.person_id or self.id)
        object.__setattr__(self, "linked", self.linked | {self.id})

    def has_scope(self, *scopes: str) -> bool:
        """Whether the token opens one of these."""
        return self.scopes is None or not self.scopes.isdisjoint(scopes)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """What is known of a token; its text is not.

    Attributes:
        is_disabled: its identity may not ask at present.
        is_fresh: it is one of a login's tokens, and was never used.
    """

    created_at: float
    expires_at: float | None
    revoked_at: float | None
    is_disabled: bool = False
    is_fresh: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Broker logins of this user, older than `generation`, are void."""

    kind: UserKind
    id: str
    generation: int


def local_username(name: str, domain: str) -> str:
    """The full user name of a local account.

    Args:
        name: with or without the domain, in any case.

    Raises:
        InvalidRequest: no name for a local account.
    """
    plain = name.strip().lower()
    if plain.endswith(f"@{domain.lower()}"):
        plain = plain[: -len(domain) - 1]
    if not _LOCAL_NAME.fullmatch(plain):
        raise InvalidRequest(
            f"{name[:80]!r} cannot be the name of a local account. Use letters, digits and . _ - (at most 64), with "
            f"@{domain} or nothing behind."
        )
    return f"{plain}@{domain}"


def client_username(client_id: str, domain: str) -> str:
    """The user name of a program that logs in with a secret of its own."""
    return f"{client_id}@clients.{domain}"


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
    return token.revoked_at is None and not token.is_disabled and (token.expires_at is None or now < token.expires_at)


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
