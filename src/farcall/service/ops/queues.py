"""How many tasks of each endpoint have not ended, cheaply: counted once, then kept in mind.

The count in memory follows what this process commits and what others tell of their commits, and is counted again in
the store now and then, off the way of requests. So the limit is exact for submissions that come one after another;
submissions at the same moment can exceed it by what they bring.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from farcall.service.db.engine import Database
from farcall.service.relay.results import TaskRef
from farcall.service.tasks.store import count_by_state, count_open
from farcall.wire.errors import EndpointQueueFull

__all__ = ["QueueLimit", "StateCounts"]

_logger = logging.getLogger(__name__)
_FRESH_S: Final = 15.0
_REMEMBERED: Final = 10_000
_RETRY_AFTER_S: Final = 5
_STATES_SHARE: Final = 50
"""Counting takes at most one part in so many of a reading thread's time, however many tasks there are."""


class QueueLimit:
    """Made and used on the event loop; `check` from any thread.

    Args:
        limit: tasks per endpoint; 0: no limit, and nothing is counted.
        clock: seconds, of any kind.
    """

    def __init__(self, db: Database, limit: int, clock: Callable[[], float]) -> None:
        self._db = db
        self._limit = limit
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._counted_at: dict[str, float] = {}
        self._counting: dict[str, asyncio.Task[None]] = {}

    async def prepare(self, endpoint_id: str) -> None:
        """Have a count of this endpoint. Waits only for the first one, and where the endpoint seems to be full."""
        if not self._limit:
            return
        at = self._counted_at.get(endpoint_id)
        if at is not None and 0 <= self._clock() - at < _FRESH_S:
            return
        job = self._counting.get(endpoint_id)
        if job is None:
            job = asyncio.get_running_loop().create_task(self._count(endpoint_id))
            self._counting[endpoint_id] = job
        if at is None or self._counts[endpoint_id] >= self._limit:
            await asyncio.shield(job)

    def check(self, endpoint_id: str, more: int) -> None:
        """Raise EndpointQueueFull if `more` tasks are too many."""
        if not self._limit:
            return
        waiting = self._counts.get(endpoint_id, 0)
        if waiting + more > self._limit:
            raise EndpointQueueFull(
                f"Endpoint {endpoint_id} has {waiting} tasks that have not ended, and may have {self._limit} "
                f"(max_queued_tasks_per_endpoint); {more} more do not fit. Is it online "
                f"(`farcall-endpoint list`)? Submit again when some have ended.",
                {"retry_after_s": _RETRY_AFTER_S},
            )

    def known(self, endpoint_id: str) -> int | None:
        """Its tasks that have not ended; None if they were not counted yet."""
        return self._counts.get(endpoint_id)

    def submitted(self, endpoint_id: str, count: int) -> None:
        """So many tasks were committed; a negative number has ended."""
        if endpoint_id in self._counts:
            self._counts[endpoint_id] += count

    def ended(self, tasks: Iterable[TaskRef]) -> None:
        """These tasks have ended."""
        counts = self._counts
        for task in tasks:
            if task.endpoint_id in counts:
                counts[task.endpoint_id] -= 1

    async def stop(self) -> None:
        """Wait for counts under way."""
        await asyncio.gather(*self._counting.values())

    async def _count(self, endpoint_id: str) -> None:
        before = self._counts.get(endpoint_id, 0)
        try:
            found = await self._db.read(count_open, endpoint_id)
        except Exception:
            _logger.exception("Open tasks could not be counted", extra={"event": "queue.count_failed"})
            found = before
        finally:
            del self._counting[endpoint_id]
        if endpoint_id not in self._counts and len(self._counts) >= _REMEMBERED:
            oldest = next(iter(self._counts))
            del self._counts[oldest], self._counted_at[oldest]
        self._counts[endpoint_id] = found
        self._counted_at[endpoint_id] = self._clock()


class StateCounts:
    """How many tasks the store has in each state, counted at most every 15 s and only if somebody asks.

    Attributes:
        counts: state → tasks; empty at first.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.counts: dict[str, int] = {}
        self._until = float("-inf")
        self._job: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Count, if it is time to. Who cannot wait longer than 2 s gets the former numbers."""
        if self._job is None and time.monotonic() >= self._until:
            self._job = asyncio.get_running_loop().create_task(self._count())
        if self._job is not None:
            await asyncio.wait([self._job], timeout=2.0)

    async def _count(self) -> None:
        begun, took_s = time.monotonic(), 0.0
        try:
            self.counts = await self._db.read(count_by_state)
            took_s = time.monotonic() - begun
        except Exception:
            _logger.exception("Tasks could not be counted", extra={"event": "tasks.count_failed"})
        finally:
            self._until = time.monotonic() + max(_FRESH_S, _STATES_SHARE * took_s)
            self._job = None
