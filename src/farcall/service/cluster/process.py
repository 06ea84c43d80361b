"""This process as one of several: what it hears, what it shares. Composes `listener`, `hearing` and `shares`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from farcall.service.cluster.hearing import Hearing, Relaying
from farcall.service.cluster.shares import NoShare, RelayShares, Share, ShareHolder
from farcall.service.db.listener import Listener

__all__ = ["Cluster", "Sharer"]


class Sharer(Relaying, ShareHolder, Protocol):
    """The relay, as this package uses it."""

    share: Share


class Cluster:
    """Made on the event loop; `start`ed before the relay, `stop`ped before it. For the other arguments see `Hearing`.

    Args:
        url: of the store, PostgreSQL.
        me: a name of this process, never used before.
        relay: gets its share set here.
        feeds: this process feeds endpoints.

    Attributes:
        shares: None if it does not.
    """

    def __init__(
        self,
        url: str,
        me: str,
        relay: Sharer,
        *,
        feeds: bool,
        forget: Callable[[str | None], None],
        counted: Callable[[str, int], None],
    ) -> None:
        hearing = Hearing(me, relay=relay, forget=forget, counted=counted)
        self._listener = Listener(url, hearing)
        self.shares = RelayShares(self._listener, me, socket.gethostname(), relay) if feeds else None
        hearing.shares = self.shares
        relay.share = self.shares or NoShare()

    def start(self) -> None:
        """Begin to listen, and to divide the endpoints."""
        self._listener.start()

    @property
    def fault(self) -> str | None:
        """What keeps this process from working with the others, in words; None if nothing does."""
        return None if self._listener.is_joined else "the other service processes cannot be heard (database)"

    async def stop(self) -> None:
        """Leave in order: what was ours is the others' at once."""
        if self.shares is not None:
            await self.shares.stop()
        await self._listener.close()
