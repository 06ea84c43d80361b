"""What a login to the console carries through the browser, and how it is told from a forged one. Decides only.

Nothing is remembered of a login that has begun: what has to come back is in the `state` parameter, signed for the
browser that it was given to, and the secret half of PKCE is computed from both. Nobody fills the memory by beginning.

Source: RFC 6749, section 10.12; RFC 7636; RFC 9700, section 4.7.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from farcall.wire.auth import COMPUTE_SCOPE, CONSOLE_CALLBACK_PATH, CONSOLE_CLIENT_ID, MANAGE_PROJECTS_SCOPE

__all__ = ["Returned", "authorization_path", "id_claims", "passed_on", "returned", "safe_next"]

_LIFETIME_S: Final = 3600.0
"""For the login page, a second factor, and an identity provider."""
_SCOPES: Final = f"{COMPUTE_SCOPE} openid profile email {MANAGE_PROJECTS_SCOPE}"
_DEMANDS: Final = (
    "session_message",
    "session_required_identities",
    "session_required_single_domain",
    "session_required_policies",
    "session_required_mfa",
    "prompt",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """A login that came back to the browser that began it.

    Attributes:
        next: the page that was wanted.
        verifier: for the token request.
    """

    next: str
    verifier: str


def authorization_path(
    key: bytes, browser: str, *, base: str, next: str, demands: Mapping[str, str], now: float
) -> str:
    """Where to send a browser so that somebody logs in there.

    Args:
        key: of this process.
        browser: a secret that only this browser has, in a cookie.
        base: how it reached us, without a slash at the end.
        next: as `safe_next` lets through.
        demands: what the login has to satisfy, see `passed_on`.
        now: Unix seconds.
    """
    body = _encoded(json.dumps([secrets.token_urlsafe(16), now, next]).encode())
    challenge = _encoded(hashlib.sha256(_verifier(key, browser, body).encode()).digest())
    query = {
        "client_id": CONSOLE_CLIENT_ID,
        "redirect_uri": base + CONSOLE_CALLBACK_PATH,
        "response_type": "code",
        "scope": _SCOPES,
        "state": f"{body}.{_mac(key, 'state', browser, body)}",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **demands,
    }
    return f"/v2/oauth2/authorize?{urlencode(query)}"


def returned(key: bytes, browser: str | None, state: str, now: float) -> Returned | None:
    """What `authorization_path` put into `state`; None if another browser began, or nobody, or too long ago."""
    body, _, mac = state.rpartition(".")
    if not browser or not hmac.compare_digest(_mac(key, "state", browser, body).encode(), mac.encode(errors="replace")):
        return None
    _, at, next = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    if not 0 <= now - at < _LIFETIME_S:
        return None
    return Returned(next=next, verifier=_verifier(key, browser, body))


def passed_on(query: Mapping[str, str]) -> dict[str, str]:
    """Those parameters of a request that say what a login has to satisfy."""
    return {name: query[name][:2000] for name in _DEMANDS if query.get(name)}


def safe_next(text: str | None, default: str = "/compute") -> str:
    """Where a login may lead: a path of this service, so that nobody is sent away by a link that they were given."""
    if not text or not text.startswith("/") or text.startswith(("//", "/\\")) or len(text) > 2000:
        return default
    if any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in text):
        return default
    return text


def id_claims(id_token: str) -> Mapping[str, Any]:
    """What an id_token says. Not verified: for one that came from its issuer directly.

    Source: OpenID Connect Core, section 3.1.3.7, point 6.
    """
    body = id_token.split(".")[1]
    claims: Mapping[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def _verifier(key: bytes, browser: str, body: str) -> str:
    return _mac(key, "verifier", browser, body)


def _mac(key: bytes, *texts: str) -> str:
    return _encoded(hmac.new(key, "\0".join(texts).encode(errors="replace"), hashlib.sha256).digest())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
