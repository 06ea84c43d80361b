"""Small documents that a browser keeps for us between two requests, and cannot change: signed, for one purpose, for a
short time. Not encrypted: what is in them, their keeper may know.

A login at a provider, and one that lacks its second factor, are kept so; no row is written for somebody who may never
come back, and any process of the service can go on with what another began.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["seal", "unseal"]

_LONGEST: Final = 4000
"""Characters; browsers drop larger cookies."""


def seal(secret: bytes, purpose: str, document: Mapping[str, Any], *, expires_at: float) -> str:
    """`document` as text that fits into a cookie.

    Args:
        purpose: what was sealed for one is worth nothing for another.
        expires_at: Unix seconds.

    Raises:
        ValueError: it is too long for a cookie.
    """
    body = json.dumps([expires_at, document], separators=(",", ":")).encode()
    text = f"{_encoded(body)}.{_encoded(_signature(secret, purpose, body))}"
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters do not fit into a cookie")
    return text


def unseal(secret: bytes, purpose: str, text: str | None, *, now: float) -> dict[str, Any] | None:
    """The document; None if there is none, or it is not ours, for another purpose, or too old."""
    if text is None or len(text) > _LONGEST:
        return None
    body, signature = (_decoded(part) for part in (text.partition(".")[0], text.partition(".")[2]))
    if body is None or signature is None or not hmac.compare_digest(_signature(secret, purpose, body), signature):
        return None
    expires_at, document = json.loads(body)
    return document if isinstance(document, dict) and now < expires_at else None


def _signature(secret: bytes, purpose: str, body: bytes) -> bytes:
    key = hmac.new(secret, b"sealed:" + purpose.encode(), hashlib.sha256).digest()
    return hmac.new(key, body, hashlib.sha256).digest()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
