"""Refuses request bodies that are too large: by the announced length before the first byte is read, else while
reading. So nobody can make the service hold more than the limit.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farcall.service.web.bodies import json_response
from farcall.wire.errors import InvalidRequest, PayloadTooLarge

__all__ = ["BodyLimit"]


class BodyLimit:
    """ASGI middleware.

    Args:
        limit_bytes: of one request's body.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if announced is None:
            await self._app(scope, _counted(receive, self._too_large, self._limit_bytes), send)
        elif not announced.isdigit():
            await _refuse(InvalidRequest("The header Content-Length is no number."), scope, receive, send)
        elif int(announced) > self._limit_bytes:
            # Unread bytes of the body would be taken for the next request, so this connection ends here.
            await _refuse(self._too_large(int(announced)), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _too_large(self, size_bytes: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The request body has {size_bytes} bytes or more, and the service reads at most {self._limit_bytes}. "
            "Send fewer tasks at once, or pass large data by reference (a path, a URL)."
        )


async def _refuse(error: InvalidRequest | PayloadTooLarge, scope: Scope, receive: Receive, send: Send) -> None:
    response = json_response(error.to_document(), error.http_status, {"connection": "close"})
    await response(scope, receive, send)


def _counted(receive: Receive, too_large: Callable[[int], PayloadTooLarge], limit_bytes: int) -> Receive:
    size_bytes = 0

    async def counted() -> Message:
        nonlocal size_bytes
        message = await receive()
        size_bytes += len(message.get("body", b""))
        if size_bytes > limit_bytes:
            raise too_large(size_bytes)
        return message

    return counted
