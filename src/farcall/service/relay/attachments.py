"""Writes down which endpoints are attached, for the processes that do not see it themselves. At once, in batches of
what has gathered; the last word on each endpoint counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from farcall.service.db.engine import Database
from farcall.service.endpoints.store import write_attached

__all__ = ["Attachments"]

_logger = logging.getLogger(__name__)
_RETRY_S: Final = 1.0
"""While the database does not take it only."""


class Attachments:
    """Made and used on the event loop.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock
        self._changes: dict[str, float | None] = {}
        self._job: asyncio.Task[None] | None = None
        self._is_stopping = False

    def attached(self, endpoint_id: str) -> None:
        """Its queue has a consumer."""
        self._note(endpoint_id, self._clock())

    def detached(self, endpoint_id: str) -> None:
        """It has none."""
        self._note(endpoint_id, None)

    def forget(self, endpoint_id: str) -> None:
        """It is somebody else's to say."""
        self._changes.pop(endpoint_id, None)

    async def stop(self) -> None:
        """Finish what is being written."""
        self._is_stopping = True
        if self._job is not None:
            await self._job

    def _note(self, endpoint_id: str, since: float | None) -> None:
        self._changes[endpoint_id] = since
        if self._job is None and not self._is_stopping:
            self._job = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._changes:
                changes, self._changes = self._changes, {}
                try:
                    await self._db.write(write_attached, changes)
                except Exception as exc:
                    _logger.warning(
                        "Who is attached was not written down",
                        extra={"event": "relay.attached_failed", "reason": str(exc)},
                    )
                    if self._is_stopping:
                        return
                    self._changes = {**changes, **self._changes}
                    await asyncio.sleep(_RETRY_S)
        finally:
            self._job = None
