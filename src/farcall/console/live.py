"""What changes while a page is open: one question to the interface at a time per viewer and endpoint, however many
pages show it. The interface answers when something has changed; nobody asks by the clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from farcall.console.api import Api
from farcall.wire.errors import ApiError, RateLimited, ServiceUnavailable

__all__ = ["Live"]

_logger = logging.getLogger(__name__)
_WAIT_S: Final = 25
_PAUSE_S: Final = 5.0

Hear = Callable[[Mapping[str, Any]], None]
Fail = Callable[[ApiError], None]


class Live:
    """The watchers of one viewer.

    Args:
        api: with the viewer's token.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._watches: dict[str, _Watch] = {}

    def watch(self, endpoint_id: str, hear: Hear, fail: Fail | None = None) -> Callable[[], None]:
        """Be told what there is to know of an endpoint, now and whenever it changes.

        Args:
            hear: is given the document of `GET /v3/endpoints/{id}/live`, on the event loop.
            fail: is told when there is nothing more to hear (the endpoint is gone, the login is over).

        Returns:
            Ends it. The question itself ends with the last who listens.
        """
        watch = self._watches.get(endpoint_id)
        if watch is None:
            watch = self._watches[endpoint_id] = _Watch()
            watch.task = asyncio.get_running_loop().create_task(self._run(endpoint_id, watch))
        listener = (hear, fail)
        watch.listeners.append(listener)
        if watch.newest is not None:
            hear(watch.newest)

        def stop() -> None:
            if listener in watch.listeners:
                watch.listeners.remove(listener)
            if not watch.listeners and self._watches.get(endpoint_id) is watch:
                del self._watches[endpoint_id]
                assert watch.task is not None
                watch.task.cancel()

        return stop

    def close(self) -> None:
        """Nobody is told anything more."""
        for watch in self._watches.values():
            assert watch.task is not None
            watch.task.cancel()
        self._watches.clear()

    def __len__(self) -> int:
        return len(self._watches)

    async def _run(self, endpoint_id: str, watch: _Watch) -> None:
        version: Any = None
        while True:
            try:
                document = await self._api.request(
                    "GET",
                    f"/v3/endpoints/{endpoint_id}/live",
                    query={} if version is None else {"after": version, "wait_s": _WAIT_S},
                    patience_s=_WAIT_S * 2,
                )
            except (ServiceUnavailable, RateLimited):
                await asyncio.sleep(_PAUSE_S)  # it is overloaded, or stopping
                continue
            except ApiError as exc:
                self._watches.pop(endpoint_id, None)
                watch.tell_failure(exc)
                return
            is_news = document.get("version") != version
            version = document.get("version")
            if is_news:
                watch.tell(document)
            else:
                await asyncio.sleep(0)  # an interface that answers at once keeps nobody else from working


class _Watch:
    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.listeners: list[tuple[Hear, Fail | None]] = []
        self.newest: Mapping[str, Any] | None = None

    def tell(self, document: Mapping[str, Any]) -> None:
        self.newest = document
        for hear, _ in list(self.listeners):
            try:
                hear(document)
            except Exception:
                _logger.exception("A page could not show what it was told", extra={"event": "console.page_fault"})

    def tell_failure(self, error: ApiError) -> None:
        for _, fail in list(self.listeners):
            if fail is not None:
                fail(error)
