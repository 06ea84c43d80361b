"""Which tasks somebody here waits for, and outcomes that came before anybody did. Decides only; `stream` acts.

A result can overtake the answer to the submission that made its task, so outcomes of unknown tasks are kept:
for a bounded time and within a bounded size. Of those that had to go only the ids are remembered (also
bounded), so that whoever comes to wait for one knows to ask the service.

One ledger serves all streams of a process to a service: where two of them read the same queue, each gets
some of the other's results.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from farcall.sdk.outcomes import Ended

__all__ = ["Expected", "ResultLedger"]

W = TypeVar("W")
"""Who waits; opaque here."""


@dataclass(frozen=True, slots=True)
class Expected(Generic[W]):
    """What came of `expect`.

    Attributes:
        ready: outcomes that were here before.
        to_ask_for: ids whose outcome was here and had to go.
    """

    ready: list[tuple[W, Ended]]
    to_ask_for: list[str]


class ResultLedger(Generic[W]):
    """Open tasks by id; each belongs to a stream and a group. Not locked: whoever shares it is.

    Args:
        keep_s: how long an outcome of an unknown task is kept, in seconds.
        keep_bytes: how much of them is kept, counted in characters of their data.
        keep_ids: of how many that had to go the id is remembered.
    """

    def __init__(self, *, keep_s: float = 120.0, keep_bytes: int = 64 * 1024 * 1024, keep_ids: int = 100_000) -> None:
        self._keep_s, self._keep_bytes, self._keep_ids = keep_s, keep_bytes, keep_ids
        self._open: dict[str, tuple[object, str, list[W]]] = {}
        self._counts: Counter[object] = Counter()
        self._early: OrderedDict[str, tuple[float, Ended]] = OrderedDict()
        self._early_bytes = 0
        self._gone: OrderedDict[str, None] = OrderedDict()

    def count(self, stream: object) -> int:
        """How many tasks of a stream are waited for."""
        return self._counts[stream]

    def expect(self, stream: object, group: str, tasks: Iterable[tuple[str, W]]) -> Expected[W]:
        """Somebody waits for these tasks of a group from now on, for which `stream` is responsible."""
        ready: list[tuple[W, Ended]] = []
        to_ask_for: list[str] = []
        for task_id, waiter in tasks:
            early = self._early.pop(task_id, None) if self._early else None
            if early is not None:
                self._early_bytes -= len(early[1].data)
                ready.append((waiter, early[1]))
                continue
            entry = self._open.get(task_id)
            if entry is not None:
                entry[2].append(waiter)
                continue
            self._open[task_id] = (stream, group, [waiter])
            self._counts[stream] += 1
            if self._gone and task_id in self._gone:
                del self._gone[task_id]
                to_ask_for.append(task_id)
        return Expected(ready, to_ask_for)

    def arrived(self, outcomes: Iterable[Ended], *, now_s: float) -> list[tuple[W, Ended]]:
        """Outcomes came, in any order and perhaps twice; returns those that somebody waits for."""
        found: list[tuple[W, Ended]] = []
        for ended in outcomes:
            waiters = self.take(ended.task_id)
            if waiters:
                found.extend((waiter, ended) for waiter in waiters)
            elif ended.task_id not in self._early:
                self._early[ended.task_id] = (now_s, ended)
                self._early_bytes += len(ended.data)
        self._forget_old(now_s)
        return found

    def withheld(self, task_ids: Iterable[str]) -> list[str]:
        """These tasks have ended, and their outcomes did not come along: returns those that somebody waits for. The
        others are to be asked for once somebody does.
        """
        found: list[str] = []
        for task_id in task_ids:
            if task_id in self._open:
                found.append(task_id)
            elif task_id not in self._early:
                self._forget_outcome(task_id)
        return found

    def take(self, task_id: str) -> list[W]:
        """End the waiting for one task; returns who waited, empty if nobody did."""
        entry = self._open.pop(task_id, None)
        if entry is None:
            return []
        stream, _, waiters = entry
        self._counts[stream] -= 1
        if not self._counts[stream]:
            del self._counts[stream]
        return waiters

    def open_ids(self, stream: object, group: str | None = None) -> list[str]:
        """A stream's tasks that are waited for, of one group or of all, in the order in which they were expected."""
        return [
            task_id
            for task_id, (of_stream, of_group, _) in self._open.items()
            if of_stream is stream and (group is None or of_group == group)
        ]

    def take_all(self, stream: object) -> list[W]:
        """End the waiting for all tasks of a stream; returns who waited."""
        return [waiter for task_id in self.open_ids(stream) for waiter in self.take(task_id)]

    def _forget_old(self, now_s: float) -> None:
        while self._early:
            task_id, (since_s, ended) = next(iter(self._early.items()))
            if self._early_bytes <= self._keep_bytes and now_s - since_s <= self._keep_s:
                return
            del self._early[task_id]
            self._early_bytes -= len(ended.data)
            self._forget_outcome(task_id)

    def _forget_outcome(self, task_id: str) -> None:
        self._gone[task_id] = None
        if len(self._gone) > self._keep_ids:
            self._gone.popitem(last=False)
