"""The key that id_tokens are signed with: RSA, made once, kept in the store, read when it is first needed.

What reads and signs is imported only then: a service that nobody logs in to does without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from farcall.service.db.engine import Database
from farcall.service.oauth.store import ensure_signing_key, find_signing_key

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

__all__ = ["SigningKeys", "SigningKey"]

_BITS: Final = 2048
_ALGORITHM: Final = "RS256"


class SigningKey:
    """One key.

    Args:
        pem: private, PKCS 8.
    """

    def __init__(self, pem: str) -> None:
        from joserfc.jwk import RSAKey

        self._key: RSAKey = RSAKey.import_key(pem, {"use": "sig", "alg": _ALGORITHM})
        self._id = self._key.thumbprint()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT, RS256."""
        from joserfc import jwt

        return jwt.encode({"alg": _ALGORITHM, "kid": self._id, "typ": "JWT"}, dict(claims), self._key)

    def public_document(self) -> dict[str, Any]:
        """The public half, as an item of a JSON Web Key Set."""
        return {**self._key.as_dict(private=False), "kid": self._id}


class SigningKeys:
    """The service's key. One of these per process; every process has the same key."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = asyncio.Lock()
        self._key: SigningKey | None = None

    async def key(self) -> SigningKey:
        """The key; made now if no process of this service has needed it before."""
        async with self._lock:
            if self._key is None:
                pem = await self._db.read(find_signing_key)
                if pem is None:
                    made = await asyncio.get_running_loop().run_in_executor(None, _new_pem)
                    pem = await self._db.write(ensure_signing_key, made)
                self._key = SigningKey(pem)
            return self._key


def _new_pem() -> str:
    from joserfc.jwk import RSAKey

    return str(RSAKey.generate_key(_BITS).as_pem(private=True), "ascii")
