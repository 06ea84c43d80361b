"""Takes results in: gathers, reads, has them stored in one transaction, acknowledges. `results` decides.

A batch is whatever has come while the previous one was being written. The acknowledgement follows the commit, and
the endpoint's confirm follows the acknowledgement: so an endpoint forgets a result only when it is stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from farcall.service.cluster.signals import of_ends
from farcall.service.db.engine import Database
from farcall.service.ops.measures import Histogram, Stopwatch
from farcall.service.relay import store
from farcall.service.relay.results import (
    MALFORMED_RESULT,
    ParsedResult,
    Reason,
    TaskRef,
    Unreadable,
    failure_result,
    parse_result,
)
from farcall.service.relay.store import Recorded
from farcall.service.relay.transport import Incoming
from farcall.wire.errors import ServiceUnavailable

__all__ = ["Intake", "IntakeCounters"]

_logger = logging.getLogger(__name__)
_RETRY_S = 1.0
_FAULT_LIMIT_CHARS = 300


@dataclass(slots=True)
class IntakeCounters:
    """Since the start."""

    stored: int = 0
    duplicate: int = 0
    foreign: int = 0
    unknown: int = 0
    unreadable: int = 0
    unstorable: int = 0
    batches: int = 0


class Intake:
    """The results of all endpoints.

    Args:
        acknowledge: tells the broker that these are done.
        on_recorded: called with each batch that was committed, in the order of the commits.
        on_again: awaited, before the acknowledgement, with those whose results the broker has delivered again although
            they had ended.
        clock: Unix seconds.
        stored_s: how long results wait until they are stored.
    """

    def __init__(
        self,
        db: Database,
        acknowledge: Callable[[Sequence[Incoming]], None],
        on_recorded: Callable[[Recorded], None],
        on_again: Callable[[Sequence[TaskRef]], Awaitable[None]],
        clock: Callable[[], float],
        *,
        batch_messages: int,
        batch_bytes: int,
        stored_s: Histogram,
    ) -> None:
        self._arrivals = Stopwatch(stored_s)
        self.counters = IntakeCounters()
        self._db = db
        self._acknowledge = acknowledge
        self._on_recorded = on_recorded
        self._on_again = on_again
        self._clock = clock
        self._batch_messages = batch_messages
        self._batch_bytes = batch_bytes
        self._waiting: list[Incoming] = []
        self._worker: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def lag_s(self) -> float:
        """For how long the oldest result has been here and is not stored."""
        oldest = self._arrivals.oldest
        return 0.0 if oldest is None else time.monotonic() - oldest

    def take(self, deliveries: Sequence[Incoming]) -> None:
        """Results have come."""
        self._waiting.extend(deliveries)
        self._arrivals.came(len(deliveries), time.monotonic())
        if self._worker is None and not self._stopping.is_set():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Finish the batch that is being written; the rest stays with the endpoints, unconfirmed."""
        self._stopping.set()
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        try:
            while self._waiting and not self._stopping.is_set():
                batch = self._next_batch()
                if await self._store(batch):
                    self._arrivals.left(len(batch), time.monotonic())
                    self._acknowledge(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> Sequence[Incoming]:
        count = size_bytes = 0
        for delivery in self._waiting[: self._batch_messages]:
            size_bytes += len(delivery.body)
            if count and size_bytes > self._batch_bytes:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _store(self, batch: Sequence[Incoming]) -> bool:
        """Write a batch, however often that takes. False if the service stops before."""
        results = self._parse(batch)
        while results:
            try:
                await self._record(results)
                break
            except ServiceUnavailable:
                pass  # logged where it happened; nothing can be confirmed until the disk takes it
            except Exception:  # any: a batch that is dropped here would never be confirmed, nor sent again
                _logger.exception("A batch of results failed; trying again", extra={"event": "relay.batch_failed"})
            try:
                await asyncio.wait_for(self._stopping.wait(), _RETRY_S)
            except asyncio.TimeoutError:
                continue
            return False
        return True

    async def _record(self, results: Sequence[ParsedResult]) -> None:
        """Raises ServiceUnavailable. One result that the store does not take must not keep the others out."""
        try:
            recorded = await self._db.write(
                store.record_results,
                results,
                self._clock(),
                then=self._recorded,
                announce=lambda recorded: of_ends(each.task for each in recorded.ended),
            )
        except ServiceUnavailable:
            raise
        except Exception as exc:
            if len(results) > 1:
                for result in results:
                    await self._record([result])
                return
            self.counters.unstorable += 1
            task_id, sender = results[0].task_id, results[0].sender
            _logger.exception(
                "A result cannot be stored",
                extra={"event": "relay.result_unstorable", "task_id": task_id, "sender": sender},
            )
            if results[0].error_code != MALFORMED_RESULT:
                text = f"The result of task {task_id} cannot be stored by the service ({type(exc).__name__})."
                await self._record([replace(failure_result(task_id, MALFORMED_RESULT, text), sender=sender)])
            return
        again = [
            dropped.task
            for dropped in recorded.dropped
            if dropped.reason is Reason.DUPLICATE and dropped.result.is_again and dropped.task is not None
        ]
        if again:
            await self._on_again(again)

    def _parse(self, batch: Sequence[Incoming]) -> list[ParsedResult]:
        results = []
        for delivery in batch:
            parsed = parse_result(delivery.body, delivery.routing_key)
            if isinstance(parsed, Unreadable):
                self.counters.unreadable += 1
                _logger.warning(
                    "A message on the result queue cannot be read and was dropped",
                    extra={
                        "event": "relay.result_unreadable",
                        "sender": parsed.sender,
                        "fault": parsed.fault[:_FAULT_LIMIT_CHARS],
                        "size_bytes": len(delivery.body),
                    },
                )
            else:
                results.append(replace(parsed, is_again=True) if delivery.redelivered else parsed)
        return results

    def _recorded(self, recorded: Recorded) -> None:
        counters = self.counters
        counters.batches += 1
        counters.stored += len(recorded.ended)
        if recorded.ended and _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "Results were stored",
                extra={"event": "task.result_stored", "task_ids": [each.task.id for each in recorded.ended]},
            )
        for dropped in recorded.dropped:
            name = dropped.reason.value
            setattr(counters, name, getattr(counters, name) + 1)
            _logger.log(
                # An endpoint that sends a result twice does what it should; one that speaks for another does not.
                logging.WARNING if name == "foreign" else logging.DEBUG,
                "A result was dropped",
                extra={
                    "event": f"relay.result_{name}",
                    "task_id": dropped.result.task_id,
                    "sender": dropped.result.sender,
                },
            )
        self._on_recorded(recorded)
