"""From the agent's task to the worker's: what the endpoint's configuration adds on the way."""

from __future__ import annotations

from dataclasses import dataclass

from farcall.endpoint.engines.base import EngineTask
from farcall.worker.task import WorkerTask

__all__ = ["TaskSettings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSettings:
    """What is the same for all tasks of an engine; members as in `WorkerTask`."""

    endpoint_id: str | None = None
    working_dir: str | None = None
    sandbox: bool = False
    allowed_serializers: tuple[str, ...] | None = None

    def apply(self, task: EngineTask) -> WorkerTask:
        """The task as a worker gets it."""
        return WorkerTask(
            task.task_id,
            task.task_buffer,
            self.endpoint_id,
            task.result_serializers or None,
            task.python_version,
            self.working_dir,
            self.sandbox,
            self.allowed_serializers,
        )
