"""Writes down what goes on at endpoints, once a minute and in few transactions, off the way of tasks. `rules` decides
what; each process writes what it has seen itself, and the rows add up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from farcall.service.db.engine import Database
from farcall.service.db.sql import chunks
from farcall.service.history.rules import MINUTE_S, Minutes, gauges_of
from farcall.service.history.store import add_entries

__all__ = ["Recorder"]

_logger = logging.getLogger(__name__)
_AT_ONCE: Final = 200
"""Rows in one transaction: some milliseconds."""


class Recorder:
    """An `Onlooker`. Made and used on the event loop.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock
        self._minutes = Minutes()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_stopping = False

    def reported(self, endpoint_id: str, state: Mapping[str, Any]) -> None:
        if state.get("active") is False:
            self.away(endpoint_id)
            return
        gauges = gauges_of(state)
        if any(value is not None for value in gauges):  # managers have none
            self._minutes.reported(endpoint_id, gauges, now=self._clock())
            self._write_later()

    def submitted(self, endpoint_id: str, count: int, manager_id: str | None) -> None:
        self._minutes.counted(endpoint_id, now=self._clock(), submitted=count)
        self._write_later()

    def ended(self, endpoint_id: str, succeeded: int, failed: int) -> None:
        self._minutes.counted(endpoint_id, now=self._clock(), succeeded=succeeded, failed=failed)
        self._write_later()

    def away(self, endpoint_id: str) -> None:
        self._minutes.away(endpoint_id, now=self._clock())
        self._write_later()

    def changed(self, endpoint_id: str) -> None:
        """Nothing that is kept."""

    async def write(self) -> None:
        """Write what is there now."""
        entries = self._minutes.take()
        for some in chunks(entries, _AT_ONCE):
            try:
                await self._db.write(add_entries, some)
            except Exception as exc:
                _logger.warning(
                    "What went on at endpoints was not written down; trying again in a minute",
                    extra={"event": "history.write_failed", "reason": str(exc)},
                )
                self._minutes.give_back(some)

    async def stop(self) -> None:
        """Write the rest."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        await self.write()

    def _write_later(self) -> None:
        """At the end of this minute, if there is something."""
        if self._timer is None and self._writing is None and self._minutes and not self._is_stopping:
            delay_s = MINUTE_S - self._clock() % MINUTE_S
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            await self.write()
        finally:
            self._writing = None
            self._write_later()
