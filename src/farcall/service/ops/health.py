"""Whether the service can do its work: the database takes writes, the broker is up, the relay runs.

Anybody may ask, so the answer is kept for a second, and one question at a time goes to the database.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from farcall.service.accounts.store import touch
from farcall.service.cluster.process import Cluster
from farcall.service.db.engine import Database
from farcall.service.relay.runner import Relay
from farcall.wire.errors import FarcallError

__all__ = ["Health"]

_KEPT_S: Final = 1.0
_PATIENCE_S: Final = 5.0


class Health:
    """Made and used on the event loop."""

    def __init__(self, db: Database, relay: Relay, cluster: Cluster | None = None) -> None:
        self._cluster = cluster
        self._db = db
        self._relay = relay
        self._asking: asyncio.Task[list[str]] | None = None
        self._asked_at = float("-inf")

    async def faults(self) -> list[str]:
        """What is wrong, in words; empty if nothing is."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now - self._asked_at >= _KEPT_S):
            self._asked_at = now
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> list[str]:
        faults = self._relay.faults()
        if self._cluster is not None and self._cluster.fault is not None:
            faults.append(self._cluster.fault)
        try:
            await asyncio.wait_for(self._db.write(touch), _PATIENCE_S)
        except asyncio.TimeoutError:
            faults.append(f"the database has not taken a write for {_PATIENCE_S:.0f} s")
        except (FarcallError, SQLAlchemyError, OSError):
            faults.append("the database cannot be written to")
        return faults
