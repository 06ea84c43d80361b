"""What an OAuth 2 client is, where it may be answered, and what its secret looks like. Decides only."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from farcall.service.ids import canonical_uuid
from farcall.wire.auth import CONSOLE_CALLBACK_PATH, CONSOLE_CLIENT_ID, NATIVE_CLIENTS, OFFICIAL_CLIENT_ID
from farcall.wire.errors import InvalidRequest

__all__ = [
    "Client",
    "built_in_client",
    "canonical_client_id",
    "check_redirect_uri",
    "is_redirect_allowed",
    "is_secret",
    "new_secret",
    "rotates_refresh_tokens",
    "secret_hash",
]

_AUTH_CODE_PATH: Final = "/v2/web/auth-code"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A program.

    Attributes:
        id: for one with a secret also the id of its identity.
        is_confidential: it has a secret, and can log in by itself.
        redirect_uris: where people may be sent back to.
        secret_hash: None without a secret.
        owner_id: the identity that answers for it; None: whoever runs the service.
        created_at, revoked_at: Unix seconds.
    """

    id: str
    name: str
    is_confidential: bool
    redirect_uris: tuple[str, ...] = ()
    secret_hash: str | None = None
    owner_id: str | None = None
    created_at: float = 0.0
    revoked_at: float | None = None

    @property
    def client_id(self) -> str:
        """What OAuth 2 calls the id."""
        return self.id

    @property
    def is_built_in(self) -> bool:
        return self.id in NATIVE_CLIENTS

    @property
    def is_first_party(self) -> bool:
        """Part of the service itself: people are not asked whether to let it in, and log in and out with it."""
        return self.id == CONSOLE_CLIENT_ID


def built_in_client(client_id: str) -> Client | None:
    """A client that needs no registration."""
    name = NATIVE_CLIENTS.get(client_id)
    return None if name is None else Client(id=client_id, name=name, is_confidential=False)


def canonical_client_id(text: str) -> str | None:
    """The id as it is stored; None if it can be none."""
    try:
        return canonical_uuid(text, "client id")
    except InvalidRequest:
        return None


def new_secret() -> str:
    """A new client secret: `fcs_` and 43 URL-safe characters (32 random bytes)."""
    return "fcs_" + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """What is stored of a client secret. It is random, so a plain hash cannot be turned round by guessing."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def is_secret(client: Client | None, secret: str) -> bool:
    """Whether this is the secret of a client that counts; takes as long if there is no such client."""
    stored = client.secret_hash if client is not None and client.secret_hash else "0" * 64
    is_right = hmac.compare_digest(stored, secret_hash(secret))
    return is_right and client is not None and client.secret_hash is not None and client.revoked_at is None


def check_redirect_uri(uri: str) -> None:
    """Raises InvalidRequest unless people may be sent to `uri` with a code: https, or http on their own machine."""
    parts = _split(uri)
    if parts is None:
        raise InvalidRequest(f"{uri[:200]!r} is no address that people can be sent back to.")
    scheme, host, _ = parts
    if scheme != "https" and not (scheme == "http" and host in _LOOPBACK):
        raise InvalidRequest(
            f"{uri[:200]!r} would carry codes in clear text: use https, or http on 127.0.0.1, [::1] or localhost."
        )


def is_redirect_allowed(client: Client, uri: str, own_host: str) -> bool:
    """Whether people may be sent to `uri` with a code for `client`.

    Registered addresses must match exactly, except for the port on the person's own machine, which programs choose
    anew each time. Built-in clients may use any address there, and the page of this service that shows the code; the
    console, which nobody is asked about, its own page at this very host alone.

    Args:
        own_host: host and port by which the person's request reached this service.

    Source: RFC 8252, section 7.3; RFC 9700, section 2.1.
    """
    parts = _split(uri)
    if parts is None:
        return False
    scheme, host, path = parts
    if client.is_first_party:
        return urlsplit(uri).netloc.lower() == own_host.lower() and path == CONSOLE_CALLBACK_PATH
    is_loopback = scheme == "http" and host in _LOOPBACK
    if client.is_built_in:
        is_own_page = urlsplit(uri).netloc.lower() == own_host.lower() and path == _AUTH_CODE_PATH
        return is_loopback or (is_own_page and not urlsplit(uri).query)
    if uri in client.redirect_uris:
        return True
    return is_loopback and any(_split(each) == parts for each in client.redirect_uris)


def rotates_refresh_tokens(client_id: str) -> bool:
    """Whether a refresh token of this client counts once.

    The official SDK keeps one in the memory of each process that uses the same token storage, so that for it a second
    use is no sign of theft; its refresh tokens stay the same.
    """
    return client_id != OFFICIAL_CLIENT_ID


def _split(uri: str) -> tuple[str, str, str] | None:
    """Scheme, host without port, path with query; None if people cannot be sent there."""
    if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in uri):
        return None
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "#" in uri:
        return None
    return parts.scheme, parts.hostname, parts.path + (f"?{parts.query}" if parts.query else "")
