"""Does what `core` decides: one thread that drains one inbox, writes the journal, then acts.

Everything that happens (deliveries, the engine's answers, confirms, signals) is put into the inbox by whichever
thread notices it; a batch is what has gathered while the previous one was worked on. What could block (engine start
and shutdown, asking the service why) has threads of its own that report through the inbox. No decision is made here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from farcall.amqp import Delivery
from farcall.endpoint.agent.core import AgentCore
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
    Publish,
    Recovered,
    ReportDue,
    ResultConfirmed,
    ResultRefused,
    StopReason,
    StopRequested,
    StoredCopyLost,
)
from farcall.endpoint.agent.intake import Unreadable, read_delivery, read_task
from farcall.endpoint.agent.links import Links
from farcall.endpoint.agent.report import ProcessIdentity, status_report
from farcall.endpoint.auditlog import AuditLogUnwritable
from farcall.endpoint.engines.base import Engine, EngineFailure, EngineTask
from farcall.endpoint.journal import Journal, JournalBatch, JournalDamaged, JournalEntry, JournalUnavailable
from farcall.endpoint.origin import AuditSink
from farcall.wire.errors import MessageError

__all__ = ["AgentRunner", "AgentSettings", "Progress"]

log = logging.getLogger(__name__)

LAST_REPORT_S: Final = 5.0
"""How long to wait until the last report is confirmed."""

JOURNAL_PATIENCE_S: Final = 10.0
"""How long a stopping agent waits for a journal that cannot be written."""


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """What the runner needs beside the policy. `grace_s`: for running tasks when the agent stops."""

    config_text: str
    identity: ProcessIdentity
    grace_s: float = 10.0


class Progress(NamedTuple):
    """How far an agent is. `idle_until_s`: monotonic seconds when it ends if nothing comes; None: it does not."""

    is_connected: bool
    is_stopping: bool
    queued: int
    running: int
    executed: int
    idle_until_s: float | None


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Deliveries as they came."""

    deliveries: list[Delivery]


class _Demand:
    """Only time to look at the engine's capacity again."""


class _Reconnect:
    """The broker refused a credential that counts."""


_DEMAND: Final = _Demand()
_RECONNECT: Final = _Reconnect()
_LONGEST_REFUSED_S: Final = 15.0
_Item = Event | _Arrived | _Demand | _Reconnect


class AgentRunner:
    """Works one endpoint from `run` until it ends. Made and run by one thread; `stop` from any, also from a signal.

    Args:
        policy: what `core` decides by.
        settings: see there.
        journal, entries: open, and what it held.
        links: not started yet.
        engine_factory: makes and starts engines: given the callbacks, returns a started one or raises.
        why_refused: asked (in a thread) when the broker refuses the credential; returns a sentence for people, or
            None if the credential counts, and it should be tried again.
        on_connection: told whether the task queue is ours, on the runner's thread.
        on_progress: told of numbers whenever they change, on the runner's thread; returns at once.
        audit_log: open; wanted if the policy says that the endpoint is audited.
    """

    def __init__(
        self,
        policy: AgentPolicy,
        settings: AgentSettings,
        *,
        journal: Journal,
        entries: Sequence[JournalEntry],
        links: Links,
        engine_factory: Callable[[Any], Engine],  # Any: EngineCallbacks
        why_refused: Callable[[str], str | None],
        on_connection: Callable[[bool], None] = lambda is_connected: None,
        on_progress: Callable[[Progress], None] | None = None,
        audit_log: AuditSink | None = None,
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._journal = journal
        self._entries = entries
        self._links = links
        self._engine_factory = engine_factory
        self._why_refused = why_refused
        self._refusals = 0
        self._on_connection = on_connection
        self._on_progress = on_progress
        self._progress: Progress | None = None
        self._audit_log = audit_log
        self._core = AgentCore(policy)
        self._inbox: SimpleQueue[_Item] = SimpleQueue()
        self._deferred: list[_Item] = []
        self._engine: Engine | None = None
        self._running_engine: Engine | None = None  # what still has to be shut down, once
        self._engine_lock = threading.Lock()
        self._callbacks: _Callbacks | None = None
        self._engine_restart_at_s: float | None = None
        self._is_shutting_down = False
        self._is_connected = False
        self._backlog = 0
        self._wake_at_s: float | None = None
        self._end_text = ""

    @property
    def end_text(self) -> str:
        """Why it ended, for people, where there is more to say than the reason."""
        return self._end_text

    def start_engine(self) -> None:
        """Make and start the first engine. Blocks; call it before `run`, from any one thread.

        Raises:
            EngineStartFailed: it cannot run here.
        """
        callbacks = _Callbacks(self._inbox)
        engine = self._engine_factory(callbacks)
        with self._engine_lock:
            self._engine = self._running_engine = engine
            self._callbacks = callbacks

    def abandon(self) -> None:
        """In place of `run`: end the engine, if it was started."""
        self._shut_down_now()

    def stop(self, *, at_once: bool = False) -> None:
        """End in order; `at_once`: without waiting for tasks. Callable from any thread and from a signal handler."""
        self._inbox.put(StopRequested(at_once=at_once))

    def run(self) -> StopReason:
        """Work until the end. `start_engine` was called."""
        self._links.start(
            on_tasks=lambda deliveries: self._inbox.put(_Arrived(deliveries)),
            on_online=lambda: self._inbox.put(Connected()),
            on_offline=lambda: self._inbox.put(Disconnected()),
            on_refused=self._ask_why,
        )
        try:
            events: list[Event] = [Recovered(entries=self._entries), EngineStarted()]
            self._entries = ()
            while True:
                end = self._turn(events)
                if end is not None:
                    return end
                events = self._gather()
        except JournalDamaged as exc:
            self._end_text = str(exc)
            aside = self._journal.move_aside()
            log.critical(
                "The journal is damaged; the endpoint stops. The service sends unfinished tasks again.",
                extra={"event": "journal.damaged", "moved_to": str(aside), "reason": exc.reason},
            )
            return StopReason.JOURNAL
        except JournalUnavailable as exc:
            self._end_text = str(exc)
            return StopReason.JOURNAL
        except AuditLogUnwritable as exc:
            self._end_text = str(exc)
            log.critical(
                "The audit log cannot be written; the endpoint stops at once.",
                extra={"event": "audit.unwritable", "path": exc.path, "reason": exc.reason},
            )
            return StopReason.AUDIT
        finally:
            self._links.close()
            self._shut_down_now()

    # One turn --------------------------------------------------------------------------------------------------

    def _gather(self) -> list[Event]:
        """Wait for the first event, then take all that are there."""
        items, self._deferred = self._deferred, []
        if not items:
            try:
                items.append(self._inbox.get(timeout=self._timeout_s()))
            except Empty:
                self._restart_engine_if_due()
                return []
        try:
            while True:
                items.append(self._inbox.get_nowait())
        except Empty:
            pass
        self._restart_engine_if_due()
        return self._events(items)

    def _timeout_s(self) -> float | None:
        times = [at_s for at_s in (self._wake_at_s, self._engine_restart_at_s) if at_s is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _events(self, items: Iterable[_Item]) -> list[Event]:
        events: list[Event] = []
        for item in items:
            if isinstance(item, _Arrived):
                events.append(Delivered(items=[_read(delivery) for delivery in item.deliveries]))
            elif isinstance(item, _Reconnect):
                self._links.reconnect()
            elif not isinstance(item, _Demand):
                if isinstance(item, (Connected, Disconnected)):
                    self._connection_changed(isinstance(item, Connected))
                elif isinstance(item, EngineDied):
                    log.error("The engine failed.", extra={"event": "engine.died", "reason": item.reason})
                    self._end_text = f"The engine failed repeatedly: {item.reason}"
                events.append(item)
        if self._callbacks is not None:
            self._callbacks.demand_is_seen()
        return events

    def _turn(self, events: list[Event]) -> StopReason | None:
        capacity = self._engine.capacity() if self._engine is not None else 0
        actions = self._core.turn(events, now_s=time.monotonic(), unix_s=time.time(), capacity=capacity)
        self._wake_at_s = actions.wake_at_s
        if actions.journal and not self._write(actions.journal):
            return StopReason.REQUESTED  # told to end at once while the journal could not be written
        if actions.audit and self._audit_log is not None:
            self._audit_log.write(actions.audit)
        self._do(actions)
        if self._on_progress is not None:
            self._tell_progress(self._on_progress)
        return actions.end

    def _tell_progress(self, on_progress: Callable[[Progress], None]) -> None:
        core, load = self._core, self._core.load
        progress = Progress(
            is_connected=self._is_connected,
            is_stopping=core.is_stopping,
            queued=load.queued,
            running=load.started,
            executed=max(0, core.total - load.queued - load.started),
            idle_until_s=core.idle_until_s,
        )
        if progress != self._progress:
            self._progress = progress
            on_progress(progress)

    def _do(self, actions: Actions) -> None:
        if actions.acks:
            self._links.ack(actions.acks)
        if actions.cancels:
            self._cancel(actions.cancels)
        if actions.hand_over:
            self._hand_over(actions.hand_over)
        if actions.publish:
            self._publish(actions.publish)
        if actions.report is not None:
            self._report(actions.report)
        if actions.restart_engine_in_s is not None:
            self._engine_died(actions.restart_engine_in_s)
        if actions.stop_intake:
            self._links.stop_intake()
        if actions.stop_engine:
            self._begin_shutdown()
        if actions.backlog != self._backlog and self._engine is not None:
            self._backlog = actions.backlog
            self._engine.note_backlog(actions.backlog)

    # Journal ---------------------------------------------------------------------------------------------------

    def _write(self, batch: JournalBatch) -> bool:
        """Write, however long it takes: nothing may be done outside before. False: asked to end at once meanwhile."""
        delay_s = 0.5
        give_up_at_s: float | None = None
        while True:
            try:
                self._journal.write(batch)
                return True
            except JournalUnavailable as exc:
                log.error(
                    "The journal cannot be written; the endpoint waits with everything.",
                    extra={"event": "journal.unavailable", "reason": exc.reason, "retry_in_s": delay_s},
                )
                self._wait_for_events(delay_s)
                stops = [item for item in self._deferred if isinstance(item, StopRequested)]
                if any(stop.at_once for stop in stops):
                    return False
                if (stops or self._core.is_stopping) and give_up_at_s is None:
                    give_up_at_s = time.monotonic() + JOURNAL_PATIENCE_S
                if give_up_at_s is not None and time.monotonic() >= give_up_at_s:
                    raise
                delay_s = min(delay_s * 2, 30.0)

    def _wait_for_events(self, timeout_s: float) -> None:
        """Let time pass, but notice what comes in; it is handled later, in order."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                item = self._inbox.get(timeout=left_s)
            except Empty:
                return
            self._deferred.append(item)
            if isinstance(item, StopRequested):
                return

    # Engine ----------------------------------------------------------------------------------------------------

    def _hand_over(self, items: Sequence[HandOver]) -> None:
        stored = self._journal.tasks(item.seq for item in items if item.task is None)
        tasks: list[EngineTask] = []
        for item in items:
            task = item.task
            if task is None and item.seq in stored:
                try:
                    task = read_task(stored[item.seq].headers, stored[item.seq].body)
                except MessageError as exc:
                    log.error("A stored task cannot be read.", extra={"event": "task.unreadable", "reason": str(exc)})
            if task is None:
                self._inbox.put(StoredCopyLost(task_id=item.task_id))
            else:
                tasks.append(task)
        if tasks and self._engine is not None:
            self._engine.submit(tasks)

    def _cancel(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            given_back = self._engine.cancel(task_id) if self._engine is not None else False
            self._inbox.put(CancelAnswered(task_id=task_id, was_given_back=given_back))

    def _engine_died(self, restart_in_s: float) -> None:
        log.warning("A new engine is started.", extra={"event": "engine.restart", "in_s": restart_in_s})
        self._engine_restart_at_s = time.monotonic() + restart_in_s

    def _restart_engine_if_due(self) -> None:
        due_s = self._engine_restart_at_s
        if due_s is None or time.monotonic() < due_s or self._core.is_stopping:
            return
        self._engine_restart_at_s = None
        self._engine = None
        if self._callbacks is not None:
            self._callbacks.close()
        _in_thread("engine-restart", self._restart_engine)

    def _restart_engine(self) -> None:
        try:
            self._end_engine(0.0)
            self.start_engine()
            if self._is_shutting_down:
                self._end_engine(0.0)
                return
        except Exception as exc:
            log.exception("The engine did not start again.", extra={"event": "engine.restart_failed"})
            self._inbox.put(EngineDied(reason=str(exc)))
        else:
            self._backlog = -1  # tell the new one
            self._inbox.put(EngineStarted())

    def _begin_shutdown(self) -> None:
        if self._is_shutting_down:
            return
        self._is_shutting_down = True
        _in_thread("engine-shutdown", self._shut_down, self._settings.grace_s)

    def _end_engine(self, grace_s: float) -> None:
        with self._engine_lock:
            engine, self._running_engine = self._running_engine, None
        if engine is not None:
            engine.shutdown(grace_s)

    def _shut_down(self, grace_s: float) -> None:
        try:
            self._end_engine(grace_s)
        except Exception:
            log.exception("The engine's shutdown failed.", extra={"event": "engine.shutdown_failed"})
        finally:
            self._inbox.put(EngineStopped())

    def _shut_down_now(self) -> None:
        """At the very end, if no orderly shutdown was begun (a fault of the journal, or of ours)."""
        if not self._is_shutting_down:
            self._is_shutting_down = True
            self._shut_down(0.0)

    # Broker ----------------------------------------------------------------------------------------------------

    def _publish(self, items: Sequence[Publish]) -> None:
        stored = self._journal.results(item.seq for item in items if item.body is None)
        for item in items:
            body = item.body if item.body is not None else stored.get(item.seq)
            if body is None:
                self._inbox.put(StoredCopyLost(task_id=item.task_id))
            else:
                self._links.publish_result(body, partial(self._settled, item.task_id))

    def _settled(self, task_id: str, is_taken: bool) -> None:
        self._inbox.put(ResultConfirmed(task_id=task_id) if is_taken else ResultRefused(task_id=task_id))

    def _report(self, due: ReportDue) -> None:
        if not self._is_connected:
            return
        body = status_report(
            due,
            endpoint_id=self._policy.endpoint_id,
            heartbeat_period_s=self._policy.heartbeat_period_s,
            engine_status=self._engine_status(),
            identity=self._settings.identity,
            config_text=self._settings.config_text,
        )
        self._links.publish_report(body)
        if not due.is_active:
            self._links.flush(LAST_REPORT_S)

    def _engine_status(self) -> Mapping[str, Any]:
        try:
            return self._engine.status() if self._engine is not None else {}
        except Exception:
            log.exception("The engine gave no status.", extra={"event": "engine.status_failed"})
            return {}

    def _connection_changed(self, is_connected: bool) -> None:
        if is_connected != self._is_connected:
            self._is_connected = is_connected
            self._refusals = 0 if is_connected else self._refusals
            log.info(
                "The task queue is being worked." if is_connected else "The task queue is not being worked.",
                extra={"event": "endpoint.online" if is_connected else "endpoint.offline"},
            )
            self._on_connection(is_connected)

    def _ask_why(self, reason: str) -> None:
        _in_thread("why-refused", self._learn_why, reason)

    def _learn_why(self, reason: str) -> None:
        text = self._why_refused(reason)
        if text is not None:
            self._end_text = text
            self._inbox.put(StopRequested(reason=StopReason.REPLACED))
            return
        log.warning(
            "The broker refused a credential that counts; trying again.",
            extra={"event": "broker.refused", "reason": reason},
        )
        self._refusals += 1
        threading.Event().wait(min(2.0 ** (self._refusals - 3), _LONGEST_REFUSED_S))  # only a clock
        self._inbox.put(_RECONNECT)


class _Callbacks:
    """What one engine calls; puts everything into the inbox. Silent once closed."""

    def __init__(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox
        self._is_open = True
        self._demand_is_known = False

    def finished(self, task_id: str, packed_result: bytes) -> None:
        if self._is_open:
            self._inbox.put(EngineFinished(task_id=task_id, packed_result=packed_result))

    def failed(self, task_id: str, failure: EngineFailure) -> None:
        if self._is_open:
            self._inbox.put(EngineFailed(task_id=task_id, failure=failure))

    def demand(self) -> None:
        if not self._demand_is_known:  # one in the inbox is enough
            self._demand_is_known = True
            self._inbox.put(_DEMAND)

    def died(self, reason: str) -> None:
        if self._is_open:
            self._inbox.put(EngineDied(reason=reason))

    def demand_is_seen(self) -> None:
        """Called before the capacity is read: a demand after this is put into the inbox again."""
        self._demand_is_known = False

    def close(self) -> None:
        self._is_open = False


def _read(delivery: Delivery) -> Any:  # Incoming | CancelWish | Unreadable
    item = read_delivery(delivery.headers, delivery.body, delivery)
    if isinstance(item, Unreadable):
        log.error(
            "A message on the task queue is no task.",
            extra={"event": "task.unreadable", "task_id": item.task_id, "reason": item.reason},
        )
    return item


def _in_thread(name: str, work: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=work, args=args, name=f"farcall-{name}", daemon=True).start()
