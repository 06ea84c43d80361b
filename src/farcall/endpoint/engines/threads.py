"""The thread pool: tasks run in threads of the agent itself.

The quickest way and the least protected one: a task that ends the process ends the agent, tasks share one
interpreter, one current directory and one environment. For light functions, for tests, and where nothing may fork.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from farcall.endpoint.engines.base import (
    CODE_NOT_STARTED,
    EngineCallbacks,
    EngineFailure,
    EngineStartFailed,
    EngineTask,
)
from farcall.endpoint.engines.machine import machine_status
from farcall.endpoint.engines.texts import no_specification_text
from farcall.endpoint.engines.window import Window

__all__ = ["ThreadPoolEngine"]


class ThreadPoolEngine:
    """Runs tasks in `max_workers` threads.

    Args:
        max_workers: positive.
        run: runs one task; returns the packed result message and never raises.
        working_dir: made if missing.
        max_retries_on_system_failure: see `Engine`; a thread is never lost without the agent.
    """

    def __init__(
        self,
        *,
        max_workers: int,
        run: Callable[[EngineTask], bytes],
        working_dir: Path,
        max_retries_on_system_failure: int = 0,
    ) -> None:
        self.max_retries_on_system_failure = max_retries_on_system_failure
        self._size = max_workers
        self._run = run
        self._working_dir = working_dir
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._idled = threading.Condition(self._lock)
        self._waiting: OrderedDict[str, EngineTask] = OrderedDict()
        self._running: set[str] = set()
        self._window = Window(horizon_s=0.01, least=0, most=256)
        self._total = 0
        self._is_stopping = False
        self._reporting = threading.Lock()
        self._is_silent = False
        self._callbacks: EngineCallbacks | None = None

    def start(self, callbacks: EngineCallbacks) -> None:
        self._callbacks = callbacks
        try:
            self._working_dir.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise EngineStartFailed("ThreadPoolEngine", str(exc)) from exc
        for number in range(self._size):
            threading.Thread(target=self._work, args=(callbacks,), name=f"farcall-worker-{number}", daemon=True).start()

    def submit(self, tasks: Sequence[EngineTask]) -> None:
        assert self._callbacks is not None, "start() comes first"
        with self._lock:
            for task in tasks:
                if not task.resource_specification:
                    self._waiting[task.task_id] = task
                    self._total += 1
                    self._arrived.notify()
        for task in tasks:
            if task.resource_specification:
                failure = EngineFailure(
                    code=CODE_NOT_STARTED,
                    text=no_specification_text("ThreadPoolEngine"),
                    is_system_failure=False,
                    may_have_run=False,
                )
                self._callbacks.failed(task.task_id, failure)

    def capacity(self) -> int:
        with self._lock:
            if self._is_stopping:
                return 0
            wanted = self._size + self._window.extra(time.monotonic())
            return max(0, wanted - len(self._waiting) - len(self._running))

    def note_backlog(self, count: int) -> None:
        """Of no use here: the pool does not scale."""

    def cancel(self, task_id: str) -> bool:
        with self._lock:
            return self._waiting.pop(task_id, None) is not None

    def status(self) -> Mapping[str, Any]:
        with self._lock:
            waiting, running = len(self._waiting), len(self._running)
        return {
            "engine_type": "ThreadPoolEngine",
            "total_workers": self._size,
            "idle_workers": self._size - running,
            "pending_tasks": waiting,
            "outstanding_tasks": waiting + running,
            "total_tasks": self._total,
            "scaling_enabled": False,
            "max_blocks": 1,
            "min_blocks": 1,
            "nodes_per_block": 1,
            "max_workers_per_node": self._size,
            **machine_status(),
        }

    def shutdown(self, grace_s: float) -> None:
        with self._lock:
            self._is_stopping = True
            self._arrived.notify_all()
            self._idled.wait_for(lambda: not self._running, timeout=max(0.0, grace_s))
        with self._reporting:
            self._is_silent = True  # a thread cannot be ended; what it still brings is dropped

    def _work(self, callbacks: EngineCallbacks) -> None:
        while True:
            with self._lock:
                self._arrived.wait_for(lambda: self._waiting or self._is_stopping)
                if self._is_stopping:
                    return
                task_id, task = self._waiting.popitem(last=False)
                self._running.add(task_id)
            packed_result = self._run(task)
            with self._reporting:  # so that no callback comes after shutdown() has returned
                if self._is_silent:
                    return
                callbacks.finished(task_id, packed_result)
                with self._lock:
                    self._window.completed(1, time.monotonic())
                    self._running.discard(task_id)
                    self._idled.notify_all()
                callbacks.demand()
