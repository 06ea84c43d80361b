"""Which endpoints this process feeds: all (`SoleShare`), none (`NoShare`), or those that it has divided with other
relays (`RelayShares`). `plan` decides, `store` talks to the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from farcall.service.cluster import store
from farcall.service.cluster.plan import SLOTS, Pace, Plan, plan, slot_of
from farcall.service.cluster.signals import SharesChanged, SharesDoubted, Signal, pack
from farcall.service.db.listener import Listener
from farcall.wire.errors import FarcallError

__all__ = ["NoShare", "RelayShares", "Share", "ShareHolder", "SoleShare"]

_logger = logging.getLogger(__name__)
_ROUNDS: Final = 4
"""Of looking again at once, because another relay was faster; then the next beat does."""


class Share(Protocol):
    """Which endpoints are this process's."""

    def is_mine(self, endpoint_id: str) -> bool: ...

    @property
    def slots(self) -> frozenset[int]:
        """The slots of the endpoints that are."""
        ...

    @property
    def sweeps(self) -> bool:
        """Whether this process does what one process of a service does for all."""
        ...


class ShareHolder(Protocol):
    """Who feeds. Called on the event loop."""

    def on_gained(self, slots: frozenset[int]) -> None:
        """These are ours, since now or for a while already: begin with each of their endpoints anew."""
        ...

    def on_lost(self, slots: frozenset[int]) -> None:
        """These are not ours any more: leave their queues as they are, somebody else may be filling them."""
        ...


class SoleShare:
    """One process does it all."""

    slots: Final = frozenset(range(SLOTS))
    sweeps: Final = True

    def is_mine(self, endpoint_id: str) -> bool:
        return True


class NoShare:
    """A process that feeds nobody."""

    slots: Final[frozenset[int]] = frozenset()
    sweeps: Final = False

    def is_mine(self, endpoint_id: str) -> bool:
        return False


class RelayShares:
    """One relay's part. Made on the event loop; its listener tells `on_joined`, `on_left` and `on_signals`.

    Args:
        member_id: of this process, never used before.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        listener: Listener,
        member_id: str,
        host: str,
        holder: ShareHolder,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = pace or Pace()
        self._listener = listener
        self._me = member_id
        self._host = host
        self._holder = holder
        self._clock = clock
        self._held: frozenset[int] = frozenset()
        self._doubtful: frozenset[int] = frozenset()
        self._beat_at = float("-inf")
        self._wanted = asyncio.Event()
        self._session = 0
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self.members = 0
        """Relays that are there, as of the last look."""

    @property
    def slots(self) -> frozenset[int]:
        return self._held if self._is_fresh else frozenset()

    @property
    def sweeps(self) -> bool:
        return 0 in self.slots

    def is_mine(self, endpoint_id: str) -> bool:
        return slot_of(endpoint_id) in self._held and self._is_fresh

    @property
    def _is_fresh(self) -> bool:
        # A process that was stopped for a while may have been replaced, and learns of that later than it acts.
        return self._clock() - self._beat_at < self._pace.fence_s

    def on_joined(self) -> None:
        """There is a session."""
        self._session += 1
        if self._task is None and not self._is_stopping:
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._wanted.set()

    def on_left(self) -> None:
        """The session is lost, and its locks with it."""
        self._session += 1
        if not self._is_fresh:
            self._doubtful |= self._held  # we may have acted on them, in a moment that was longer than it seemed
        self._beat_at = float("-inf")
        self._lose(self._held)

    def on_signals(self, signals: Iterable[Signal]) -> None:
        """Other processes said something."""
        for signal in signals:
            if isinstance(signal, SharesChanged):
                self._wanted.set()
            elif isinstance(signal, SharesDoubted):
                again = self._held & frozenset(signal.slots)
                if again:
                    self._holder.on_gained(again)

    async def stop(self) -> None:
        """Give everything back, so that others go on at once."""
        self._is_stopping = True
        self._wanted.set()
        if self._task is not None:
            await self._task
        held = self._held
        self._lose(held)
        with contextlib.suppress(FarcallError):  # no session: there is nothing to give back
            await self._listener.run(store.release_slots, sorted(held))
            await self._listener.run(store.forget, [self._me])
            await self._announce(SharesChanged())

    async def _run(self) -> None:
        is_new = True
        while not self._is_stopping:
            self._wanted.clear()
            if self._listener.is_joined:
                try:
                    await self._look(is_new=is_new)
                    is_new = False
                except FarcallError:
                    is_new = True  # no session; `on_joined` tells of the next one
                except Exception:
                    _logger.exception("The relay's share could not be seen to", extra={"event": "shares.failed"})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._pace.beat_s)

    async def _look(self, *, is_new: bool) -> None:
        """Raises ServiceUnavailable."""
        for _ in range(_ROUNDS):
            before = self._clock()
            view = await self._listener.run(store.beat, self._me, self._host)
            was_late = bool(self._held) and before - self._beat_at >= self._pace.fence_s
            self._beat_at = before
            if was_late:
                # What came while we did not act was not acted on.
                self._holder.on_gained(self._held)
            if self._doubtful:
                await self._announce(SharesDoubted(tuple(sorted(self._doubtful))))
                self._doubtful = frozenset()
            if is_new:
                is_new = False
                await self._announce(SharesChanged())
            decided = plan(self._me, view.members, self._held, view.taken, gone_s=self._pace.gone_s)
            self.members = len(view.members) - len(decided.forget)
            if await self._carry_out(decided):
                return

    async def _carry_out(self, decided: Plan) -> bool:
        """Whether all that was wanted has been had. Raises ServiceUnavailable."""
        if decided.forget:
            if decided.end:
                _logger.warning(
                    "A relay does not answer; its endpoints are taken over",
                    extra={"event": "shares.takeover", "relays": len(decided.end)},
                )
                await self._listener.run(store.end_backends, decided.end)
            await self._listener.run(store.forget, decided.forget)
            return False  # their slots are free now
        if decided.release:
            self._lose(frozenset(decided.release))
            await self._listener.run(store.release_slots, decided.release)
            await self._announce(SharesChanged())
        if decided.take:
            session = self._session
            got = await self._listener.run(store.take_slots, decided.take)
            if session != self._session:
                return False  # gone again with the session that had them
            if got:
                self._held |= got
                _logger.info("The relay has taken endpoints", extra={"event": "shares.gained", "slots": len(got)})
                self._holder.on_gained(got)
            return len(got) == len(decided.take)
        return True

    def _lose(self, slots: frozenset[int]) -> None:
        if not slots:
            return
        self._held -= slots
        _logger.info("The relay has given endpoints back", extra={"event": "shares.lost", "slots": len(slots)})
        self._holder.on_lost(slots)

    async def _announce(self, *signals: Signal) -> None:
        texts: Sequence[str] = pack(signals, self._me)
        await self._listener.run(store.announce, texts)
