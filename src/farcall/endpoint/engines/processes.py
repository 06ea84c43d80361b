"""The process pool: tasks run in worker processes of this machine, one at a time in each.

Owns one thread that listens to all workers; which worker gets what is `slots`'s, bytes are `links`'s. A worker that
dies costs only the task that it had, and is replaced.
"""

from __future__ import annotations

import logging
import platform
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from farcall.endpoint.engines.base import (
    CODE_NOT_STARTED,
    CODE_WORKER_LOST,
    EngineCallbacks,
    EngineFailure,
    EngineStartFailed,
    EngineTask,
)
from farcall.endpoint.engines.links import Watcher, WorkerLink
from farcall.endpoint.engines.machine import machine_status
from farcall.endpoint.engines.slots import Command, End, GiveUp, Lost, Run, Slots, Spawn
from farcall.endpoint.engines.texts import describe_exit, no_specification_text, worker_lost_text
from farcall.endpoint.engines.window import Window

__all__ = ["ProcessPoolEngine"]

_log = logging.getLogger(__name__)

_MAX_WATCHERS_LOST = 5


class ProcessPoolEngine:
    """Runs tasks in `max_workers` processes.

    Args:
        max_workers: positive.
        encode: the bytes that a worker gets for a task.
        log_dir: made if missing; `worker_<n>.log` (output of tasks) and `pool.log` go there.
        working_dir: of the workers when they start; made if missing.
        max_tasks_per_child: a worker is replaced after so many tasks; None: never.
        max_retries_on_system_failure: see `Engine`.
        runner: `module:function` that runs one decoded task in a worker.
    """

    def __init__(
        self,
        *,
        max_workers: int,
        encode: Callable[[EngineTask], bytes],
        log_dir: Path,
        working_dir: Path,
        max_tasks_per_child: int | None = None,
        max_retries_on_system_failure: int = 0,
        runner: str = "farcall.worker.run:run_task",
    ) -> None:
        self.max_retries_on_system_failure = max_retries_on_system_failure
        self._size = max_workers
        self._encode = encode
        self._log_dir = log_dir
        self._working_dir = working_dir
        self._runner = runner
        self._lock = threading.Lock()  # guards what follows, but for the selector's and links' reading side
        self._idled = threading.Condition(self._lock)
        self._slots = Slots(size=max_workers, max_tasks_per_worker=max_tasks_per_child)
        self._window = Window(horizon_s=0.01, least=0, most=256)
        self._tasks: dict[str, EngineTask] = {}
        self._lost: list[tuple[int, str]] = []
        self._links: dict[int, WorkerLink] = {}
        self._total = 0
        self._useless_reason: str | None = None
        self._watcher: Watcher | None = None
        self._watchers_lost = 0
        self._callbacks: EngineCallbacks | None = None
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._is_closing = False

    # -- the seam

    def start(self, callbacks: EngineCallbacks) -> None:
        self._callbacks = callbacks
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            self._working_dir.mkdir(parents=True, exist_ok=True)
            self._start_watcher()
        except OSError as exc:
            raise EngineStartFailed("ProcessPoolEngine", str(exc)) from exc
        self._selector.register(self._woken, selectors.EVENT_READ)
        with self._lock:
            self._perform(self._slots.start())
        self._thread = threading.Thread(target=self._serve, name="farcall-process-pool", daemon=True)
        self._thread.start()

    def submit(self, tasks: Sequence[EngineTask]) -> None:
        accepted = [task for task in tasks if not task.resource_specification]
        with self._lock:
            self._tasks.update((task.task_id, task) for task in accepted)
            self._total += len(accepted)
            self._perform(self._slots.submit([task.task_id for task in accepted]))
        for task in tasks:
            if task.resource_specification:
                failure = EngineFailure(
                    code=CODE_NOT_STARTED,
                    text=no_specification_text("ProcessPoolEngine"),
                    is_system_failure=False,
                    may_have_run=False,
                )
                self._report.failed(task.task_id, failure)

    def capacity(self) -> int:
        with self._lock:
            if self._slots.is_stopping:
                return 0
            wanted = self._size + self._window.extra(time.monotonic())
            return max(0, wanted - self._slots.running - self._slots.waiting)

    def note_backlog(self, count: int) -> None:
        """Of no use here: the pool does not scale."""

    def cancel(self, task_id: str) -> bool:
        with self._lock:
            if not self._slots.cancel(task_id):
                return False
            del self._tasks[task_id]
            return True

    def status(self) -> Mapping[str, Any]:
        with self._lock:
            idle, waiting, running = self._slots.idle, self._slots.waiting, self._slots.running
        return {
            "engine_type": "ProcessPoolEngine",
            "total_workers": self._size,
            "idle_workers": idle,
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
            self._slots.stop()
            self._idled.wait_for(lambda: self._slots.running == 0, timeout=max(0.0, grace_s))
            self._is_closing = True
        self._wake_up()
        if self._thread is not None:
            self._thread.join()
        if self._watcher is not None:
            self._watcher.end()
        for link in self._links.values():
            link.close()
        self._selector.close()
        self._woken.close()
        self._wake.close()

    # -- carrying out what `slots` decides; with the lock held

    def _perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Run(worker=worker, task_id=task_id):
                    self._send(self._links[worker], self._encode(self._tasks[task_id]))
                case Spawn(worker=worker):
                    self._spawn(worker)
                case End(worker=worker):
                    self._links[worker].end()
                case Lost(worker=worker, task_id=task_id):
                    self._lost.append((worker, task_id))
                case GiveUp():
                    self._useless_reason = f"its workers end as soon as they start; see {self._log_dir}"

    def _spawn(self, worker: int) -> None:
        assert self._watcher is not None
        taken = {link.seat for link in self._links.values()}
        seat = next(number for number in range(len(taken) + 1) if number not in taken)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = WorkerLink(worker=worker, seat=seat, socket=ours, log=self._log_dir / f"worker_{seat}.log")
        self._links[worker] = link
        self._selector.register(ours, selectors.EVENT_READ, link)
        with theirs:
            self._watcher.spawn(worker, link.log, theirs)

    def _send(self, link: WorkerLink, data: bytes) -> None:
        if not link.send(data) and link.is_registered:  # larger than the socket's buffer: the thread sends the rest
            self._selector.modify(link.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)

    # -- the thread

    @property
    def _report(self) -> EngineCallbacks:
        assert self._callbacks is not None, "start() comes first"
        return self._callbacks

    def _serve(self) -> None:
        try:
            while not self._is_closing:
                self._turn()
        except Exception as exc:  # tasks would never end
            _log.exception("The process pool's thread failed", extra={"event": "pool.failed"})
            self._give_up(f"its thread failed: {exc!r}")

    def _turn(self) -> None:
        for key, events in self._selector.select():
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            elif key.data is None:
                self._hear_watcher()
            else:
                if events & selectors.EVENT_WRITE:
                    self._send_more(key.data)
                if events & selectors.EVENT_READ:
                    self._hear_worker(key.data)

    def _wake_up(self) -> None:
        self._wake.send(b"\0")

    def _send_more(self, link: WorkerLink) -> None:
        with self._lock:
            if link.flush() and link.is_registered:
                self._selector.modify(link.socket, selectors.EVENT_READ, link)

    def _hear_worker(self, link: WorkerLink) -> None:
        is_open = link.receive()
        for packed_result in link.frames():
            with self._lock:
                task_id, commands = self._slots.finished(link.worker)
                if task_id is None:
                    continue
                del self._tasks[task_id]
                self._perform(commands)
                self._window.completed(1, time.monotonic())
                self._idled.notify_all()
            self._report.finished(task_id, packed_result)
            self._report.demand()
        if not is_open:
            self._unregister(link)  # the watcher will say how it ended

    def _unregister(self, link: WorkerLink) -> None:
        if link.is_registered:
            link.is_registered = False
            self._selector.unregister(link.socket)

    def _hear_watcher(self) -> None:
        assert self._watcher is not None
        message = self._watcher.hear()
        if message is None:
            self._watcher_lost()
        elif "spawned" in message:
            with self._lock:
                self._links[message["spawned"]].pid = message["pid"]
                self._perform(self._slots.started(message["spawned"]))
            self._report.demand()
        elif "exited" in message:
            self._worker_exited(message["exited"], describe_exit(message["status"]))

    def _worker_exited(self, worker: int, how: str) -> None:
        link = self._links[worker]
        self._hear_worker(link)  # its last result may still be under way
        self._unregister(link)
        with self._lock:
            del self._links[worker]
            self._perform(self._slots.exited(worker))
            lost, self._lost = self._lost, []
            self._idled.notify_all()
        link.close()
        for _, task_id in lost:
            self._tasks.pop(task_id, None)
            event = {"event": "worker.lost", "task_id": task_id, "worker_pid": link.pid, "how": how}
            _log.warning("A worker ended while it ran a task", extra=event)
            text = worker_lost_text(
                worker=f"worker {link.seat} (process {link.pid})", node=platform.node(), how=how, log=str(link.log)
            )
            self._report.failed(task_id, EngineFailure(code=CODE_WORKER_LOST, text=text, is_system_failure=True))
        if self._useless_reason is not None:
            self._give_up(self._useless_reason)
        self._report.demand()

    def _start_watcher(self) -> None:
        self._watcher = Watcher(runner=self._runner, log=self._log_dir / "pool.log", working_dir=self._working_dir)
        self._selector.register(self._watcher.control, selectors.EVENT_READ)

    def _watcher_lost(self) -> None:
        """The process that watches over the workers is gone, and they with it: start anew."""
        assert self._watcher is not None
        self._selector.unregister(self._watcher.control)
        how = describe_exit(self._watcher.end())
        _log.error("The process that watches over the workers is gone", extra={"event": "pool.lost", "how": how})
        self._watchers_lost += 1
        try:
            if self._watchers_lost > _MAX_WATCHERS_LOST:
                raise OSError(f"lost {self._watchers_lost} times, now {how}; see {self._log_dir / 'pool.log'}")
            self._start_watcher()
        except OSError as exc:
            self._useless_reason = f"the process that watches over the workers is gone: {exc}"
            self._slots.stop()
        for worker in sorted(self._links):
            self._worker_exited(worker, f"ended along with the process that watches over it, which was {how}")

    def _give_up(self, reason: str) -> None:
        self._is_closing = True
        with self._lock:
            self._slots.stop()
            left, self._tasks = list(self._tasks), {}
        for task_id in left:
            failure = EngineFailure(
                code=CODE_WORKER_LOST, text=f"The process pool is out of order: {reason}", is_system_failure=True
            )
            self._report.failed(task_id, failure)
        self._report.died(reason)
