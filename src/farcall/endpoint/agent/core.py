"""What the agent does about everything that happens: the state machine of one endpoint's tasks.

Decides only. `AgentCore.turn` takes what has gathered since the last turn and the time, and returns what is to be
done: journal writes, acknowledgements, tasks for the engine, results to publish, reports, the end. `runner` does
it. The promise kept here: a task that was accepted ends, with one outcome, which is published until the service
confirms it; and it is started at most once plus the allowed number of retries.

    delivered ──► QUEUED ──► STARTED ──► FINISHED ──► CONFIRMED ──► forgotten
                    ▲           │            ▲
                    └───────────┘            │ not allowed, unreadable: at once
          lost, and retries are left; or came back unrun
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from farcall.endpoint.agent import texts
from farcall.endpoint.agent.backlog import Backlog
from farcall.endpoint.agent.changes import Changes
from farcall.endpoint.agent.details import place_of, with_attempts
from farcall.endpoint.agent.events import (
    Actions,
    AgentPolicy,
    CancelAnswered,
    Connected,
    Delivered,
    Disconnected,
    EngineDied,
    EngineFailed,
    EngineFinished,
    EngineStarted,
    EngineStopped,
    Event,
    HandOver,
    Recovered,
    ReportDue,
    ResultConfirmed,
    ResultRefused,
    StopReason,
    StopRequested,
    StoredCopyLost,
)
from farcall.endpoint.agent.intake import CancelWish, Incoming, Unreadable
from farcall.endpoint.agent.outbox import Outbox, Remembered
from farcall.endpoint.agent.pacing import Load, ReportPacer
from farcall.endpoint.agent.record import TaskRecord
from farcall.endpoint.auditlog import AuditEntry, AuditState
from farcall.endpoint.engines.base import CODE_WORKER_LOST, EngineFailure
from farcall.endpoint.journal import Phase
from farcall.wire.states import TaskState

__all__ = ["AgentCore"]

ENGINE_RESTART_DELAYS_S: Final = (1.0, 5.0, 25.0)
FLUSH_S: Final = 10.0
"""How long a stopping agent waits for results to be confirmed; they stay in the journal anyway."""


class AgentCore:
    """The agent's state. Give it `Recovered` first; then any events in any order.

    Times: `now_s` is monotonic seconds (periods, delays), `unix_s` is the wall clock (what people and the journal
    see).
    """

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy = policy
        self._tasks: dict[str, TaskRecord] = {}
        self._next_seq = 1
        self._backlog = Backlog(policy)
        self._held: dict[str, list[Incoming]] = {}  # copies of one task together
        self._started: dict[str, TaskRecord] = {}
        self._outbox = Outbox(policy)
        self._remembered = Remembered(policy)
        self._pacer = ReportPacer(policy)
        self._changes = Changes()
        self._total = 0
        self._engine_ready = False
        self._engine_deaths = 0
        self._stop: StopReason | None = None
        self._stop_at_once = False
        self._flush_until_s: float | None = None
        self._now_s = 0.0
        self._unix_s = 0.0
        self._actions = Actions()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Recovered: self._on_recovered,
            Delivered: self._on_delivered,
            EngineStarted: self._on_engine_started,
            EngineFinished: self._on_finished,
            EngineFailed: self._on_failed,
            EngineDied: self._on_engine_died,
            CancelAnswered: self._on_cancel_answered,
            EngineStopped: self._on_engine_stopped,
            ResultConfirmed: self._on_confirmed,
            ResultRefused: self._on_refused,
            StoredCopyLost: self._on_stored_copy_lost,
            Connected: self._on_connected,
            Disconnected: self._on_disconnected,
            StopRequested: self._on_stop,
        }

    @property
    def load(self) -> Load:
        """What is here now. `queued` counts only what is journaled."""
        return Load(len(self._backlog), len(self._started), len(self._outbox))

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    @property
    def total(self) -> int:
        """Tasks that came to this process, and those that an earlier one had not finished."""
        return self._total

    @property
    def idle_until_s(self) -> float | None:
        """When it ends if nothing comes, in monotonic seconds; None: it does not, or is not idle."""
        return self._pacer.idle_until_s(self.load) if self._stop is None else None

    def turn(self, events: Iterable[Event], *, now_s: float, unix_s: float, capacity: int) -> Actions:
        """Take what happened and say what to do.

        Args:
            events: in the order in which they happened; none: only time has passed.
            now_s: monotonic seconds, never less than at the turn before.
            unix_s: the wall clock.
            capacity: how many more tasks the engine wants now.

        Returns:
            What to do, in the order given there. `wake_at_s` says when to call again at the latest if nothing
            happens.
        """
        self._now_s, self._unix_s = now_s, unix_s
        actions = self._actions = Actions()
        for event in events:
            self._handlers[type(event)](event)
        self._admit_held()
        self._hand_over(capacity)
        actions.publish = self._outbox.take_due(now_s=now_s)
        self._forget_old()
        self._end_if_done()
        self._report_if_due()
        actions.journal = self._changes.take(now_s=now_s, is_last=actions.end is not None)
        actions.backlog = len(self._backlog) + len(self._held)
        actions.wake_at_s = self._wake_at()
        return actions

    def _wake_at(self) -> float | None:
        times = (
            self._pacer.next_s(self.load, now_s=self._now_s),
            self._outbox.wake_at_s,
            self._changes.wake_at_s,
            self._flush_until_s,
        )
        return min((time_s for time_s in times if time_s is not None), default=None)

    # Coming in -------------------------------------------------------------------------------------------------

    def _on_recovered(self, event: Recovered) -> None:
        for entry in event.entries:
            record = TaskRecord.from_entry(entry)
            self._tasks[record.task_id] = record
            self._next_seq = max(self._next_seq, record.seq + 1)
            self._total += record.phase in (Phase.QUEUED, Phase.STARTED)
            if record.phase is Phase.CONFIRMED:
                self._remember(record)
            elif record.phase is Phase.FINISHED:
                self._outbox.add(record.task_id, record.seq, record.result_bytes)
            elif record.phase is Phase.STARTED:
                self._recover_started(record)
            elif not self._refuse_if_not_allowed(record):
                self._backlog.add(record)

    def _recover_started(self, record: TaskRecord) -> None:
        retries = self._policy.max_retries
        text = texts.lost_in_restart_text(
            endpoint_name=self._policy.endpoint_name,
            started_s=record.started_s,
            attempts=record.attempts,
            retries=retries,
        )
        record.notes = (*record.notes, text)
        if record.attempts <= retries:
            record.phase = Phase.QUEUED
            self._changes.touch(record)
            self._backlog.add(record)
            self._audit(record, AuditState.RECEIVED)
            return
        if len(record.notes) > 1:
            text = texts.system_failure_text(record.notes, retries=retries)
        self._fail(record, texts.CODE_ENDPOINT_LOST, text)

    def _on_delivered(self, event: Delivered) -> None:
        for item in event.items:
            if type(item) is Incoming:
                self._on_task(item)
            elif isinstance(item, CancelWish):
                self._on_cancel(item)
            elif isinstance(item, Unreadable):
                self._on_unreadable(item)

    def _on_task(self, item: Incoming) -> None:
        task_id = item.task.task_id
        known = self._tasks.get(task_id)
        if known is not None:
            self._again(known, item.token)
        elif self._stop is not None:
            return  # not acknowledged: it stays with the service for whoever comes next
        elif self._backlog.has_room and not self._held:
            self._accept(item)
        else:
            self._held.setdefault(task_id, []).append(item)

    def _again(self, record: TaskRecord, token: Any) -> None:
        """A task that is here already: queued and started ones go on; a result is published again."""
        self._actions.acks.append(token)
        if record.phase is Phase.CONFIRMED and record.result_bytes:
            self._remembered.remove(record.task_id)
            record.phase = Phase.FINISHED
            record.confirmed_s = None
            self._changes.touch(record)
            self._outbox.add(record.task_id, record.seq, record.result_bytes)

    def _accept(self, item: Incoming) -> None:
        record = self._new_record(item.task.task_id, item.task.function_id)
        record.headers, record.body = item.headers, item.body
        record.body_bytes = len(item.body)
        self._actions.acks.append(item.token)
        if not self._refuse_if_not_allowed(record):
            self._changes.touch(record)
            self._backlog.add(record, item.task)
            self._pacer.note(record.task_id, TaskState.WAITING_FOR_NODES, unix_s=self._unix_s)

    def _new_record(self, task_id: str, function_id: str) -> TaskRecord:
        record = TaskRecord(self._next_seq, task_id, function_id, self._unix_s)
        record.is_new = True
        self._next_seq += 1
        self._tasks[task_id] = record
        self._total += 1
        self._pacer.moved()
        self._audit(record, AuditState.RECEIVED)
        return record

    def _audit(self, record: TaskRecord, state: AuditState, packed: bytes = b"") -> None:
        if self._policy.is_audited:
            place = place_of(packed)
            entry = AuditEntry(
                task_id=record.task_id, function_id=record.function_id, state=state, block=place.block, job=place.job
            )
            self._actions.audit.append(entry)

    def _on_unreadable(self, item: Unreadable) -> None:
        known = self._tasks.get(item.task_id) if item.task_id else None
        if known is not None:
            self._again(known, item.token)
            return
        self._actions.acks.append(item.token)
        if item.task_id is not None:
            record = self._new_record(item.task_id, item.function_id)
            self._fail(record, texts.CODE_UNREADABLE, texts.unreadable_text(item.reason))

    def _refuse_if_not_allowed(self, record: TaskRecord) -> bool:
        allowed = self._policy.allowed_functions
        if allowed is None or record.function_id in allowed:
            return False
        policy = self._policy
        text = texts.not_allowed_text(record.function_id, policy.endpoint_name, policy.endpoint_id)
        details = {"fid": record.function_id, "eid": policy.endpoint_id}
        self._fail(record, texts.CODE_NOT_ALLOWED, text, details)
        return True

    def _admit_held(self) -> None:
        if self._stop is not None:
            self._held.clear()
        while self._held and self._backlog.has_room:
            first, *copies = self._held.pop(next(iter(self._held)))
            self._accept(first)
            self._actions.acks.extend(copy.token for copy in copies)

    # Cancelling ------------------------------------------------------------------------------------------------

    def _on_cancel(self, wish: CancelWish) -> None:
        self._actions.acks.append(wish.token)
        self._actions.acks.extend(held.token for held in self._held.pop(wish.task_id, ()))
        record = self._tasks.get(wish.task_id)
        if record is None:
            return
        if record.phase is Phase.QUEUED:
            self._backlog.remove(record)
            self._close_without_result(record)
        elif record.phase is Phase.STARTED:
            record.is_cancelled = True
            self._actions.cancels.append(record.task_id)

    def _on_cancel_answered(self, answer: CancelAnswered) -> None:
        record = self._started.get(answer.task_id)
        if record is None or not answer.was_given_back:
            return
        record.attempts -= 1
        self._return_to_queue(record)

    def _close_without_result(self, record: TaskRecord) -> None:
        """The service already has this task as ended; it is only remembered, to recognise a late copy."""
        record.phase = Phase.CONFIRMED
        record.confirmed_s = self._unix_s
        self._remember(record)
        self._changes.touch(record)
        self._pacer.ended(record.task_id)
        self._audit(record, AuditState.EXEC_END)

    # The engine ------------------------------------------------------------------------------------------------

    def _hand_over(self, capacity: int) -> None:
        if not self._engine_ready or self._stop is not None:
            return
        for _ in range(min(capacity, len(self._backlog))):
            record, task = self._backlog.take()
            record.phase = Phase.STARTED
            record.attempts += 1
            record.started_s = self._unix_s
            self._started[record.task_id] = record
            self._changes.touch(record)
            self._audit(record, AuditState.EXEC_START)
            self._actions.hand_over.append(HandOver(seq=record.seq, task_id=record.task_id, task=task))
            self._pacer.note(record.task_id, TaskState.RUNNING, unix_s=self._unix_s)

    def _return_to_queue(self, record: TaskRecord) -> None:
        """A started task that is to be started again, before those that have not been yet."""
        del self._started[record.task_id]
        if record.is_cancelled:
            self._close_without_result(record)
            return
        record.phase = Phase.QUEUED
        self._changes.touch(record)
        self._backlog.add(record, is_first=True)
        self._audit(record, AuditState.RECEIVED)
        self._pacer.note(record.task_id, TaskState.WAITING_FOR_NODES, unix_s=self._unix_s)

    def _on_engine_started(self, _: EngineStarted) -> None:
        self._engine_ready = True

    def _on_finished(self, event: EngineFinished) -> None:
        record = self._started.pop(event.task_id, None)
        if record is not None:  # else it is a second answer, or late: the first outcome counts
            self._engine_deaths = 0
            self._finish(record, event.packed_result)

    def _on_failed(self, event: EngineFailed) -> None:
        record = self._started.get(event.task_id)
        if record is not None:
            self._started_task_failed(record, event.failure)

    def _started_task_failed(self, record: TaskRecord, failure: EngineFailure) -> None:
        retries = self._policy.max_retries
        if not failure.is_system_failure:
            del self._started[record.task_id]
            self._fail(record, failure.code, failure.text)
            return
        if not failure.may_have_run:
            record.returns += 1
            if record.returns <= self._policy.free_returns:
                record.attempts -= 1
                self._return_to_queue(record)
                return
        record.notes = (*record.notes, failure.text)
        if record.attempts <= retries or record.is_cancelled:
            self._return_to_queue(record)
            return
        del self._started[record.task_id]
        self._fail(record, failure.code, texts.system_failure_text(record.notes, retries=retries))

    def _on_engine_died(self, event: EngineDied) -> None:
        self._engine_ready = False
        self._engine_deaths += 1
        lost = EngineFailure(
            code=CODE_WORKER_LOST, text=f"The endpoint's engine failed: {event.reason}", is_system_failure=True
        )
        for record in list(self._started.values()):
            self._started_task_failed(record, lost)
        if self._stop is not None:
            return
        if self._engine_deaths < self._policy.engine_deaths:
            delays = ENGINE_RESTART_DELAYS_S
            self._actions.restart_engine_in_s = delays[min(self._engine_deaths, len(delays)) - 1]
            return
        text = texts.engine_dead_text(event.reason, self._policy.endpoint_name)
        while len(self._backlog):
            record, _ = self._backlog.take()
            self._fail(record, texts.CODE_ENGINE_FAILED, text)
        self._begin_stop(StopReason.ENGINE)

    # Results ---------------------------------------------------------------------------------------------------

    def _fail(self, record: TaskRecord, code: str, text: str, details: dict[str, str] | None = None) -> None:
        packed = texts.failure_message(
            record.task_id,
            code=code,
            text=text,
            endpoint_id=self._policy.endpoint_id,
            unix_s=self._unix_s,
            details=details,
        )
        self._finish(record, packed)

    def _finish(self, record: TaskRecord, packed: bytes) -> None:
        packed = with_attempts(packed, record.attempts)
        record.phase = Phase.FINISHED
        record.body_bytes = 0
        record.headers, record.body = "", b""
        record.result_bytes = len(packed)
        self._changes.store_result(record, packed)
        self._outbox.add(record.task_id, record.seq, len(packed), packed)
        self._audit(record, AuditState.EXEC_END, packed)
        self._pacer.ended(record.task_id)
        self._pacer.moved()

    def _on_confirmed(self, event: ResultConfirmed) -> None:
        record = self._tasks.get(event.task_id)
        if record is not None and self._outbox.confirm(event.task_id):
            record.phase = Phase.CONFIRMED
            record.confirmed_s = self._unix_s
            self._remember(record)
            self._changes.touch_lazily(record)
            self._pacer.moved()

    def _on_refused(self, event: ResultRefused) -> None:
        self._outbox.refuse(event.task_id, now_s=self._now_s)

    def _on_stored_copy_lost(self, event: StoredCopyLost) -> None:
        record = self._tasks.get(event.task_id)
        if record is None or record.phase not in (Phase.STARTED, Phase.FINISHED):
            return
        self._started.pop(record.task_id, None)
        self._outbox.drop(record.task_id)
        self._fail(record, texts.CODE_ENDPOINT_LOST, texts.stored_copy_lost_text(self._policy.endpoint_name))

    def _remember(self, record: TaskRecord) -> None:
        record.body_bytes = 0
        self._remembered.add(
            record.task_id, confirmed_s=record.confirmed_s or self._unix_s, size_bytes=record.result_bytes
        )

    def _forget_old(self) -> None:
        for task_id in self._remembered.take_forgettable(unix_s=self._unix_s):
            self._changes.forget(self._tasks.pop(task_id))

    # Connection, reports, the end ------------------------------------------------------------------------------

    def _on_connected(self, _: Connected) -> None:
        self._pacer.connected()

    def _on_disconnected(self, _: Disconnected) -> None:
        self._pacer.disconnected()
        self._held.clear()  # their acknowledgements are void; they are delivered again

    def _report_if_due(self) -> None:
        load = self.load
        is_end = self._actions.end is not None
        due_s = self._pacer.next_s(load, now_s=self._now_s)
        if not is_end and (due_s is None or self._now_s < due_s):
            return
        self._actions.report = ReportDue(
            is_active=not is_end,
            queued=load.queued + len(self._held),
            started=load.started,
            total=self._total,
            transitions=self._pacer.take_transitions(load),
        )
        enough = self._pacer.reported(load, now_s=self._now_s)
        if enough is not None and self._stop is None:
            self._begin_stop(enough)

    def _on_stop(self, event: StopRequested) -> None:
        self._stop_at_once = self._stop_at_once or event.at_once
        if self._stop is None:
            self._begin_stop(event.reason)

    def _begin_stop(self, reason: StopReason) -> None:
        self._stop = reason
        self._actions.stop_intake = True
        # What no worker has yet goes back to the queue, so that the next start does not take it for lost.
        self._actions.cancels.extend(self._started)
        self._actions.stop_engine = True

    def _on_engine_stopped(self, _: EngineStopped) -> None:
        self._engine_ready = False
        self._flush_until_s = self._now_s + FLUSH_S

    def _end_if_done(self) -> None:
        if self._stop is None:
            return
        if self._stop_at_once:
            self._actions.end = self._stop
        elif self._flush_until_s is not None:
            nothing_to_wait_for = not len(self._outbox) or not self._pacer.is_connected
            if nothing_to_wait_for or self._now_s >= self._flush_until_s:
                self._actions.end = self._stop
