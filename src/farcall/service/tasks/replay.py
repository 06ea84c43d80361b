"""Recognises a submission that is sent again because its answer got lost, from clients that send no key.

Two equal submissions whose answers were delivered are two submissions. But a client that went away before the
answer was sent will send the same again (official SDK: after a read timeout), and must get the same tasks. So an
answer that could not be delivered is remembered for a while; and while a submission is still being written and its
client has gone, an equal one waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from farcall.wire.rest import SubmitResponse

__all__ = ["Replay", "fingerprint"]

_REMEMBERED = 10_000

IsGone = Callable[[], Awaitable[bool]]
"""Whether the client of a request has gone away."""


def fingerprint(identity_id: str, endpoint_id: str, body: bytes) -> bytes:
    """What makes two requests equal."""
    digest = hashlib.sha256(f"{identity_id} {endpoint_id}\n".encode())
    digest.update(body)
    return digest.digest()


class Replay:
    """The answers that nobody received. Used on the event loop.

    Args:
        clock: Unix seconds.
        window_s: how long an answer is remembered.
    """

    def __init__(self, clock: Callable[[], float], window_s: float) -> None:
        self._clock = clock
        self._window_s = window_s
        self._lost: dict[bytes, tuple[SubmitResponse, float]] = {}
        self._running: dict[bytes, list[tuple[IsGone, asyncio.Future[SubmitResponse]]]] = {}

    async def answer_once(
        self, key: bytes, is_gone: IsGone, submit: Callable[[], Awaitable[SubmitResponse]]
    ) -> SubmitResponse:
        """The answer to a submission: that of an equal one whose client went away, or else `submit()`'s."""
        known = await self._find(key)
        if known is not None:
            return known
        future: asyncio.Future[SubmitResponse] = asyncio.get_running_loop().create_future()
        entry = (is_gone, future)
        self._running.setdefault(key, []).append(entry)
        try:
            response = await submit()
            if not future.done():
                future.set_result(response)
            if await is_gone():
                self._remember(key, response)
            return response
        finally:
            running = self._running[key]
            running.remove(entry)
            if not running:
                del self._running[key]
            if not future.done():
                future.cancel()  # refused: whoever waits submits for itself

    async def _find(self, key: bytes) -> SubmitResponse | None:
        lost = self._lost.get(key)
        if lost is not None:
            if self._clock() < lost[1]:
                return lost[0]
            del self._lost[key]
        for is_gone, future in list(self._running.get(key, ())):
            if await is_gone():
                await asyncio.wait([future])
                if not future.cancelled():
                    return future.result()
        return None

    def _remember(self, key: bytes, response: SubmitResponse) -> None:
        now = self._clock()
        if len(self._lost) >= _REMEMBERED:
            self._lost = {each: entry for each, entry in self._lost.items() if entry[1] > now}
        while len(self._lost) >= _REMEMBERED:
            del self._lost[next(iter(self._lost))]
        self._lost[key] = (response, now + self._window_s)
