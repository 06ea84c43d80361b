"""One task in the agent's memory. Only `agent.core` uses it; the journal sees it as a `JournalEntry`."""

from __future__ import annotations

from farcall.endpoint.engines.base import EngineTask
from farcall.endpoint.journal import JournalEntry, Phase

__all__ = ["TaskRecord"]


class TaskRecord:
    """A task and how far it is.

    `task` is kept in memory only while it waits and within bounds (`in_memory` says that its size is accounted for);
    `headers` and `body` only until the journal has them (`is_new`).
    """

    __slots__ = (
        "attempts",
        "body",
        "body_bytes",
        "confirmed_s",
        "function_id",
        "headers",
        "in_memory",
        "is_cancelled",
        "is_new",
        "notes",
        "phase",
        "received_s",
        "result_bytes",
        "returns",
        "seq",
        "started_s",
        "task",
        "task_id",
    )

    def __init__(self, seq: int, task_id: str, function_id: str, received_s: float) -> None:
        self.seq = seq
        self.task_id = task_id
        self.function_id = function_id
        self.received_s = received_s
        self.phase = Phase.QUEUED
        self.attempts = 0
        self.returns = 0
        self.started_s: float | None = None
        self.confirmed_s: float | None = None
        self.body_bytes = 0
        self.result_bytes = 0
        self.notes: tuple[str, ...] = ()
        self.task: EngineTask | None = None
        self.in_memory = False
        self.is_new = False
        self.is_cancelled = False
        self.headers = ""
        self.body = b""

    @classmethod
    def from_entry(cls, entry: JournalEntry) -> TaskRecord:
        record = cls(entry.seq, entry.task_id, entry.function_id, entry.received_s)
        record.phase = entry.phase
        record.attempts = entry.attempts
        record.returns = entry.returns
        record.started_s = entry.started_s
        record.confirmed_s = entry.confirmed_s
        record.body_bytes = entry.body_bytes
        record.result_bytes = entry.result_bytes
        record.notes = entry.notes
        return record

    def to_entry(self) -> JournalEntry:
        return JournalEntry(
            seq=self.seq,
            task_id=self.task_id,
            function_id=self.function_id,
            phase=self.phase,
            attempts=self.attempts,
            returns=self.returns,
            received_s=self.received_s,
            started_s=self.started_s,
            confirmed_s=self.confirmed_s,
            body_bytes=self.body_bytes,
            result_bytes=self.result_bytes,
            notes=self.notes,
        )
