"""Notices that rights were taken away elsewhere: by a command on the same store, or by another service process.

Looks at one number every two seconds; that is the bound for how long a revoked token or a broker login lives on here.
What this process itself takes away is told at once, by `revoked`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from farcall.service.accounts.authenticator import Authenticator
from farcall.service.accounts.rules import Cut
from farcall.service.accounts.store import cuts_after
from farcall.service.db.engine import Database
from farcall.service.relay.runner import Relay
from farcall.wire.topology import UserKind

__all__ = ["AccountsWatch"]

_logger = logging.getLogger(__name__)
_TIDY_PERIOD_S: Final = 600.0


class AccountsWatch:
    """Made on the event loop. `start` before anybody is let in, `stop` before the database closes.

    Args:
        period_s: between two looks.
        tidy: forgets what is of no use any more; called now and then.
    """

    def __init__(
        self,
        db: Database,
        authenticator: Authenticator,
        relay: Relay,
        *,
        period_s: float,
        tidy: Callable[[], Awaitable[None]],
    ) -> None:
        self._db = db
        self._authenticator = authenticator
        self._relay = relay
        self._period_s = period_s
        self._tidy = tidy
        self._version = 0
        self._task: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Told that rights have changed; for whoever remembers decisions."""

    async def start(self) -> None:
        """What was taken away before this process began is no news."""
        self._version, _ = await self._db.read(cuts_after, -1)
        self._task = asyncio.create_task(self._watch(), name="accounts-watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Find out now."""
        version, cuts = await self._db.read(cuts_after, self._version)
        if version != self._version:
            self._version = version
            self.revoked(cuts)

    def revoked(self, cuts: Iterable[Cut]) -> None:
        """This has been committed: forget every token that is remembered, and cut these broker logins."""
        self._authenticator.forget()
        self.on_change()
        for cut in cuts:
            if cut.kind is UserKind.SDK:
                self._relay.credential_revoked(cut.id, cut.generation)
            else:
                self._relay.endpoint_locked(cut.id, cut.generation)

    async def _watch(self) -> None:
        tidied_at = 0.0
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.look()
                if time.monotonic() - tidied_at > _TIDY_PERIOD_S:
                    tidied_at = time.monotonic()
                    await self._tidy()
            except Exception as exc:
                # The database is away, which is told elsewhere; what was revoked meanwhile is seen when it is back.
                _logger.debug(
                    "Revocations could not be looked for", extra={"event": "accounts.no_look", "reason": str(exc)}
                )
