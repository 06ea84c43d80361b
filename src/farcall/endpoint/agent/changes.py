"""What the journal does not know yet. Pure.

Changes that must be on disk before something is done outside are written in the turn that makes them. Confirmations
and removals can wait a moment for such a transaction: losing one to a crash costs a second copy of a result, which
the service drops.
"""

from __future__ import annotations

from typing import Final

from farcall.endpoint.agent.record import TaskRecord
from farcall.endpoint.journal import JournalBatch, NewTask

__all__ = ["Changes"]

LAZY_DELAY_S: Final = 1.0


class Changes:
    """Collects what one turn changes, each task once, with its last state."""

    def __init__(self) -> None:
        self._records: dict[int, TaskRecord] = {}
        self._results: dict[int, bytes] = {}
        self._lazy: dict[int, TaskRecord] = {}
        self._deletes: list[int] = []
        self._lazy_since_s: float | None = None

    @property
    def wake_at_s(self) -> float | None:
        """When what waits must be written at the latest; None: nothing waits."""
        return None if self._lazy_since_s is None else self._lazy_since_s + LAZY_DELAY_S

    def touch(self, record: TaskRecord) -> None:
        """This task changed, and the journal must know before the turn's effects."""
        self._records[record.seq] = record

    def touch_lazily(self, record: TaskRecord) -> None:
        """This task changed; the journal may learn it a little later."""
        self._lazy[record.seq] = record

    def store_result(self, record: TaskRecord, packed: bytes) -> None:
        self._records[record.seq] = record
        self._results[record.seq] = packed

    def forget(self, record: TaskRecord) -> None:
        """The journal may drop this task (a little later)."""
        self._lazy.pop(record.seq, None)
        self._records.pop(record.seq, None)
        if not record.is_new:
            self._deletes.append(record.seq)

    def take(self, *, now_s: float, is_last: bool) -> JournalBatch:
        """What is to be written now; may be empty. `is_last`: nothing may wait."""
        batch = JournalBatch()
        has_lazy = bool(self._lazy or self._deletes)
        if not self._records:
            if not has_lazy:
                return batch
            if self._lazy_since_s is None:
                self._lazy_since_s = now_s
            if now_s - self._lazy_since_s < LAZY_DELAY_S and not is_last:
                return batch
        for record in self._records.values():
            if has_lazy:
                self._lazy.pop(record.seq, None)
            if record.is_new:
                batch.inserts.append(NewTask(entry=record.to_entry(), headers=record.headers, body=record.body))
                record.is_new = False
                record.headers, record.body = "", b""
            else:
                batch.updates.append(record.to_entry())
        batch.updates.extend(record.to_entry() for record in self._lazy.values())
        batch.results.extend(self._results.items())
        batch.deletes.extend(self._deletes)
        self._records, self._lazy, self._results, self._deletes = {}, {}, {}, []
        self._lazy_since_s = None
        return batch
