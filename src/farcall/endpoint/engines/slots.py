"""Which worker gets which task, and what a lost worker costs. Decides only; `processes` owns sockets and processes.

A worker has at most one task, and a task is given to a worker only when that is idle: what still waits here has
certainly not been started.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Command", "End", "GiveUp", "Lost", "Run", "Slots", "Spawn", "WorkerState"]

_USELESS_WORKERS = 10


class WorkerState(Enum):
    """STARTING → IDLE ⇄ BUSY → ENDING → (gone); any of them → (gone) when its process ends."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    ENDING = "ending"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spawn:
    """Start the process of this worker (a number that is never used again)."""

    worker: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Send this task to this worker."""

    worker: int
    task_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """Let this idle worker end: it has run as many tasks as it may."""

    worker: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The worker is gone and took this task along."""

    worker: int
    task_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Workers end before they can do anything; starting more is of no use."""


Command = Spawn | Run | End | Lost | GiveUp


@dataclass(slots=True)
class _Worker:
    state: WorkerState = WorkerState.STARTING
    task_id: str | None = None
    done: int = 0


@dataclass(slots=True)
class Slots:
    """The workers of a pool and the tasks that wait for one.

    Args:
        size: workers to keep; positive.
        max_tasks_per_worker: after so many tasks a worker is replaced; None: never.
    """

    size: int
    max_tasks_per_worker: int | None = None
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _idle: deque[int] = field(default_factory=deque)
    _waiting: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _next_worker: int = 0
    _is_stopping: bool = False
    _useless: int = 0  # workers in a row that ended without ever having had a task

    def start(self) -> Sequence[Command]:
        """Fill all slots."""
        return [self._spawn() for _ in range(self.size - self.living)]

    def submit(self, task_ids: Iterable[str]) -> Sequence[Command]:
        """Tasks to run, in this order."""
        for task_id in task_ids:
            self._waiting[task_id] = None
        return self._hand_out()

    def started(self, worker: int) -> Sequence[Command]:
        """The worker's process is there and takes tasks."""
        self._workers[worker].state = WorkerState.IDLE
        self._idle.append(worker)
        return self._hand_out()

    def finished(self, worker: int) -> tuple[str | None, Sequence[Command]]:
        """The worker has sent a result.

        Returns:
            The task it belongs to (None: it had none, and what it sent means nothing), and what to do next.
        """
        record = self._workers[worker]
        task_id, record.task_id = record.task_id, None
        if task_id is None:
            return None, []
        record.done += 1
        self._useless = 0
        if self.max_tasks_per_worker is not None and record.done >= self.max_tasks_per_worker:
            record.state = WorkerState.ENDING
            return task_id, [End(worker=worker), *([] if self._is_stopping else [self._spawn()])]
        record.state = WorkerState.IDLE
        self._idle.append(worker)
        return task_id, self._hand_out()

    def exited(self, worker: int) -> Sequence[Command]:
        """The worker's process has ended (all that it had sent was reported before)."""
        record = self._workers.pop(worker)
        if record.state is WorkerState.IDLE:
            self._idle.remove(worker)
        commands: list[Command] = []
        if record.task_id is not None:
            commands.append(Lost(worker=worker, task_id=record.task_id))
        elif record.done == 0:
            self._useless += 1
        if self._useless > _USELESS_WORKERS + self.size:
            self._is_stopping = True
            commands.append(GiveUp())
        if not self._is_stopping and self.living < self.size:
            commands.append(self._spawn())
        return commands

    def cancel(self, task_id: str) -> bool:
        """Forget a task that waits. False: no such task waits here."""
        if task_id not in self._waiting:
            return False
        del self._waiting[task_id]
        return True

    def stop(self) -> None:
        """From now on no task is given to a worker and no worker is started."""
        self._is_stopping = True

    @property
    def living(self) -> int:
        """Workers that are not on their way out."""
        return sum(1 for worker in self._workers.values() if worker.state is not WorkerState.ENDING)

    @property
    def idle(self) -> int:
        """Workers without a task."""
        return len(self._idle)

    @property
    def running(self) -> int:
        """Tasks that workers have."""
        return sum(1 for worker in self._workers.values() if worker.task_id is not None)

    @property
    def waiting(self) -> int:
        """Tasks that no worker has yet."""
        return len(self._waiting)

    @property
    def is_stopping(self) -> bool:
        """`stop` was called, or nothing can be run any more."""
        return self._is_stopping

    def _hand_out(self) -> Sequence[Command]:
        commands: list[Command] = []
        while self._waiting and self._idle and not self._is_stopping:
            worker = self._idle.pop()  # the one that worked last: its caches are warm
            task_id, _ = self._waiting.popitem(last=False)
            record = self._workers[worker]
            record.state, record.task_id = WorkerState.BUSY, task_id
            commands.append(Run(worker=worker, task_id=task_id))
        return commands

    def _spawn(self) -> Spawn:
        worker = self._next_worker
        self._next_worker += 1
        self._workers[worker] = _Worker()
        return Spawn(worker=worker)
