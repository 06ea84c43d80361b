"""The states of a task, with the whole transition table. All of it lives here; nothing else decides a move.

    received ──────────► waiting-for-nodes ──► running ──► success
      ▲  │ (at the endpoint)   │    ▲            │  │  └─► failed
      │  └────────────────────►│    └────────────┘  └────► cancelled
      └── endpoint lost, sent again ◄──────────────┘

Terminal states (`success`, `failed`, `cancelled`) never change (invariant 3). Every state may end at once in
any terminal one: results overtake status reports. REST shows `cancelled` as `failed` to clients that know only
the two final states of the protocol. Source: wire protocol, enumerations.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["TERMINAL_STATES", "TRANSITIONS", "Actor", "TaskState", "can_move"]


class TaskState(str, Enum):
    """Where a task is. Values are the protocol's names."""

    RECEIVED = "received"
    """Stored by the service; waits there for its endpoint."""
    WAITING_FOR_NODES = "waiting-for-nodes"
    """In the endpoint's journal; waits for a worker."""
    RUNNING = "running"
    """A worker executes it."""
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATES

    @property
    def rest_status(self) -> str:
        """The `status` member of a REST task document; clients of the protocol know two final values."""
        return "failed" if self is TaskState.CANCELLED else self.value


TERMINAL_STATES = frozenset({TaskState.SUCCESS, TaskState.FAILED, TaskState.CANCELLED})

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.RECEIVED: frozenset({TaskState.WAITING_FOR_NODES, TaskState.RUNNING}) | TERMINAL_STATES,
    TaskState.WAITING_FOR_NODES: frozenset({TaskState.RECEIVED, TaskState.RUNNING}) | TERMINAL_STATES,
    TaskState.RUNNING: frozenset({TaskState.RECEIVED, TaskState.WAITING_FOR_NODES}) | TERMINAL_STATES,
    TaskState.SUCCESS: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}


def can_move(before: TaskState, after: TaskState) -> bool:
    """Whether a task may go from one state to the other; False for a state to itself."""
    return after in TRANSITIONS[before]


class Actor(str, Enum):
    """Who reports a transition. Source: wire protocol, enumerations."""

    WORKER = "worker"
    MANAGER = "manager"
    INTERCHANGE = "interchange"
    ENDPOINT = "endpoint"
    RESULT_PROCESSOR = "result-processor"
    WEB_SERVICE = "web-service"

    def __str__(self) -> str:
        return self.value
