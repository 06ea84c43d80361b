"""The engine on Parsl: GlobusComputeEngine and GlobusMPIEngine.

Owns the tasks that were handed to Parsl. The executor's life is `keeper`'s, what Parsl does is `executor`'s, what its
errors mean is `failures`'s.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parsl.executors.high_throughput.errors import WorkerLost
from parsl.serialize import deserialize

from farcall.endpoint.engines.base import (
    CODE_NOT_STARTED,
    EngineCallbacks,
    EngineFailure,
    EngineStartFailed,
    EngineTask,
)
from farcall.endpoint.engines.bundling import MAX_CALLS, PATIENCE_S
from farcall.endpoint.engines.config import GlobusComputeConfig, GlobusMPIConfig
from farcall.endpoint.engines.flights import Flight, Flights
from farcall.endpoint.engines.handover import TaskSettings
from farcall.endpoint.engines.parsl.failures import failure_of, load_exception
from farcall.endpoint.engines.parsl.keeper import Keeper
from farcall.endpoint.engines.parsl.nodes import Nodes
from farcall.endpoint.engines.specification import mpi_specification, single_node_specification
from farcall.endpoint.engines.texts import not_started_text
from farcall.endpoint.engines.window import Window
from farcall.worker.bundle import pack_tasks, read_record, unpack_answers

__all__ = ["ParslEngine"]

_ASK_NODES_S = 0.1
_OVERDUE_S = 2 * PATIENCE_S


class ParslEngine:
    """Runs tasks on the nodes of blocks that a Parsl provider gives.

    Args:
        config: validated.
        make_executor: a fresh, configured executor with a fresh provider; called at start and at each recovery.
        settings: what is the same for all tasks.
        run_dir: the endpoint's directory.
        marker: in the environment of everything that blocks on this machine start; None if they run elsewhere.
    """

    def __init__(
        self,
        *,
        config: GlobusComputeConfig | GlobusMPIConfig,
        make_executor: Callable[[], Any],
        settings: TaskSettings,
        run_dir: Path,
        marker: str | None,
    ) -> None:
        self.max_retries_on_system_failure = config.max_retries_on_system_failure
        self._config = config
        self._make_executor = make_executor
        self._settings = settings
        self._log_dir = str(run_dir / config.label)
        self._lock = threading.Lock()
        self._landed = threading.Condition(self._lock)
        self._flights = Flights()
        self._records_dir = run_dir / config.label / "bundles"
        self._is_local = marker is not None
        self._total = 0
        self._backlog = 0
        self._window = Window(horizon_s=0.1, least=1, most=4096)
        self._nodes = Nodes()
        self._most_nodes = 1
        self._executor: Any = None  # None while there is none that takes tasks
        self._last_executor: Any = None
        self._refusing: str | None = None
        self._is_stopping = False
        self._callbacks: EngineCallbacks | None = None
        self._keeper = Keeper(
            make_executor=self._make,
            owner=self,
            strategy=config.strategy,
            job_status=config.job_status_kwargs,
            log_dir=self._log_dir,
            scripts_dir=str(run_dir / "submit_scripts"),
            marker=marker,
        )

    # -- the seam

    def start(self, callbacks: EngineCallbacks) -> None:
        self._callbacks = callbacks
        try:
            self._records_dir.mkdir(parents=True, exist_ok=True)
            self._keeper.start()
        except Exception as exc:
            reason = f"{exc or type(exc).__name__}; see interchange.log in {self._log_dir}"
            raise EngineStartFailed(self._config.type, reason) from exc

    def submit(self, tasks: Sequence[EngineTask]) -> None:
        refused: list[tuple[str, str]] = []
        with self._lock:
            for task in tasks:
                try:
                    specification = self._checked(task)
                except ValueError as exc:
                    refused.append((task.task_id, str(exc)))
                    continue
                if self._refusing is not None:
                    refused.append((task.task_id, self._refusing))
                    continue
                if specification:
                    task = replace(task, resource_specification=specification)
                self._flights.add(task)
                self._total += 1
            self._dispatch()
            is_short = self._is_short()
        if is_short:
            self._keeper.shortage()
        for task_id, reason in refused:
            self._report.failed(task_id, _not_started(reason))

    def capacity(self) -> int:
        with self._lock:
            if self._is_stopping or (self._executor is None and self._refusing is None):
                return 0
            slots = self._slots()
            extra = min(self._window.extra(time.monotonic()), 2 * MAX_CALLS * slots)
            return max(0, slots + extra - self._flights.held)

    def note_backlog(self, count: int) -> None:
        with self._lock:
            self._backlog = count
            is_short = self._is_short()
        if is_short:
            self._keeper.shortage()

    def cancel(self, task_id: str) -> bool:
        with self._lock:
            return self._flights.cancel(task_id)

    def status(self) -> Mapping[str, Any]:
        with self._lock:
            executor, nodes, held, total = self._last_executor, self._nodes, self._flights.held, self._total
        provider = executor.provider
        most = executor.max_workers_per_node
        return {
            "engine_type": self._config.type,
            "total_workers": nodes.workers,
            "idle_workers": nodes.idle_workers,
            "pending_tasks": max(0, held - nodes.tasks),
            "outstanding_tasks": held,
            "total_tasks": total,
            "managers": nodes.count,
            "active_managers": nodes.active,
            "scaling_enabled": provider.max_blocks > 0,
            "mem_per_worker": executor.mem_per_worker,
            "cores_per_worker": executor.cores_per_worker,
            "prefetch_capacity": executor.prefetch_capacity,
            "max_blocks": provider.max_blocks,
            "min_blocks": provider.min_blocks,
            "nodes_per_block": _nodes_per_block(executor),
            "max_workers_per_node": executor.workers_per_node if most == float("inf") else most,
            "node_info": nodes.info(executor.blocks_to_job_id),
            "provider_type": type(provider).__name__,
            "queue": getattr(provider, "partition", None) or getattr(provider, "queue", None),
            "account": getattr(provider, "account", None) or getattr(provider, "project", None) or None,
        }

    def shutdown(self, grace_s: float) -> None:
        until_s = time.monotonic() + max(0.0, grace_s)
        if self._executor is not None:
            self._executor.hold_nodes()  # first: what waits at the interchange must not start any more
        with self._lock:
            self._is_stopping = True
        executor = self._keeper.stop()
        if executor is None:
            return
        if self._flights.in_flight:
            self._let_finish(executor, until_s)
        self._keeper.end(executor)

    # -- what the keeper says

    def load(self) -> int:
        return self._flights.held + self._backlog

    def executor_ready(self, executor: Any) -> None:
        with self._lock:
            self._executor = self._last_executor = executor
            self._most_nodes = _nodes_per_block(executor)
            self._refusing = None
            self._dispatch()
        self._report.demand()

    def executor_gone(self) -> None:
        with self._lock:
            self._executor, self._nodes = None, Nodes()

    def executor_lost(self, failure: EngineFailure) -> None:
        """Nothing comes back from what is under way. On this machine the workers are certainly dead by now."""
        for number, flight in self._flights.numbers():
            self._crashed(number, flight, failure, is_worker_dead=self._is_local)

    def refuse(self, reason: str) -> None:
        with self._lock:
            self._refusing = reason
            waiting = self._flights.take_waiting()
        for task in waiting:
            self._report.failed(task.task_id, _not_started(reason))
        self._report.demand()

    def look_after(self) -> None:
        """Bundles that take longer than they should have given back what has not started: other workers may be idle."""
        with self._lock:
            overdue = self._flights.overdue(sent_before_s=time.monotonic() - _OVERDUE_S)
        for number, flight in overdue:
            record = read_record(str(flight.record))
            with self._lock:
                outcome = self._flights.looked(number, record)
                self._dispatch()
            for task_id, packed_result in outcome.finished.items():
                self._report.finished(task_id, packed_result)

    def nodes_changed(self, nodes: Nodes) -> None:
        has_grown = nodes.workers > self._nodes.workers
        self._nodes = nodes
        if has_grown:
            self._report.demand()

    def gave_up(self, reason: str) -> None:
        self.refuse(reason)
        self._report.died(reason)

    # -- what the executor brings

    def _make(self) -> Any:
        executor = self._make_executor()
        executor.on_results = self._results
        executor.load = self.load
        return executor

    def _results(self, messages: Sequence[dict[str, Any]]) -> None:
        finished: dict[str, bytes] = {}
        for message in messages:
            number = message["task_id"]
            if "result" in message:
                answers = unpack_answers(deserialize(message["result"]))
                with self._lock:
                    flight = self._flights.flight(number)
                    finished.update(self._flights.landed(number, answers).finished)
                _remove_record(flight)
            elif (flight := self._flights.flight(number)) is not None:
                exc = load_exception(message["exception"])
                self._crashed(
                    number, flight, failure_of(exc, self._log_dir), is_worker_dead=isinstance(exc, WorkerLost)
                )
        with self._lock:
            self._window.completed(len(finished), time.monotonic())
            self._dispatch()
            self._landed.notify_all()
        for task_id, packed_result in finished.items():
            self._report.finished(task_id, packed_result)
        self._report.demand()

    def _crashed(self, number: int, flight: Flight, failure: EngineFailure, *, is_worker_dead: bool) -> None:
        record = read_record(flight.record) if flight.record is not None else None
        with self._lock:
            outcome = self._flights.crashed(number, record, is_worker_dead=is_worker_dead)
            self._landed.notify_all()
        _remove_record(flight)
        for task_id, packed_result in outcome.finished.items():
            self._report.finished(task_id, packed_result)
        for task in outcome.lost:
            self._report.failed(task.task_id, failure)

    # -- helpers; the lock is held

    @property
    def _report(self) -> EngineCallbacks:
        assert self._callbacks is not None, "start() comes first"
        return self._callbacks

    def _checked(self, task: EngineTask) -> dict[str, Any]:
        if isinstance(self._config, GlobusMPIConfig):
            return mpi_specification(task.resource_specification, nodes_per_block=self._most_nodes)
        return single_node_specification(task.resource_specification)

    def _dispatch(self) -> None:
        if self._executor is None or self._is_stopping:
            return
        for tasks in self._flights.next(slots=self._slots()):
            record = str(self._records_dir / uuid.uuid4().hex) if len(tasks) > 1 else None
            packed = pack_tasks([self._settings.apply(task) for task in tasks], record=record, patience_s=PATIENCE_S)
            number = self._executor.send(packed, dict(tasks[0].resource_specification))
            self._flights.departed(number, Flight(tasks=tasks, record=record, sent_s=time.monotonic()))

    def _slots(self) -> int:
        """Tasks that workers can have: those connected, or those that the blocks under way (or a first one) bring."""
        executor = self._last_executor
        blocks = sum(1 for status in list(executor.status_facade.values()) if not status.terminal)
        nodes = max(1, blocks) * self._most_nodes
        prefetch = int(executor.prefetch_capacity)
        expected = nodes * (int(executor.workers_per_node) + prefetch)
        return max(expected, self._nodes.workers + prefetch * self._nodes.count)

    def _is_short(self) -> bool:
        return self._nodes.workers == 0 and self._flights.held + self._backlog > 0

    # -- the end

    def _let_finish(self, executor: Any, until_s: float) -> None:
        """Wait for what workers have."""
        while time.monotonic() < until_s and executor.tasks_at_nodes() > 0:
            with self._lock:
                self._landed.wait(timeout=min(_ASK_NODES_S, max(0.0, until_s - time.monotonic())))


def _nodes_per_block(executor: Any) -> int:
    return int(getattr(executor.provider, "nodes_per_block", 1))


def _remove_record(flight: Flight | None) -> None:
    if flight is not None and flight.record is not None:
        try:
            os.unlink(flight.record)
        except OSError:
            pass  # the worker does not share our files


def _not_started(reason: str) -> EngineFailure:
    return EngineFailure(
        code=CODE_NOT_STARTED, text=not_started_text(reason), is_system_failure=False, may_have_run=False
    )
