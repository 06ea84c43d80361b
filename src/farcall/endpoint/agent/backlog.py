"""The tasks that wait at this endpoint, in order, and how much memory and disk they take. Pure."""

from __future__ import annotations

from collections import OrderedDict

from farcall.endpoint.agent.events import AgentPolicy
from farcall.endpoint.agent.record import TaskRecord
from farcall.endpoint.engines.base import EngineTask

__all__ = ["Backlog"]


class Backlog:
    """Waiting tasks. Bodies beyond the memory bound are not kept; whoever takes such a task reads the journal."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy = policy
        self._records: OrderedDict[str, TaskRecord] = OrderedDict()
        self._bytes = 0
        self._memory_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def has_room(self) -> bool:
        """Whether one more may be acknowledged."""
        return len(self._records) < self._policy.backlog_tasks and self._bytes < self._policy.backlog_bytes

    def add(self, record: TaskRecord, task: EngineTask | None = None, *, is_first: bool = False) -> None:
        """Let a task wait, last or (`is_first`) before all others. `task` is kept in memory if the bound allows."""
        self._records[record.task_id] = record
        if is_first:
            self._records.move_to_end(record.task_id, last=False)
        self._bytes += record.body_bytes
        if task is not None and self._memory_bytes + record.body_bytes <= self._policy.memory_bytes:
            record.task = task
            record.in_memory = True
            self._memory_bytes += record.body_bytes

    def take(self) -> tuple[TaskRecord, EngineTask | None]:
        """The first that waits, and its task if that is in memory. Raises KeyError if none waits."""
        _, record = self._records.popitem(last=False)
        return record, self._leave(record)

    def remove(self, record: TaskRecord) -> None:
        """Take this one out; it waits."""
        del self._records[record.task_id]
        self._leave(record)

    def _leave(self, record: TaskRecord) -> EngineTask | None:
        self._bytes -= record.body_bytes
        if record.in_memory:
            self._memory_bytes -= record.body_bytes
            record.in_memory = False
        task, record.task = record.task, None
        return task
