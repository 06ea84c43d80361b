"""What changes while a page is open: one question to the interface at a time per viewer and thing, however many pages
show it. Of an endpoint the interface answers when something has changed; nobody asks by the clock. A list is read again
every few seconds, once for all pages of a viewer that show the same one: it costs less than waiting for each of its
endpoints.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from farcall.console.api import Api
from farcall.wire.errors import ApiError, RateLimited, ServiceUnavailable

__all__ = ["Live"]

_logger = logging.getLogger(__name__)
_WAIT_S: Final = 25
_PAUSE_S: Final = 5.0
_LIST_PAUSE_S: Final = 10.0
"""Between two readings of a list that is shown."""

Hear = Callable[[Mapping[str, Any]], None]
Fail = Callable[[ApiError], None]
News = Callable[["_Watch"], AsyncIterator[Mapping[str, Any]]]


class Live:
    """The watchers of one viewer.

    Args:
        api: with the viewer's token.
        list_pause_s: between two readings of a list.
    """

    def __init__(self, api: Api, *, list_pause_s: float = _LIST_PAUSE_S) -> None:
        self._api = api
        self._list_pause_s = list_pause_s
        self._watches: dict[str, _Watch] = {}

    def watch(self, endpoint_id: str, hear: Hear, fail: Fail | None = None) -> Callable[[], None]:
        """Be told what there is to know of an endpoint, now and whenever it changes.

        Args:
            hear: is given the document of `GET /v3/endpoints/{id}/live`, on the event loop.
            fail: is told when there is nothing more to hear (the endpoint is gone, the login is over).

        Returns:
            Ends it. The question itself ends with the last who listens.
        """
        return self._listen(endpoint_id, lambda watch: self._of_endpoint(watch, endpoint_id), hear, fail)

    def watch_list(self, query: Mapping[str, Any], hear: Hear, fail: Fail | None = None) -> Callable[[], None]:
        """Likewise of a list of endpoints, some seconds after it changes: `GET /v3/endpoints` with these parameters."""
        asked = {name: value for name, value in query.items() if value is not None}
        key = json.dumps(asked, sort_keys=True)
        return self._listen(key, lambda watch: self._of_list(watch, asked), hear, fail)

    def close(self) -> Sequence[asyncio.Task[None]]:
        """Nobody is told anything more. Returns what is still ending."""
        ending = [watch.end() for watch in self._watches.values()]
        self._watches.clear()
        return ending

    def __len__(self) -> int:
        return len(self._watches)

    def _listen(self, key: str, news: News, hear: Hear, fail: Fail | None) -> Callable[[], None]:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch()
            watch.task = asyncio.get_running_loop().create_task(self._run(key, watch, news))
        listener = (hear, fail)
        watch.listeners.append(listener)
        if watch.newest is not None:
            hear(watch.newest)

        def stop() -> None:
            if listener in watch.listeners:
                watch.listeners.remove(listener)
            if not watch.listeners and self._watches.get(key) is watch:
                del self._watches[key]
                watch.end()

        return stop

    async def _run(self, key: str, watch: _Watch, news: News) -> None:
        try:
            async for document in news(watch):
                watch.tell(document)
        except ApiError as exc:
            self._watches.pop(key, None)
            watch.tell_failure(exc)

    async def _of_endpoint(self, watch: _Watch, endpoint_id: str) -> AsyncIterator[Mapping[str, Any]]:
        path = f"/v3/endpoints/{endpoint_id}/live"
        version: Any = None
        while not watch.is_over:
            query = {} if version is None else {"after": version, "wait_s": _WAIT_S}
            try:
                document = await self._api.request("GET", path, query=query, patience_s=_WAIT_S * 2)
            except (ServiceUnavailable, RateLimited):
                await asyncio.sleep(_PAUSE_S)  # it is overloaded, or stopping
                continue
            is_news = document.get("version") != version
            version = document.get("version")
            if is_news:
                yield document
            else:
                await asyncio.sleep(0)  # an interface that answers at once keeps nobody else from working

    async def _of_list(self, watch: _Watch, query: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        known: Any = None
        while not watch.is_over:
            await asyncio.sleep(self._list_pause_s)  # who listens has just read it
            try:
                document = await self._api.get("/v3/endpoints", **query)
            except (ServiceUnavailable, RateLimited):
                continue
            if document != known:
                known = document
                yield document


class _Watch:
    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.listeners: list[tuple[Hear, Fail | None]] = []
        self.newest: Mapping[str, Any] | None = None
        self.is_over = False

    def end(self) -> asyncio.Task[None]:
        """Ask no more. Returns what is still ending."""
        assert self.task is not None
        self.is_over = True  # an answer that comes at the same moment swallows the cancellation (wait_for, before 3.12)
        self.task.cancel()
        return self.task

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
