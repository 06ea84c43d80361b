"""Which endpoints are online, for whoever asks over HTTP: from memory if one process sees all of them, else from the
database. `relay.presence` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from farcall.service.db.engine import Database
from farcall.service.endpoints.store import StoredEndpoint, read_attached
from farcall.service.relay import presence
from farcall.service.relay.reports import Reports

__all__ = ["Online", "OnlineHere", "OnlineSomewhere"]

Report = tuple[dict[str, Any] | None, float | None]
"""What an endpoint last said of itself, and when (Unix seconds)."""


class Online(Protocol):
    """Called on the event loop."""

    def is_online(self, stored: StoredEndpoint) -> bool:
        """Whether tasks sent now would be taken, as far as can be known."""
        ...

    def latest(self, stored: StoredEndpoint) -> Report: ...

    async def online(self) -> list[str]:
        """The endpoints that are online."""
        ...


class OnlineHere:
    """This process has all endpoints' connections and reports."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def is_online(self, stored: StoredEndpoint) -> bool:
        return self._reports.is_online(stored.rights.id)

    def latest(self, stored: StoredEndpoint) -> Report:
        found = self._reports.latest(stored.rights.id)
        return found if found is not None else (stored.last_report, stored.last_seen_at)

    async def online(self) -> list[str]:
        return self._reports.online()


class OnlineSomewhere:
    """Relay processes write down what they see.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    def is_online(self, stored: StoredEndpoint) -> bool:
        known = presence.as_stored(stored.attached_at, stored.last_report, stored.last_seen_at)
        return presence.is_online(known, now=self._clock())

    def latest(self, stored: StoredEndpoint) -> Report:
        return stored.last_report, stored.last_seen_at

    async def online(self) -> list[str]:
        now = self._clock()
        return [
            endpoint_id
            for endpoint_id, attached_at, report, reported_at in await self._db.read(read_attached)
            if presence.is_online(presence.as_stored(attached_at, report, reported_at), now=now)
        ]
