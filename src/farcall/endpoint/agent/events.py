"""What goes into `agent.core` (events) and what comes out of it (actions). Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from farcall.endpoint.agent.intake import CancelWish, Incoming, Unreadable
from farcall.endpoint.auditlog import AuditEntry
from farcall.endpoint.engines.base import EngineFailure, EngineTask
from farcall.endpoint.journal import JournalBatch, JournalEntry
from farcall.wire.messages import TaskTransition

__all__ = [
    "Actions",
    "AgentPolicy",
    "CancelAnswered",
    "Connected",
    "Delivered",
    "Disconnected",
    "EngineDied",
    "EngineFailed",
    "EngineFinished",
    "EngineStarted",
    "EngineStopped",
    "Event",
    "HandOver",
    "Publish",
    "Recovered",
    "ReportDue",
    "ResultConfirmed",
    "ResultRefused",
    "StopReason",
    "StopRequested",
    "StoredCopyLost",
]


class StopReason(str, Enum):
    """Why the agent ends."""

    REQUESTED = "requested"
    IDLE = "idle"
    """Longer idle than the configuration allows."""
    STUCK = "stuck"
    """No movement for longer than the configuration allows, although tasks are outstanding."""
    REPLACED = "replaced"
    """The credential is refused: a newer instance registered, or the endpoint was stopped remotely or deleted."""
    ENGINE = "engine"
    """The engine failed for good."""
    JOURNAL = "journal"
    """The journal is damaged."""
    AUDIT = "audit"
    """The audit log cannot be written."""


@dataclass(frozen=True, kw_only=True)
class AgentPolicy:
    """What decides the agent's behaviour. All limits are inclusive.

    Args:
        max_retries: how often a task is run again after a system failure or the agent's own death.
        allowed_functions: ids that may run; None: all.
        backlog_tasks, backlog_bytes: as long as fewer wait here, deliveries are journaled and acknowledged; beyond,
            they stay unacknowledged, so that the broker stops sending.
        memory_bytes: of waiting tasks' bodies in memory; what is beyond lives in the journal only.
        publish_tasks, publish_bytes: results under way to the broker; what is beyond lives in the journal only.
        retention_s, retention_tasks, retention_bytes: how long and how many confirmed tasks are remembered.
        report_gap_s: shortest time between two status reports.
        idle_heartbeats_soft, idle_heartbeats_hard: end after this many periods without tasks, or without movement;
            0: never.
        free_returns: how often a task may come back from the engine unrun without being charged an attempt.
        engine_deaths: in a row, after which the engine is given up.
        is_audited: whether `Actions.audit` is wanted.
    """

    endpoint_id: str
    endpoint_name: str
    max_retries: int = 0
    allowed_functions: frozenset[str] | None = None
    heartbeat_period_s: float = 30.0
    backlog_tasks: int = 10_000
    backlog_bytes: int = 512 * 1024 * 1024
    memory_bytes: int = 32 * 1024 * 1024
    publish_tasks: int = 1_000
    publish_bytes: int = 32 * 1024 * 1024
    retention_s: float = 600.0
    retention_tasks: int = 10_000
    retention_bytes: int = 32 * 1024 * 1024
    report_gap_s: float = 1.0
    report_transitions: int = 256
    idle_heartbeats_soft: int = 0
    idle_heartbeats_hard: int = 0
    free_returns: int = 10
    engine_deaths: int = 3
    is_audited: bool = False


# Events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """What the journal held at start, by `seq`. Always the first event."""

    entries: Sequence[JournalEntry]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What the task queue sent, in order."""

    items: Sequence[Incoming | CancelWish | Unreadable]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStarted:
    """The engine takes tasks (again)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFinished:
    """A worker's answer: the packed result message."""

    task_id: str
    packed_result: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFailed:
    """A task ended in the engine without an answer."""

    task_id: str
    failure: EngineFailure


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineDied:
    """The engine failed for good; a fresh one may work."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelAnswered:
    """What the engine said to `Actions.cancels`: it gave the task back (True), or it is too late."""

    task_id: str
    was_given_back: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStopped:
    """The engine was shut down as asked; nothing more comes from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultConfirmed:
    """The broker took the result: the service has it."""

    task_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRefused:
    """The broker did not take the result. It is published again after a while."""

    task_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCopyLost:
    """The journal cannot give back what it should have of this task."""

    task_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Connected:
    """The task queue is being consumed (again)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disconnected:
    """The connection is gone; what was delivered and not acknowledged will be delivered again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequested:
    """End in order; `at_once`: without waiting for tasks or confirmations."""

    reason: StopReason = StopReason.REQUESTED
    at_once: bool = False


Event = (
    Recovered
    | Delivered
    | EngineStarted
    | EngineFinished
    | EngineFailed
    | EngineDied
    | CancelAnswered
    | EngineStopped
    | ResultConfirmed
    | ResultRefused
    | StoredCopyLost
    | Connected
    | Disconnected
    | StopRequested
)


# Actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class HandOver:
    """Give this task to the engine. `task` is None if it must be read from the journal by `seq`."""

    seq: int
    task_id: str
    task: EngineTask | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Publish:
    """Publish this task's result. `body` is None if it must be read from the journal by `seq`."""

    seq: int
    task_id: str
    body: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportDue:
    """Send a status report: these counts, and what happened to tasks since the last one."""

    is_active: bool
    queued: int
    started: int
    total: int
    transitions: Mapping[str, tuple[TaskTransition, ...]]


@dataclass(kw_only=True, slots=True)
class Actions:
    """What one turn asks for, to be done in the order of the members.

    `journal` and `audit` must be on disk before anything below them is done. `restart_engine_in_s`, `stop_engine` and
    `end` are None or False when nothing of the kind is wanted.
    """

    journal: JournalBatch = field(default_factory=JournalBatch)
    audit: list[AuditEntry] = field(default_factory=list)
    acks: list[Any] = field(default_factory=list)  # Any: opaque tokens of the consumer
    cancels: list[str] = field(default_factory=list)
    hand_over: list[HandOver] = field(default_factory=list)
    publish: list[Publish] = field(default_factory=list)
    report: ReportDue | None = None
    restart_engine_in_s: float | None = None
    stop_intake: bool = False
    stop_engine: bool = False
    end: StopReason | None = None
    wake_at_s: float | None = None
    backlog: int = 0
    """Tasks that wait here: what the engine's scaling needs to know."""
