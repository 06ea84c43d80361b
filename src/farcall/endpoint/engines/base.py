"""The seam between the endpoint's agent and what runs its tasks.

Owns the shapes that cross the seam, nothing else. The agent decides which task is handed over and when it is run
again, and writes that down before it calls an engine; an engine takes tasks to workers, brings back what became
of them, and keeps no promise over its own death: whatever it had is the agent's to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from farcall.wire.errors import FarcallError

__all__ = [
    "CODE_NOT_STARTED",
    "CODE_WORKER_LOST",
    "Engine",
    "EngineCallbacks",
    "EngineContext",
    "EngineFailure",
    "EngineStartFailed",
    "EngineTask",
]

CODE_WORKER_LOST = "WORKER_LOST"
"""The worker, node or interchange that had the task is gone: the task may have run, in part or whole."""

CODE_NOT_STARTED = "RemoteExecutionError"
"""The engine refused the task or could not start it; the text says so ("Failed to start task: …")."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineTask:
    """One task as the agent hands it over.

    Args:
        task_id: canonical text of a UUID.
        function_id: likewise.
        task_buffer: the three framed texts of the wire's `task` message.
        resource_specification: from the message's headers, decoded; empty: none.
        result_serializers: names that the submitter asks for, in order; empty: the worker's choice.
        python_version: of the submitter, such as "3.11.7"; None if unknown.
    """

    task_id: str
    function_id: str
    task_buffer: str
    resource_specification: Mapping[str, Any] = field(default_factory=dict)
    result_serializers: tuple[str, ...] = ()
    python_version: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFailure:
    """That a task ended without a result from a worker.

    Args:
        code: stable, goes on the wire as the `code` of `error_details`.
        text: for the user: what happened, where, what to do.
        is_system_failure: the worker or node was lost, not the task's own doing as far as can be known: the agent
            may hand the task over again (`max_retries_on_system_failure`).
        may_have_run: False if no worker can have begun the task: running it again is then free of charge.
    """

    code: str
    text: str
    is_system_failure: bool
    may_have_run: bool = True


class EngineCallbacks(Protocol):
    """What an engine tells the agent. Callable from any thread; each returns at once and never raises."""

    def finished(self, task_id: str, packed_result: bytes) -> None:
        """The worker's answer (value or error), as the packed `result` message that is to be published unchanged."""

    def failed(self, task_id: str, failure: EngineFailure) -> None:
        """The task ended without an answer. Each task that was handed over ends in exactly one of these two calls."""

    def demand(self) -> None:
        """`capacity()` may have grown. May be called more often than that is true."""

    def died(self, reason: str) -> None:
        """The engine cannot recover; `failed` was called for all it had. `reason` is for people."""


class Engine(Protocol):
    """What runs tasks. One instance runs once: `start`, any number of `submit`, `shutdown`."""

    @property
    def max_retries_on_system_failure(self) -> int:
        """How often the agent may hand a task over again after a system failure (configuration)."""

    def start(self, callbacks: EngineCallbacks) -> None:
        """Get ready; may take seconds. Blocks until tasks can be handed over (workers need not be there yet).

        Raises:
            EngineStartFailed: it cannot run here; the message says what to change.
        """

    def submit(self, tasks: Sequence[EngineTask]) -> None:
        """Take these, in this order. Called by one thread, after `start`. Never blocks on a worker, never raises.

        What cannot be started ends in `failed`, possibly before this returns.
        """

    def capacity(self) -> int:
        """How many more tasks are wanted now (0: none). What is handed over beyond it is taken nevertheless."""

    def note_backlog(self, count: int) -> None:
        """This many tasks wait in the agent: what scaling needs to know. Cheap; call it whenever it has changed."""

    def cancel(self, task_id: str) -> bool:
        """Take the task back if no worker has it yet.

        Returns:
            True: it will not run, and no callback will come for it. False: it is unknown or too late; the callback
            comes as for any other task.
        """

    def status(self) -> Mapping[str, Any]:
        """The engine's members of `global_state` (wire protocol, `global_state`). Cheap enough for each report."""

    def shutdown(self, grace_s: float) -> None:
        """Stop: no new task starts, running ones have `grace_s` seconds to finish, then workers are ended.

        Results that come in meanwhile are reported as usual. No callback comes after this has returned; tasks that
        were not reported by then may have run. Callable once, also if `start` failed. Leaves no process behind.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineContext:
    """Where an engine lives; what it needs to know of its endpoint.

    Args:
        endpoint_dir: absolute; engines keep logs and scripts below it.
        endpoint_id: the registered id, or None before registration; workers show it in results.
        endpoint_name: for logs and titles.
        debug: write verbose logs.
    """

    endpoint_dir: Path
    endpoint_id: str | None = None
    endpoint_name: str = "default"
    debug: bool = False


class EngineStartFailed(FarcallError):
    """The configured engine cannot run here. A change of configuration or environment is needed."""

    code = "ENGINE_START_FAILED"

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(engine, reason)
        self.engine = engine
        self.reason = reason

    def __str__(self) -> str:
        return f"Engine {self.engine} did not start: {self.reason}"
