"""Runs the feeds: reads their pages from the store and publishes what they say. `feed` decides.

A feed exists while its queue has a consumer; endpoints and groups that nobody listens for cost nothing here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farcall.service.db.engine import Database
from farcall.service.functions.store import read_codes
from farcall.service.managers.store import manager_of
from farcall.service.ops.measures import Histogram, Measures, Stopwatch
from farcall.service.relay import store
from farcall.service.relay.custodian import Custodian
from farcall.service.relay.feed import Command, Entry, Feed, Publish, Purge, ReadPage, Taken, Window
from farcall.service.relay.messages import (
    CANCEL_SIZE,
    CodeCache,
    cancel_message,
    common_headers,
    result_outgoing,
    task_message,
)
from farcall.service.relay.results import TaskRef
from farcall.service.relay.store import EndedTask, StoredTask, SubmissionHeaders, TaskPage
from farcall.service.relay.transport import Transport
from farcall.wire.topology import GroupQueue, task_queue

__all__ = ["Feeding", "ResultFeeds", "Seen", "TaskFeeds"]

_logger = logging.getLogger(__name__)

_RETRY_S = 1.0
"""After a failure of the store only."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a feed asked for; the members are the arguments of `Feed.page`."""

    entries: Sequence[Entry]
    is_last: bool
    not_these: Collection[int] = ()


Reader = Callable[[ReadPage], Awaitable[Page]]


def _ignore(_what: Sequence[Any]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Seen:
    """What is measured of a feed.

    Attributes:
        taken_s: how long published messages wait for the acknowledgement of who consumes them.
        published: called with what was published.
        taken: called with the numbers of what was acknowledged, if the feed tells.
    """

    taken_s: Histogram
    published: Callable[[Sequence[Entry]], None] = _ignore
    taken: Callable[[Sequence[int]], None] = _ignore


class Feeding:
    """One feed at work. The content of its entries is `Outgoing`.

    Args:
        seen: what is measured of it.
    """

    def __init__(self, queue: str, window: Window, transport: Transport, read: Reader, seen: Seen) -> None:
        self.queue = queue
        self.feed = Feed(window, by_ends=not transport.sees_acks)
        self._transport = transport
        self._read = read
        self._reads: set[asyncio.Task[None]] = set()
        self._seen = seen
        self._out = Stopwatch(seen.taken_s)
        self.gaps_seen = 0
        """Of `TaskFeeds`, when it last began to read."""

    def do(self, commands: Iterable[Command]) -> None:
        """Carry out what the feed said."""
        for command in commands:
            if isinstance(command, Publish):
                self._transport.publish(self.queue, [entry.content for entry in command.entries])
                if self._transport.sees_acks:
                    self._out.came(len(command.entries), time.monotonic())
                self._seen.published(command.entries)
            elif isinstance(command, ReadPage):
                task = asyncio.get_running_loop().create_task(self._read_page(command))
                self._reads.add(task)
                task.add_done_callback(self._reads.discard)
            elif isinstance(command, Purge):
                self._out.clear()
                self._transport.purge(self.queue)
            elif isinstance(command, Taken):
                self._seen.taken(command.seqs)

    def settled(self, count: int) -> None:
        """`count` messages were acknowledged."""
        self._out.left(count, time.monotonic())
        self.do(self.feed.settled(count))

    def ended(self, seqs: Collection[int]) -> None:
        """What these entries are about has ended; for brokers that do not tell of acknowledgements."""
        self.do(self.feed.ended(seqs))

    async def _read_page(self, command: ReadPage) -> None:
        try:
            page = await self._read(command)
        except Exception:
            _logger.exception("A page could not be read", extra={"event": "relay.page_failed", "queue": self.queue})
            self.feed.page_failed(command.epoch)
            asyncio.get_running_loop().call_later(_RETRY_S, self._try_again)
            return
        self.do(self.feed.page(command.epoch, page.entries, is_last=page.is_last, not_these=page.not_these))

    def _try_again(self) -> None:
        self.do(self.feed.settled(0))


class TaskFeeds:
    """The feeds of all endpoints that are attached.

    User endpoints may be agents without a journal, of which `custodian` keeps the books: they are fed only what they
    have not taken, as far as the broker tells; and they are told of no cancellation, which they may not understand.

    Args:
        last_report: an endpoint's last `global_state` and when it came (Unix seconds).
        has_others: other processes commit tasks as well. Then what this one commits is published from memory only if
            its numbers follow upon those of its commit before; what came in between has to be read first.
    """

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
        last_report: Callable[[str], tuple[Mapping[str, Any], float] | None] = lambda endpoint_id: None,
        has_others: bool = False,
    ) -> None:
        self.custodian = Custodian(db, self._feed_again, self._feed_all)
        self._last_report = last_report
        self._detached_at: dict[str, float] = {}
        self._is_user_endpoint: dict[str, bool] = {}
        self._has_others = has_others
        self._last_seq = 0
        self._gaps = 0
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
            Seen(self._measures.taken_s, self._fed, lambda seqs: self.custodian.taken(endpoint_id, seqs)),
        )
        feeding.do(feeding.feed.attached())

    def detached(self, endpoint_id: str) -> None:
        feeding = self._feedings.pop(endpoint_id, None)
        if feeding is not None:
            feeding.do(feeding.feed.detached())
            self.custodian.end(endpoint_id)
            if self._is_user_endpoint.get(endpoint_id):
                self._detached_at[endpoint_id] = self._clock()

    def forget(self, endpoint_id: str) -> None:
        """The endpoint was deleted."""
        self.detached(endpoint_id)
        self._detached_at.pop(endpoint_id, None)
        self._is_user_endpoint.pop(endpoint_id, None)

    def is_attached(self, endpoint_id: str) -> bool:
        return endpoint_id in self._feedings

    def settled(self, endpoint_id: str, count: int) -> None:
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None:
            feeding.settled(count)

    def ended(self, tasks: Iterable[TaskRef]) -> None:
        """These tasks have ended, one way or another."""
        if self._transport.sees_acks or not self._feedings:
            return
        of_endpoints: dict[str, list[int]] = {}
        for task in tasks:
            of_endpoints.setdefault(task.endpoint_id, []).append(task.seq)
        for endpoint_id, seqs in of_endpoints.items():
            self.ended_elsewhere(endpoint_id, seqs)

    def ended_elsewhere(self, endpoint_id: str, seqs: Collection[int]) -> None:
        """The same, by number."""
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None and not self._transport.sees_acks:
            feeding.ended(seqs)

    def committed_elsewhere(self, endpoint_id: str) -> None:
        """Another process has committed tasks of this endpoint."""
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None:
            feeding.do(feeding.feed.committed_elsewhere())

    def released(self, endpoint_id: str) -> None:
        """Another process feeds it from now on; what is in its queue stays."""
        feeding = self._feedings.pop(endpoint_id, None)
        if feeding is not None:
            feeding.feed.released()
            self.custodian.end(endpoint_id)

    @property
    def endpoint_ids(self) -> list[str]:
        """The endpoints that are attached."""
        return list(self._feedings)

    def committed(self, endpoint_id: str, tasks: Sequence[StoredTask], shared: SubmissionHeaders) -> None:
        """A submission has been committed. In the order of the commits."""
        if self._has_others and tasks:
            self._gaps += tasks[0].seq != self._last_seq + 1
            self._last_seq = tasks[-1].seq
        feeding = self._feedings.get(endpoint_id)
        if feeding is None:
            return
        if not feeding.feed.is_caught_up:
            feeding.do(feeding.feed.committed(()))
            return
        if feeding.gaps_seen != self._gaps:
            feeding.do(feeding.feed.committed_elsewhere())
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
            self.withdraw_elsewhere(task.endpoint_id, [(task.seq, task.id)])

    def withdraw_elsewhere(self, endpoint_id: str, tasks: Iterable[tuple[int, str]]) -> None:
        """The same, by number and id."""
        feeding = self._feedings.get(endpoint_id)
        if feeding is None:
            return
        tell = not self.custodian.is_in_charge(endpoint_id)
        for seq, task_id in tasks:
            entry = Entry(seq, task_id, CANCEL_SIZE, cancel_message(task_id))
            feeding.do(feeding.feed.withdrawn(entry, tell=tell))

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

    async def _begin_custody(self, endpoint_id: str) -> None:
        """If what has attached may be without a journal: before it is sent anything."""
        if endpoint_id not in self._is_user_endpoint:
            self._is_user_endpoint[endpoint_id] = await self._db.read(manager_of, endpoint_id) is not None
        feeding = self._feedings.get(endpoint_id)
        if not self._is_user_endpoint[endpoint_id] or feeding is None or self.custodian.has_begun(endpoint_id):
            return
        self.custodian.begin(endpoint_id)
        feeding.feed.tells_taken = self._transport.sees_acks
        report = self._last_report(endpoint_id)
        if report is not None and report[1] > self._detached_at.get(endpoint_id, 0.0) and report[0].get("active"):
            self.custodian.reported(endpoint_id, report[0])

    def _feed_again(self, endpoint_id: str) -> None:
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None and self._transport.sees_acks:
            feeding.do(feeding.feed.again())

    def _feed_all(self, endpoint_id: str) -> None:
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None and self._transport.sees_acks:
            feeding.feed.tells_taken = False
            feeding.do(feeding.feed.attached())

    async def _read(self, endpoint_id: str, page: ReadPage) -> Page:
        await self._begin_custody(endpoint_id)
        if not self.custodian.is_in_charge(endpoint_id) or not self._transport.sees_acks:
            return Page(*await self._read_tasks(store.read_task_page, endpoint_id, page))
        with self.custodian.reading(endpoint_id) as taken:
            return Page(*await self._read_tasks(store.read_untaken_page, endpoint_id, page), not_these=taken)

    async def _read_tasks(
        self, read: Callable[..., TaskPage], endpoint_id: str, page: ReadPage
    ) -> tuple[Sequence[Entry], bool]:
        feeding = self._feedings.get(endpoint_id)
        if feeding is not None:
            feeding.gaps_seen = self._gaps
        count = min(page.messages, self._page_tasks)
        tasks, shared, is_last = await self._db.read(read, endpoint_id, page.after, count, page.size)
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
    """The feeds of all task groups whose queues are being read; implements `results_out.ResultsOut`.

    Args:
        idle_s: for how long a queue that nobody reads is kept.
        clock: Unix seconds.
    """

    def __init__(
        self,
        db: Database,
        transport: Transport,
        window: Window,
        page_results: int,
        *,
        measures: Measures,
        idle_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._idle_s = idle_s
        self._clock = clock
        self._unused: dict[str, float] = {}
        self._seen = Seen(measures.result_taken_s)
        self._db = db
        self._transport = transport
        self._window = window
        self._page_results = page_results
        self._feedings: dict[tuple[str, str], dict[str, Feeding]] = {}  # by owner and group, then by queue
        self._delivered: dict[str, int] = {}

    def submitted(self, queue: GroupQueue) -> None:
        self.ensure_queue(queue)

    def ensure_queue(self, queue: GroupQueue) -> None:
        self._transport.ensure_queue(queue.name)
        self._unused.setdefault(queue.name, self._clock())

    async def prepare_queue(self, queue: GroupQueue) -> None:
        self.ensure_queue(queue)

    async def again(self, tasks: Sequence[TaskRef]) -> None:
        """Nothing: a feed begins with what its readers have not acknowledged."""

    def consumers(self, queue: GroupQueue, count: int) -> None:
        if count and not self.is_attached(queue):
            self._unused.pop(queue.name, None)
            self.attached(queue)
        elif not count:
            self.detached(queue)
            self._transport.drop_queue(queue.name, if_unused=True)  # made again when somebody comes to read

    def drop_idle_queues(self) -> None:
        before = self._clock() - self._idle_s
        idle: Sequence[str] = [queue for queue, since in self._unused.items() if since < before]
        for queue in idle:
            del self._unused[queue]
            self._transport.drop_queue(queue, if_unused=True)

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

    async def _read(self, queue: GroupQueue, page: ReadPage) -> Page:
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
        return Page(entries, is_last)
