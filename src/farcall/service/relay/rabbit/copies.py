"""Results to task groups over RabbitMQ: one copy of each, to an exchange, whether or not anybody reads.

A shared queue that had to be made (its first reader comes, it had expired, or RabbitMQ has lost it) is filled with what
the store has of its group; from then on it gets the copies. So RabbitMQ keeps nothing for groups that nobody reads, and
nothing is lost with it. Readers with queues of their own ask over REST for what was before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from farcall.service.db.engine import Database
from farcall.service.relay import store
from farcall.service.relay.feed import Window
from farcall.service.relay.messages import Outgoing, result_outgoing
from farcall.service.relay.rabbit.transport import RabbitTransport
from farcall.service.relay.results import TaskRef
from farcall.service.relay.store import EndedTask, OutgoingResult
from farcall.service.relay.sweeper import ENDPOINT_DELETED, TASK_EXPIRED
from farcall.wire.errors import TaskCancelled
from farcall.wire.topology import GroupQueue, group_queue

__all__ = ["ResultCopies"]

_logger = logging.getLogger(__name__)
_LAST_RESULTS: Final = 1000
_OWN_ENDS: Final = (TaskCancelled.code, TASK_EXPIRED, ENDPOINT_DELETED)


class ResultCopies:
    """Implements `results_out.ResultsOut`.

    Args:
        page: how much is read from the store, and published without having been confirmed, at once.
    """

    def __init__(self, db: Database, transport: RabbitTransport, page: Window) -> None:
        self._db = db
        self._transport = transport
        self._page = page
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        transport.on_up = self._came_up

    def submitted(self, queue: GroupQueue) -> None:
        """Nothing: the queue is made when somebody reads it, and then filled."""

    def ensure_queue(self, queue: GroupQueue) -> None:
        self._preparation(queue)

    async def prepare_queue(self, queue: GroupQueue) -> None:
        await asyncio.shield(self._preparation(queue))

    def committed(self, owner_id: str, group_id: str, ended: Sequence[EndedTask], completed_at: float) -> None:
        messages = [
            result_outgoing(each.task.id, each.result.body, completed_at, is_protected=each.task.is_protected)
            for each in ended
        ]
        self._transport.copy(group_queue(owner_id, group_id), messages)

    async def again(self, tasks: Sequence[TaskRef]) -> None:
        """From the store: what came again need not be what was stored."""
        of_groups: dict[str, list[str]] = {}
        for task in tasks:
            of_groups.setdefault(group_queue(task.owner_id, task.group_id), []).append(task.id)
        for key, task_ids in of_groups.items():
            results = await self._db.read(store.read_results, task_ids)
            self._transport.copy(key, _messages(results))

    def consumers(self, queue: GroupQueue, count: int) -> None:
        """RabbitMQ keeps what nobody reads, and forgets queues by itself."""

    def settled(self, queue: GroupQueue, count: int) -> bool:
        return False

    def drop_idle_queues(self) -> None:
        """They expire."""

    @property
    def unwritten(self) -> dict[str, int]:
        return {}

    def written(self, delivered: dict[str, int]) -> None:
        """Nothing was."""

    def _preparation(self, queue: GroupQueue) -> asyncio.Task[None]:
        job = self._preparing.get(queue.name)
        if job is None:
            job = asyncio.get_running_loop().create_task(self._prepare(queue))
            self._preparing[queue.name] = job
            job.add_done_callback(lambda _job: self._preparing.pop(queue.name, None))
        return job

    async def _prepare(self, queue: GroupQueue) -> None:
        key, is_shared = group_queue(queue.identity_id, queue.task_group_id), queue.reader is None
        if await self._transport.declare_group_queue(queue.name, key, is_shared=is_shared) and is_shared:
            self._begin(self._fill(queue))

    def _came_up(self) -> None:
        self._begin(self._copy_last_ends())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _copy_last_ends(self) -> None:
        """What the service itself has ended is in no queue that would bring it again: a process that died between the
        commit and the copy, or RabbitMQ, may have left its clients without."""
        try:
            ends = await self._db.read(store.read_last_ends, _LAST_RESULTS, _OWN_ENDS)
        except Exception:
            _logger.exception("The last ends could not be read", extra={"event": "relay.copy_failed"})
            return
        for (owner_id, group_id), results in ends.items():
            self._transport.copy(group_queue(owner_id, group_id), _messages(results))

    async def _fill(self, queue: GroupQueue) -> None:
        after, count, is_last = 0, 0, False
        try:
            while not is_last:
                results, is_last = await self._db.read(
                    store.read_result_page,
                    queue.task_group_id,
                    queue.identity_id,
                    after,
                    self._page.messages,
                    self._page.size,
                )
                if results:
                    await self._transport.fill(queue.name, _messages(results))
                    after, count = results[-1].seq, count + len(results)
        except Exception:
            _logger.exception(
                "A queue that was made anew could not be filled",
                extra={"event": "relay.fill_failed", "queue": queue.name},
            )
            # Made again when its reader comes again, and then filled.
            self._transport.drop_queue(queue.name, if_unused=False)
        if count:
            _logger.info(
                "A queue that was made anew was filled from the store",
                extra={"event": "relay.queue_filled", "queue": queue.name, "results": count},
            )


def _messages(results: Iterable[OutgoingResult]) -> list[Outgoing]:
    return [
        result_outgoing(each.task_id, each.body, each.completed_at, is_protected=each.is_protected) for each in results
    ]
