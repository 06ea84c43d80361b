"""Results on their way to the service, and what is remembered of those that arrived. Pure.

A bounded window of results is under way at a time; what does not fit waits in the journal, without its bytes in
memory. A result that the broker refuses is published again after a growing delay.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from farcall.endpoint.agent.events import AgentPolicy, Publish

__all__ = ["Outbox", "Remembered"]

REFUSED_DELAY_S: Final = (1.0, 30.0)
"""First and longest wait before a refused result is published again; doubles in between."""


@dataclass(frozen=True, slots=True)
class _Parcel:
    seq: int
    task_id: str
    size_bytes: int


class Outbox:
    """Results that the service has not confirmed, oldest first."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy = policy
        self._waiting: deque[_Parcel] = deque()
        self._bodies: dict[int, bytes] = {}
        self._under_way: dict[str, _Parcel] = {}
        self._under_way_bytes = 0
        self._refused: list[_Parcel] = []
        self._delay_s = REFUSED_DELAY_S[0]
        self._retry_at_s: float | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way) + len(self._refused)

    @property
    def wake_at_s(self) -> float | None:
        """When refused results are due again; None: there are none."""
        return self._retry_at_s

    def add(self, task_id: str, seq: int, size_bytes: int, body: bytes | None = None) -> None:
        """A result that is to be published. `body` is kept for this turn only; afterwards the journal has it."""
        self._waiting.append(_Parcel(seq, task_id, size_bytes))
        if body is not None:
            self._bodies[seq] = body

    def confirm(self, task_id: str) -> bool:
        """The broker took it. False: nothing of this task is under way."""
        if not self._leave(task_id):
            return False
        self._delay_s = REFUSED_DELAY_S[0]
        return True

    def refuse(self, task_id: str, *, now_s: float) -> None:
        """The broker did not take it."""
        parcel = self._leave(task_id)
        if parcel is None:
            return
        self._refused.append(parcel)
        if self._retry_at_s is None:
            self._retry_at_s = now_s + self._delay_s
            self._delay_s = min(self._delay_s * 2, REFUSED_DELAY_S[1])

    def drop(self, task_id: str) -> None:
        """Forget the result of this task, if it is under way."""
        self._leave(task_id)

    def take_due(self, *, now_s: float) -> list[Publish]:
        """What is to be published now. Called once at the end of a turn."""
        if self._retry_at_s is not None and now_s >= self._retry_at_s:
            self._waiting.extend(self._refused)
            self._refused.clear()
            self._retry_at_s = None
        due: list[Publish] = []
        while self._waiting and self._fits(self._waiting[0]):
            parcel = self._waiting.popleft()
            self._under_way[parcel.task_id] = parcel
            self._under_way_bytes += parcel.size_bytes
            body = self._bodies.pop(parcel.seq, None)
            due.append(Publish(seq=parcel.seq, task_id=parcel.task_id, body=body))
        self._bodies.clear()
        return due

    def _fits(self, parcel: _Parcel) -> bool:
        if not self._under_way:
            return True  # one result may be larger than the whole window
        return (
            len(self._under_way) < self._policy.publish_tasks
            and self._under_way_bytes + parcel.size_bytes <= self._policy.publish_bytes
        )

    def _leave(self, task_id: str) -> _Parcel | None:
        parcel = self._under_way.pop(task_id, None)
        if parcel is not None:
            self._under_way_bytes -= parcel.size_bytes
        return parcel


class Remembered:
    """Tasks that ended and are confirmed, kept to recognise a late copy, within bounds of age, number and bytes."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy = policy
        self._tasks: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task_id: str, *, confirmed_s: float, size_bytes: int) -> None:
        """Remember this task, as the latest."""
        self._tasks[task_id] = (confirmed_s, size_bytes)
        self._bytes += size_bytes

    def remove(self, task_id: str) -> None:
        """The task is wanted again: it is no longer to be forgotten."""
        _, size_bytes = self._tasks.pop(task_id)
        self._bytes -= size_bytes

    def take_forgettable(self, *, unix_s: float) -> list[str]:
        """The ids that need not be remembered any longer; they are gone from here."""
        policy = self._policy
        gone: list[str] = []
        while self._tasks:
            task_id, (confirmed_s, size_bytes) = next(iter(self._tasks.items()))
            is_old = unix_s - confirmed_s >= policy.retention_s
            is_over = len(self._tasks) > policy.retention_tasks or self._bytes > policy.retention_bytes
            if not (is_old or is_over):
                break
            del self._tasks[task_id]
            self._bytes -= size_bytes
            gone.append(task_id)
        return gone
