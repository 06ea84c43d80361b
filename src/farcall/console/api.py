"""The REST interface as one viewer may use it: their own token, in this process, no socket between.

What a page shows, a script can get by the same request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import httpx
from starlette.types import ASGIApp

from farcall.wire.errors import ServiceUnavailable, error_from_document

__all__ = ["Api"]

_PATIENCE_S: Final = 30.0


class Api:
    """Asks the interface.

    Args:
        app: the interface.
        base: how the viewer reached the service, `https://host:port`: some answers name it.
        address: where the viewer is; limits and records go by it.
        token: the viewer's; "" asks as nobody.
    """

    def __init__(self, app: ASGIApp, *, base: str, address: str, token: str = "") -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 0)),
            base_url=base,
            trust_env=False,
        )
        self._token = token

    def with_token(self, token: str) -> None:
        """Ask with this one from now on."""
        self._token = token

    async def get(self, path: str, **query: Any) -> Any:
        """The decoded answer to GET. Parameters that are None or "" are left out; True is `true`.

        Raises:
            ApiError: the interface refused.
        """
        return await self.request("GET", path, query=query)

    async def post(self, path: str, document: Any = None, **query: Any) -> Any:
        """Likewise POST."""
        return await self.request("POST", path, query=query, document={} if document is None else document)

    async def put(self, path: str, document: Any) -> Any:
        """Likewise PUT."""
        return await self.request("PUT", path, document=document)

    async def delete(self, path: str) -> Any:
        """Likewise DELETE."""
        return await self.request("DELETE", path)

    async def text(self, path: str, **query: Any) -> str:
        """The answer to GET as it is (CSV). Raises ApiError."""
        answer = await self._ask("GET", path, query, None, None)
        return answer.text

    async def form(self, path: str, fields: Mapping[str, str]) -> Any:
        """The decoded answer to a form (POST), asked as nobody: the login's own. Raises ApiError."""
        return _decoded(await self._ask("POST", path, {}, None, fields))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        document: Any = None,
        patience_s: float = _PATIENCE_S,
    ) -> Any:
        """Any request. Raises ApiError."""
        return _decoded(await self._ask(method, path, query or {}, document, None, patience_s))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        document: Any,
        fields: Mapping[str, str] | None,
        patience_s: float = _PATIENCE_S,
    ) -> httpx.Response:
        asking = self._client.request(
            method,
            path,
            params={name: _text(value) for name, value in query.items() if value not in (None, "")},
            headers={"authorization": f"Bearer {self._token}"} if self._token and fields is None else {},
            content=None if document is None else json.dumps(document).encode(),
            data=fields,
            timeout=None,
        )
        try:
            answer = await asyncio.wait_for(asking, patience_s)
        except (asyncio.TimeoutError, httpx.HTTPError) as exc:
            raise ServiceUnavailable(f"The service has not answered {method} {path}. Reload in a moment.") from exc
        if answer.status_code >= 400:
            raise error_from_document(answer.status_code, _decoded(answer), answer.reason_phrase)
        return answer


def _decoded(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
