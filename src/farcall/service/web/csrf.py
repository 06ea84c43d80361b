"""Tokens that prove that a form was shown to the browser that sends it. Decides only."""

from __future__ import annotations

import hashlib
import hmac
import secrets

__all__ = ["csrf_token", "is_csrf_token", "keyed_hash", "new_cookie"]


def new_cookie() -> str:
    """A random value that nobody can guess."""
    return secrets.token_urlsafe(32)


def csrf_token(secret: bytes, browser: str) -> str:
    """What a form must carry; `browser`: the value of the cookie that tells browsers apart."""
    return keyed_hash(secret, "csrf", browser)


def is_csrf_token(secret: bytes, browser: str | None, token: str) -> bool:
    """Compare in constant time. A browser without the cookie has no token."""
    return bool(browser) and hmac.compare_digest(
        csrf_token(secret, browser or "").encode(), token.encode(errors="replace")
    )


def keyed_hash(secret: bytes, *texts: str) -> str:
    """Hexadecimal; of these texts in this order, for whoever knows the secret."""
    return hmac.new(secret, "\0".join(texts).encode(errors="replace"), hashlib.sha256).hexdigest()
