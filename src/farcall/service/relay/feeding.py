"""Runs the feeds: reads their pages from the store and publishes what they say. `feed` decides.

A feed exists while its queue has a consumer; endpoints and groups that nobody listens for cost nothing here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from farcall.service.db.engine import Database
from farcall.service.functions.store import read_codes
from farcall.service.ops.measures import Histogram, Measures, Stopwatch
from farcall.service.relay import store
from farcall.service.relay.feed import Command, Entry, Feed, Publish, Purge, ReadPage, Window
from farcall.service.relay.messages import (
    CANCEL_SIZE,
    CodeCache,
    cancel_message,
    common_headers,
    result_outgoing,
    task_message,
)
from farcall.service.relay.results import TaskRef
from farcall.service.relay.store import EndedTask, StoredTask, SubmissionHeaders
from farcall.service.relay.transport import Transport
from farcall.wire.topology import GroupQueue, task_queue

__all__ = ["Feeding", "ResultFeeds", "Seen", "TaskFeeds"]

_logger = logging.getLogger(__name__)

_RETRY_S = 1.0
"""After a failure of the store only."""

Reader = Callable[[ReadPage], Awaitable[tuple[Sequence[Entry], bool]]]


def _ignore(_entries: Sequence[Entry]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Seen:
    """What is measured of a feed.

    Attributes:
        taken_s: how long published messages wait for the acknowledgement of who consumes them.
        published: called with what was published.
    """

    taken_s: Histogram
    published: Callable[[Sequence[Entry]], None] = _ignore


class Feeding:
    """One feed at work. The content of its entries is `Outgoing`.

    Args:
        seen: what is measured of it.
    """

    def __init__(self, queue: str, window: Window, transport: Transport, read: Reader, seen: Seen) -> None:
        self.queue = queue
        self.feed = Feed(window)
        self._transport = transport
        self._read = read
        self._reads: set[asyncio.Task[None]] = set()
        self._seen = seen
        self._out = Stopwatch(seen.taken_s)

    def do(self, commands: Iterable[Command]) -> None:
        """Carry out what the feed said."""
        for command in commands:
            if isinstance(command, Publish):
                self._transport.publish(self.queue, [entry.content for entry in command.entries])
                self._out.came(len(command.entries), time.monotonic())
                self._seen.published(command.entries)
            elif isinstance(command, ReadPage):
                task = asyncio.get_running_loop().create_task(self._read_page(command))
                self._reads.add(task)
                task.add_done_callback(self._reads.discard)
            elif isinstance(command, Purge):
                self._out.clear()
                self._transport.purge(self.queue)

    def settled(self, count: int) -> None:
        """`count` messages were acknowledged."""
        self._out.left(count, time.monotonic())
        self.do(self.feed.settled(count))

    async def _read_page(self, command: ReadPage) -> None:
        try:
            entries, is_last = await self._read(command)
        except Exception:
            _logger.exception("A page could not be read", extra={"event": "relay.page_failed", "queue": self.queue})
            self.feed.page_failed(command.epoch)
            asyncio.get_running_loop().call_later(_RETRY_S, self._try_again)
            return
        self.do(self.feed.page(command.epoch, entries, is_last=is_last))

    def _try_again(self) -> None:
        self.do(self.feed.settled(0))


class TaskFeeds:
    """The feeds of all endpoints that are attached."""

    def __init__(
        self,
        db: Database,
        transport: Transport,
        codes: CodeCache,
        window: Window,
        page_tasks: int,
        *,
        measures: Measures,
        clock: Callable[[], float],
    ) -> None:
        self._measures = measures
        self._clock = clock
        self._db = db
        self._transport = transport
        self._codes = codes
        self._window = window
        self._page_tasks = page_tasks
        self._feedings: dict[str, Feeding] = {}

    def attached(self, endpoint_id: str) -> None:
        """Begin to feed, at the endpoint's oldest open task."""
        feeding = self._feedings[endpoint_id] = Feeding(
            task_queue(endpoint_id),
            self._window,
            self._transport,
            lambda page: self._read(endpoint_id, page),
            Seen(self._measures.taken_s, self._fed),
        )
        feeding.do(feeding.feed.attached())

    def detached(self, endpoint_id: str) -> None:
        feeding = self._feedings.pop(endpoint_id, None)
        if feeding is not None:
            feeding.do(feeding.feed.detached())

    def is_attached(self, endpoint_id: str) -> bool:
        return endpoint_id in self._feedings

    def settled(self, endpoint_id: str, count: int) -> None:
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None:
            feeding.settled(count)

    def committed(self, endpoint_id: str, tasks: Sequence[StoredTask], shared: SubmissionHeaders) -> None:
        """A submission has been committed. In the order of the commits."""
        feeding = self._feedings.get(endpoint_id)
        if feeding is None:
            return
        if not feeding.feed.is_caught_up:
            feeding.do(feeding.feed.committed(()))
            return
        headers = common_headers(shared)
        entries = []
        for task in tasks:
            code = self._codes.get(task.function_id)
            if code is None:
                feeding.do(feeding.feed.committed_elsewhere())
                return
            message = task_message(task, code, headers)
            entries.append(Entry(task.seq, task.id, task.size_chars, message, task.created_at))
        feeding.do(feeding.feed.committed(entries))

    def withdraw(self, tasks: Iterable[TaskRef]) -> None:
        """These tasks were ended here, not by their endpoint: tell it, if it may know them."""
        for task in tasks:
            feeding = self._feedings.get(task.endpoint_id)
            if feeding is not None:
                entry = Entry(task.seq, task.id, CANCEL_SIZE, cancel_message(task.id))
                feeding.do(feeding.feed.withdrawn(entry))

    def _fed(self, entries: Sequence[Entry]) -> None:
        now, fed_s = self._clock(), self._measures.fed_s
        since, count = 0.0, 0
        for entry in entries:  # those of one submission have one time
            if entry.since != since:
                if count and since:
                    fed_s.observe(now - since, count)
                since, count = entry.since, 0
            count += 1
        if count and since:
            fed_s.observe(now - since, count)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "Tasks were published to their endpoint",
                extra={"event": "task.fed", "task_ids": [entry.id for entry in entries]},
            )

    async def _read(self, endpoint_id: str, page: ReadPage) -> tuple[Sequence[Entry], bool]:
        count = min(page.messages, self._page_tasks)
        tasks, shared, is_last = await self._db.read(store.read_task_page, endpoint_id, page.after, count, page.size)
        codes = await self._codes_of({task.function_id for task in tasks})
        headers = {seq: common_headers(each) for seq, each in shared.items()}
        entries = [
            Entry(
                task.seq,
                task.id,
                task.size_chars,
                task_message(task, codes[task.function_id], headers[task.submission_seq]),
                task.created_at,
            )
            for task in tasks
        ]
        return entries, is_last

    async def _codes_of(self, function_ids: set[str]) -> dict[str, str]:
        known = {function_id: self._codes.get(function_id) for function_id in function_ids}
        found = {function_id: code for function_id, code in known.items() if code is not None}
        missing = [function_id for function_id in function_ids if function_id not in found]
        if missing:
            read = await self._db.read(read_codes, missing)
            for function_id, code in read.items():
                self._codes.put(function_id, code)
            found.update(read)
        return found


def _group_key(queue: GroupQueue) -> tuple[str, str]:
    return queue.identity_id, queue.task_group_id


class ResultFeeds:
    """The feeds of all task groups whose queues are being read."""

    def __init__(
        self, db: Database, transport: Transport, window: Window, page_results: int, *, measures: Measures
    ) -> None:
        self._seen = Seen(measures.result_taken_s)
        self._db = db
        self._transport = transport
        self._window = window
        self._page_results = page_results
        self._feedings: dict[tuple[str, str], dict[str, Feeding]] = {}  # by owner and group, then by queue
        self._delivered: dict[str, int] = {}

    def attached(self, queue: GroupQueue) -> None:
        """Begin to feed: a shared queue at the oldest result that the group's clients have not acknowledged, a
        reader's own with what is committed next.
        """
        feeding = Feeding(queue.name, self._window, self._transport, lambda page: self._read(queue, page), self._seen)
        self._feedings.setdefault(_group_key(queue), {})[queue.name] = feeding
        feeding.do(feeding.feed.attached(from_now=queue.reader is not None))

    def detached(self, queue: GroupQueue) -> None:
        of_group = self._feedings.get(_group_key(queue), {})
        feeding = of_group.pop(queue.name, None)
        if feeding is not None:
            feeding.do(feeding.feed.detached())
        if not of_group:
            self._feedings.pop(_group_key(queue), None)

    def is_attached(self, queue: GroupQueue) -> bool:
        return queue.name in self._feedings.get(_group_key(queue), {})

    def settled(self, queue: GroupQueue, count: int) -> bool:
        """A client acknowledged. Returns whether there is something to be written (`unwritten`)."""
        feeding = self._feedings.get(_group_key(queue), {}).get(queue.name)
        if feeding is None:
            return False
        feeding.settled(count)
        if queue.reader is not None:
            return False
        group_id = queue.task_group_id
        self._delivered[group_id] = max(feeding.feed.settled_seq, self._delivered.get(group_id, 0))
        return True

    def committed(self, owner_id: str, group_id: str, ended: Sequence[EndedTask], completed_at: float) -> None:
        """Results of one group have been committed. In the order of the commits."""
        of_group = self._feedings.get((owner_id, group_id))
        if of_group is None:
            return
        entries = []
        for each in ended:
            task = each.task
            message = result_outgoing(task.id, each.result.body, completed_at, is_protected=task.is_protected)
            entries.append(Entry(each.result_seq, task.id, len(message.body), message))
        for feeding in of_group.values():
            feeding.do(feeding.feed.committed(entries))

    @property
    def unwritten(self) -> dict[str, int]:
        """Group → up to which result its client has acknowledged, where that is not stored yet."""
        return dict(self._delivered)

    def written(self, delivered: dict[str, int]) -> None:
        """This has been stored."""
        for group_id, seq in delivered.items():
            if self._delivered.get(group_id) == seq:
                del self._delivered[group_id]

    async def _read(self, queue: GroupQueue, page: ReadPage) -> tuple[Sequence[Entry], bool]:
        group_id, is_shared = queue.task_group_id, queue.reader is None
        after = max(page.after, self._delivered.get(group_id, 0)) if is_shared else page.after
        count = min(page.messages, self._page_results)
        results, is_last = await self._db.read(
            store.read_result_page, group_id, queue.identity_id, after, count, page.size, is_shared
        )
        entries = []
        for each in results:
            message = result_outgoing(each.task_id, each.body, each.completed_at, is_protected=each.is_protected)
            entries.append(Entry(each.seq, each.task_id, len(message.body), message))
        return entries, is_last
