"""The relay: broker on one side, store on the other. Composes the feeds, the intake and the reports.

Everything here happens on the event loop. What is committed is told in the order of the commits (`then` of
`Database.write`), which the feeds rely on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from farcall.service.cluster.plan import slot_of
from farcall.service.cluster.shares import Share, SoleShare
from farcall.service.cluster.signals import EndpointChange
from farcall.service.db.engine import Database
from farcall.service.endpoints.store import read_endpoint_queues, write_reports
from farcall.service.managers.runner import UserEndpointStarts
from farcall.service.ops.measures import Measures
from farcall.service.relay import store
from farcall.service.relay.attachments import Attachments
from farcall.service.relay.feeding import TaskFeeds
from farcall.service.relay.intake import Intake
from farcall.service.relay.messages import CodeCache, Outgoing
from farcall.service.relay.onlookers import Onlookers
from farcall.service.relay.reports import Reports
from farcall.service.relay.results import TaskRef
from farcall.service.relay.sides import BrokerSide
from farcall.service.relay.store import EndedTask, Recorded, StoredTask, SubmissionHeaders
from farcall.service.relay.sweeper import Sweeper
from farcall.service.relay.transport import Incoming
from farcall.service.settings import ServiceSettings
from farcall.wire.errors import ServiceUnavailable
from farcall.wire.topology import (
    GroupQueue,
    UserKind,
    command_queue,
    command_queue_owner,
    is_endpoint_queue,
    task_queue,
    task_queue_owner,
)

__all__ = ["Relay"]

_logger = logging.getLogger(__name__)
_RETRY_S = 1.0
"""After a failure of the store only."""


class Relay:
    """Made on the event loop; `start` before use, `stop` before the database closes.

    Attributes:
        codes: the code of functions in memory.
        reports: who is online.
        intake: takes results in; its counters are for the operator.
        measures: what is counted on the way.
        on_ended: told of each task that has ended, after the commit.
        starts: asks managers for their user endpoints.
        onlookers: told what happens at endpoints.
        share: the endpoints that are this process's to feed; to be set before `start`.

    Args:
        side: the broker.
        attachments: writes down who is attached; None: nobody else needs to know.
        has_others: other processes use the store as well.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        db: Database,
        side: BrokerSide,
        clock: Callable[[], float],
        measures: Measures,
        *,
        attachments: Attachments | None = None,
        has_others: bool = False,
    ) -> None:
        transport, results = side.transport, side.results
        self.share: Share = SoleShare()
        self._attachments = attachments
        self.measures = measures
        self.on_ended: Callable[[Iterable[TaskRef]], None] | None = None
        self.onlookers = Onlookers()
        self._settings = settings
        self._db = db
        self._transport = transport
        self.codes = CodeCache(settings.code_cache_bytes)
        self.reports = Reports(clock)
        self.intake = Intake(
            db,
            transport.ack_results,
            self._recorded,
            results.again,
            clock,
            batch_messages=settings.result_batch_messages,
            batch_bytes=settings.result_batch_bytes,
            stored_s=measures.stored_s,
        )
        self._tasks = TaskFeeds(
            db,
            transport,
            self.codes,
            side.window,
            settings.page_tasks,
            measures=measures,
            last_report=self.reports.latest,
            clock=clock,
            has_others=has_others,
        )
        self._results = results
        self.starts = UserEndpointStarts(
            db,
            transport.publish,
            self.ended_here,
            is_mine=lambda endpoint_id: self.share.is_mine(endpoint_id),
            batch=settings.sweep_batch,
            clock=clock,
        )
        self.reports.on_error = self.starts.reported_error
        self.reports.on_report = self._reported
        self._sweeper = Sweeper(
            settings,
            db,
            clock,
            on_ended=self.ended_here,
            on_idle=results.drop_idle_queues,
            is_on=lambda: self.share.sweeps,
        )
        self._clock = clock
        self._flush_timer: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Open the broker's side and begin."""
        self._transport.open(self)
        self._sweeper.start()

    def faults(self) -> list[str]:
        """What keeps the relay from working; empty if nothing does."""
        faults = [] if self._sweeper.is_running else ["the relay is not running"]
        broker = self._transport.fault()
        return faults if broker is None else [*faults, broker]

    async def depths(self) -> Mapping[str, tuple[int, int]]:
        """Messages of the broker by kind of queue: waiting, and delivered but not acknowledged."""
        return await self._transport.depths()

    async def settle(self) -> None:
        """Wait for what goes on in the background (tasks of a deleted endpoint being ended, reports being written)."""
        while self._jobs:
            await asyncio.gather(*self._jobs)

    async def stop(self) -> None:
        """Finish what is being written. Connections are the caller's to close."""
        await self._sweeper.stop()
        await self.intake.stop()
        await self.starts.stop()
        await self._tasks.custodian.stop()
        await self.settle()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        await self._transport.close()
        await self._flush()
        if self._attachments is not None:
            await self._attachments.stop()

    # --- Told by the routes ----------------------------------------------------------------------------------

    def submitted(
        self, endpoint_id: str, tasks: Sequence[StoredTask], shared: SubmissionHeaders, manager_id: str | None = None
    ) -> None:
        """Tasks have been committed.

        Args:
            manager_id: who starts the endpoint, if it does not start by itself.
        """
        if manager_id is not None and self.share.is_mine(endpoint_id):
            self._transport.ensure_queue(task_queue(endpoint_id))
            self.starts.submitted(endpoint_id, manager_id)
        self._tasks.committed(endpoint_id, tasks, shared)
        self.onlookers.submitted(endpoint_id, len(tasks), manager_id)

    def ended_here(self, recorded: Recorded) -> None:
        """Tasks have been ended by the service itself, not by a result of their endpoint."""
        self._recorded(recorded)
        self._tasks.withdraw(each.task for each in recorded.ended)

    def command(self, manager_id: str, message: Outgoing) -> None:
        """Send a command to a manager."""
        self._transport.publish(command_queue(manager_id), [message])

    def group_submitted(self, owner_id: str, group_id: str) -> None:
        """A client has submitted tasks of a group, and will read its shared queue."""
        self._results.submitted(GroupQueue(identity_id=owner_id, task_group_id=group_id))

    def ensure_queue(self, queue: str) -> None:
        """Make a queue that somebody is about to read, as the embedded broker's authority says: no queue has to
        exist for those who do not come.
        """
        group = GroupQueue.from_name(queue)
        if group is not None:
            self._results.ensure_queue(group)
        elif is_endpoint_queue(queue):
            self._transport.ensure_queue(queue)

    async def prepare_queue(self, queue: str) -> None:
        """The same, for a broker elsewhere: the queue is there when this returns, if it can be."""
        group = GroupQueue.from_name(queue)
        if group is not None:
            await self._results.prepare_queue(group)
        elif is_endpoint_queue(queue):
            await self._transport.prepare_queue(queue)

    def endpoint_registered(self, endpoint_id: str, generation: int, *, is_direct: bool) -> None:
        """A new registration: older logins are cut, and feeding will begin anew when the new one attaches."""
        self._transport.cut(UserKind.ENDPOINT, endpoint_id, generation, "this endpoint has been registered again")
        queue = task_queue(endpoint_id) if is_direct else command_queue(endpoint_id)
        if self.share.is_mine(endpoint_id):
            self._transport.ensure_queue(queue)
            self._transport.purge(queue)
        else:
            self._begin(self._transport.prepare_queue(queue))
        self.onlookers.changed(endpoint_id)

    def endpoints_locked(self, locked: Iterable[tuple[str, int]]) -> None:
        """An endpoint was stopped remotely, with its user endpoints: ids, and the generation of the next login."""
        for endpoint_id, generation in locked:
            self.endpoint_locked(endpoint_id, generation)

    def endpoint_locked(self, endpoint_id: str, generation: int) -> None:
        """An endpoint's logins older than `generation` are void."""
        self._transport.cut(UserKind.ENDPOINT, endpoint_id, generation, "this endpoint was stopped remotely")

    def endpoints_deleted(self, deleted: Iterable[tuple[str, int]]) -> None:
        """An endpoint is gone, with its user endpoints; their open tasks end, which takes its time if there are very
        many.
        """
        for endpoint_id, generation in deleted:
            self._endpoint_deleted(endpoint_id, generation)

    def _endpoint_deleted(self, endpoint_id: str, generation: int) -> None:
        self._transport.cut(UserKind.ENDPOINT, endpoint_id, generation, "this endpoint was deleted")
        self._forget(endpoint_id)
        self._begin(self._sweeper.finish_deletion(endpoint_id))
        self.onlookers.changed(endpoint_id)

    def credential_revoked(self, identity_id: str, generation: int) -> None:
        """An identity's broker logins older than `generation` are void."""
        self._transport.cut(UserKind.SDK, identity_id, generation, "the credential was revoked")

    # --- Told by other processes (`cluster.hearing`) ---------------------------------------------------------

    def added_elsewhere(self, endpoint_id: str) -> None:
        """An endpoint has new tasks."""
        self._tasks.committed_elsewhere(endpoint_id)
        if self.share.is_mine(endpoint_id) and not self._tasks.is_attached(endpoint_id):
            self._transport.ensure_queue(task_queue(endpoint_id))
        if self.share.is_mine(endpoint_id):
            self.starts.submitted(endpoint_id)
        self.onlookers.changed(endpoint_id)

    def ended_elsewhere(self, endpoint_id: str, seqs: Sequence[int]) -> None:
        """Tasks of an endpoint have ended."""
        self._tasks.ended_elsewhere(endpoint_id, seqs)
        self.starts.progressed([endpoint_id])
        self.onlookers.changed(endpoint_id)

    def withdrawn_elsewhere(self, endpoint_id: str, tasks: Sequence[tuple[int, str]]) -> None:
        """Tasks of an endpoint were ended by the service: (number, id)."""
        self._tasks.withdraw_elsewhere(endpoint_id, tasks)
        if self.share.is_mine(endpoint_id):
            # Unlike a result, this end does not come again from the broker if its process went before it told.
            self._begin(self._tell_again([task_id for _, task_id in tasks]))

    def endpoint_changed_elsewhere(self, endpoint_id: str, generation: int, why: EndpointChange) -> None:
        """An endpoint was registered, locked or deleted."""
        self.onlookers.changed(endpoint_id)
        if not self.share.is_mine(endpoint_id):
            return
        self._transport.cut(UserKind.ENDPOINT, endpoint_id, generation, f"this endpoint was {why}")
        if why == "registered":
            self._transport.ensure_queue(task_queue(endpoint_id))
        elif why == "managing":
            self._transport.ensure_queue(command_queue(endpoint_id))
        elif why == "deleted":
            self._forget(endpoint_id)

    def credential_revoked_elsewhere(self, identity_id: str, generation: int) -> None:
        """An identity's broker logins older than `generation` are void."""
        if self.share.sweeps:
            self.credential_revoked(identity_id, generation)

    # --- Told by the share -----------------------------------------------------------------------------------

    def on_gained(self, slots: frozenset[int]) -> None:
        """Endpoints of these slots are ours: begin with each anew."""
        self._begin(self._watch(slots))

    def on_lost(self, slots: frozenset[int]) -> None:
        """They are not: somebody else fills their queues."""
        for endpoint_id in {*self._tasks.endpoint_ids, *self.starts.manager_ids}:
            if slot_of(endpoint_id) in slots:
                self._release(endpoint_id)
        self._transport.unwatch(
            lambda queue: slot_of(task_queue_owner(queue) or command_queue_owner(queue) or "") in slots
        )

    # --- Told by the transport -------------------------------------------------------------------------------

    def on_results(self, deliveries: Sequence[Incoming]) -> None:
        self.intake.take(deliveries)

    def on_reports(self, deliveries: Sequence[Incoming]) -> None:
        if self.reports.take(deliveries):
            self._flush_soon()

    def on_consumers(self, queue: str, count: int) -> None:
        endpoint_id = task_queue_owner(queue)
        if endpoint_id is not None:
            self._on_endpoint(endpoint_id, count)
            return
        manager_id = command_queue_owner(queue)
        if manager_id is not None:
            self._on_manager(manager_id, count)
            return
        group = GroupQueue.from_name(queue)
        if group is not None:
            self._results.consumers(group, count)

    def on_settled(self, queue: str, count: int) -> None:
        endpoint_id = task_queue_owner(queue)
        if endpoint_id is not None:
            self._tasks.settled(endpoint_id, count)
            return
        group = GroupQueue.from_name(queue)
        if group is not None and self._results.settled(group, count):
            self._flush_soon()

    def _on_endpoint(self, endpoint_id: str, count: int) -> None:
        if not self.share.is_mine(endpoint_id):
            return  # its queue is another process's to empty and to fill
        was_attached = self._tasks.is_attached(endpoint_id)
        if count and not was_attached:
            self.reports.attached(endpoint_id)
            if self._attachments is not None:
                self._attachments.attached(endpoint_id)
            self._tasks.attached(endpoint_id)
            self.starts.endpoint_attached(endpoint_id)
            self.onlookers.changed(endpoint_id)
            _logger.info("Endpoint attached", extra={"event": "endpoint.attached", "endpoint_id": endpoint_id})
        elif not count:
            self.reports.detached(endpoint_id)
            if self._attachments is not None:
                self._attachments.detached(endpoint_id)
            self._tasks.detached(endpoint_id)
            self.starts.endpoint_detached(endpoint_id)
            if was_attached:
                self.onlookers.away(endpoint_id)
                _logger.info("Endpoint detached", extra={"event": "endpoint.detached", "endpoint_id": endpoint_id})

    def _on_manager(self, manager_id: str, count: int) -> None:
        if not self.share.is_mine(manager_id):
            return
        if count:
            self.reports.attached(manager_id)
            self.starts.manager_attached(manager_id)
        else:
            self.reports.detached(manager_id)
            self.starts.manager_detached(manager_id)
        if self._attachments is not None:
            (self._attachments.attached if count else self._attachments.detached)(manager_id)
        self.onlookers.changed(manager_id)
        event = "attached" if count else "detached"
        _logger.info("Manager %s", event, extra={"event": f"manager.{event}", "endpoint_id": manager_id})

    # --- Inside ----------------------------------------------------------------------------------------------

    async def _watch(self, slots: frozenset[int]) -> None:
        """See to the queues of the endpoints in these slots, as if for the first time."""
        while slots & self.share.slots:
            try:
                found = await self._db.read(read_endpoint_queues)
            except Exception:
                _logger.exception("The endpoints could not be read; trying again", extra={"event": "relay.list_failed"})
                await asyncio.sleep(_RETRY_S)
                continue
            mine = [each for each in found if slot_of(each) in slots and self.share.is_mine(each)]
            for endpoint_id in mine:
                self._release(endpoint_id)
            self._transport.unwatch({found[each] for each in mine}.__contains__)
            for endpoint_id in mine:
                self._transport.ensure_queue(found[endpoint_id])
            return

    def _release(self, endpoint_id: str) -> None:
        self._tasks.released(endpoint_id)
        self.starts.forget(endpoint_id)
        self.reports.detached(endpoint_id)
        if self._attachments is not None:
            self._attachments.forget(endpoint_id)

    def _forget(self, endpoint_id: str) -> None:
        """It was deleted."""
        for queue in (task_queue(endpoint_id), command_queue(endpoint_id)):
            self._transport.drop_queue(queue, if_unused=False)
        self._tasks.forget(endpoint_id)
        self.starts.forget(endpoint_id)
        self.reports.forget(endpoint_id)
        if self._attachments is not None:
            self._attachments.forget(endpoint_id)

    async def _tell_again(self, task_ids: Sequence[str]) -> None:
        try:
            await self._results.again(await self._db.read(store.read_ended, task_ids))
        except Exception:
            _logger.exception("Ended tasks could not be told again", extra={"event": "relay.again_failed"})

    def _begin(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    def _reported(self, endpoint_id: str, state: Mapping[str, Any]) -> None:
        self._tasks.custodian.reported(endpoint_id, state)
        self.onlookers.reported(endpoint_id, state)

    def _recorded(self, recorded: Recorded) -> None:
        by_group: dict[tuple[str, str], list[EndedTask]] = {}
        by_endpoint: dict[str, list[int]] = {}
        outcomes = self.measures.ended
        for each in recorded.ended:
            is_success = each.result.error_code is None
            outcomes[is_success] += 1
            by_endpoint.setdefault(each.task.endpoint_id, [0, 0])[is_success] += 1
            by_group.setdefault((each.task.owner_id, each.task.group_id), []).append(each)
        for (owner_id, group_id), ended in by_group.items():
            self._results.committed(owner_id, group_id, ended, recorded.completed_at)
        self._tasks.ended(each.task for each in recorded.ended)
        self.starts.progressed(by_endpoint)
        if self.on_ended is not None:
            self.on_ended(each.task for each in recorded.ended)
        for endpoint_id, (failed, succeeded) in by_endpoint.items():
            self.onlookers.ended(endpoint_id, succeeded, failed)

    def _flush_soon(self) -> None:
        if self._flush_timer is None:
            loop = asyncio.get_running_loop()
            self._flush_timer = loop.call_later(self._settings.presence_write_period_s, self._start_flush)

    def _start_flush(self) -> None:
        self._flush_timer = None
        self._begin(self._flush())

    async def _flush(self) -> None:
        """Write reports and deliveries. If that fails, the next ones say it again."""
        unwritten, delivered = self.reports.take_unwritten(), self._results.unwritten
        try:
            if unwritten.reports:
                await self._db.write(write_reports, unwritten.reports)
            if unwritten.moves:
                await self._db.write(store.move_tasks, unwritten.moves)
            if delivered:
                await self._db.write(store.write_delivered, delivered)
                self._results.written(delivered)
        except ServiceUnavailable as exc:
            _logger.warning("Reports were not written", extra={"event": "relay.flush_failed", "reason": str(exc)})
        except Exception:
            _logger.exception("Reports could not be written", extra={"event": "relay.flush_failed"})
