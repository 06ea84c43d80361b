"""Throws away what has been kept long enough, and ends what has waited too long. One timer, small steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from farcall.service.cluster.signals import of_ends
from farcall.service.db.engine import Database
from farcall.service.functions.store import sweep_functions
from farcall.service.history.rules import HOUR_S
from farcall.service.history.store import forget_hours, roll_up
from farcall.service.relay import store
from farcall.service.relay.store import Recorded, Swept
from farcall.service.settings import ServiceSettings
from farcall.service.tasks.listing_store import fill_owners
from farcall.service.usage.rules import DAY_S
from farcall.service.usage.store import sweep_usage

__all__ = ["ENDPOINT_DELETED", "TASK_EXPIRED", "Sweeper"]

_logger = logging.getLogger(__name__)

_ROLLED_UP_AT_ONCE: Final = 25
"""Endpoints whose 60 minutes of an hour are one transaction: others wait for the writer meanwhile."""

TASK_EXPIRED: Final = "TASK_EXPIRED"
ENDPOINT_DELETED: Final = "ENDPOINT_DELETED"
_DELETED_TEXT = "Task {task_id} did not finish before its endpoint was deleted. Submit it to another endpoint."


class Sweeper:
    """Made and used on the event loop.

    Args:
        on_ended: called with what each step ended, in the order of the commits.
        on_idle: called once a round, for what needs no store.
        is_on: asked each round: whether it is for this process to sweep the store.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        db: Database,
        clock: Callable[[], float],
        *,
        on_ended: Callable[[Recorded], None],
        on_idle: Callable[[], None],
        is_on: Callable[[], bool],
    ) -> None:
        self._is_on = is_on
        self._settings = settings
        self._db = db
        self._clock = clock
        self._on_ended = on_ended
        self._on_idle = on_idle
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a round at once: the service may have been away for long."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def sweep(self) -> None:
        """One round."""
        self._on_idle()
        if not self._is_on():
            return
        for endpoint_id in await self._db.read(store.deleted_endpoints_with_open_tasks):
            await self.finish_deletion(endpoint_id)
        await self._sweep_tasks()
        now, settings = self._clock(), self._settings
        await self._db.write(store.sweep_keys, now - settings.idempotency_s)
        await self._db.write(store.sweep_groups, settings.sweep_batch, now - settings.result_retention_s)
        await self._sweep_functions(now)
        await self._sweep_history(now)
        await self._sweep_usage(now)
        filled = settings.sweep_batch  # what releases before this one wrote
        while filled == settings.sweep_batch and not self._stopping.is_set():
            filled = await self._db.write(fill_owners, settings.sweep_batch)

    async def _sweep_history(self, now: float) -> None:
        """Old minutes become hours."""
        settings = self._settings
        before = int((now - settings.history_minutes_s) // HOUR_S) * HOUR_S
        count = 1
        while count and not self._stopping.is_set():
            count = await self._db.write(roll_up, before, _ROLLED_UP_AT_ONCE)
        count = 1
        while count and not self._stopping.is_set():
            count = await self._db.write(forget_hours, int(now - settings.history_hours_s))

    async def _sweep_usage(self, now: float) -> None:
        before, count = int((now - self._settings.usage_retention_s) // DAY_S), 1
        while count and not self._stopping.is_set():
            count = await self._db.write(sweep_usage, before, self._settings.sweep_batch)

    async def _sweep_functions(self, now: float) -> None:
        """Those for high assurance go when nobody has run them for long."""
        settings, deleted = self._settings, 0
        while not self._stopping.is_set():
            before = now - settings.ha_function_retention_s
            count = await self._db.write(sweep_functions, settings.sweep_batch, before, now)
            deleted += count
            if count < settings.sweep_batch:
                break
        if deleted:
            _logger.info("Unused functions were deleted", extra={"event": "sweeper.functions", "count": deleted})

    async def finish_deletion(self, endpoint_id: str) -> None:
        """End the open tasks of an endpoint that was deleted."""
        total = 0
        while not self._stopping.is_set():
            recorded = await self._db.write(
                store.end_tasks_of_endpoint,
                endpoint_id,
                self._settings.sweep_batch,
                ENDPOINT_DELETED,
                _DELETED_TEXT,
                self._clock(),
                then=self._on_ended,
                announce=lambda recorded: of_ends((each.task for each in recorded.ended), withdrawn=True),
            )
            total += len(recorded.ended)
            if len(recorded.ended) < self._settings.sweep_batch:
                break
        if total:
            _logger.info(
                "Tasks of a deleted endpoint have ended",
                extra={"event": "endpoint.tasks_ended", "endpoint_id": endpoint_id, "tasks": total},
            )

    async def _sweep_tasks(self) -> None:
        settings, at, ended, deleted = self._settings, 0, 0, 0
        days = settings.task_lifetime_s / 86400
        text = f"Task {{task_id}} was not finished {days:.3g} days after its submission, and was given up."
        while not self._stopping.is_set():
            swept = await self._db.write(
                store.sweep_tasks,
                at,
                settings.sweep_batch,
                self._clock(),
                settings.task_lifetime_s,
                settings.result_retention_s,
                TASK_EXPIRED,
                text,
                then=self._on_swept,
                announce=lambda swept: of_ends((each.task for each in swept.ended), withdrawn=True),
            )
            ended += len(swept.ended)
            deleted += swept.deleted
            if swept.next_seq is None:
                break
            at = swept.next_seq
        if ended or deleted:
            _logger.info(
                "Old tasks were swept",
                extra={"event": "sweeper.swept", "given_up": ended, "forgotten": deleted},
            )

    def _on_swept(self, swept: Swept) -> None:
        if swept.ended:
            self._on_ended(Recorded(swept.ended, (), self._clock()))

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.sweep()
            except Exception:
                _logger.exception("A round of sweeping failed", extra={"event": "sweeper.failed"})
            try:
                await asyncio.wait_for(self._stopping.wait(), self._settings.sweep_period_s)
            except asyncio.TimeoutError:
                continue
