"""How results reach the clients of a task group: the seam between the relay and its two ways to do that.

`feeding.ResultFeeds` feeds the queues that are being read, from the store, as their readers acknowledge: for the
embedded broker, which sees all of that. `rabbit.copies.ResultCopies` hands each result once to a broker that keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from farcall.service.relay.results import TaskRef
from farcall.service.relay.store import EndedTask
from farcall.wire.topology import GroupQueue

__all__ = ["ResultsOut"]


class ResultsOut(Protocol):
    """Called on the event loop; only what is async waits."""

    def submitted(self, queue: GroupQueue) -> None:
        """Tasks of a group were submitted, by a client that will read this shared queue."""
        ...

    def ensure_queue(self, queue: GroupQueue) -> None:
        """Make a queue that somebody is about to read: at once, or as soon as may be."""
        ...

    async def prepare_queue(self, queue: GroupQueue) -> None:
        """The same; it is there when this returns, if it can be."""
        ...

    def committed(self, owner_id: str, group_id: str, ended: Sequence[EndedTask], completed_at: float) -> None:
        """Results of one group have been committed. In the order of the commits."""
        ...

    async def again(self, tasks: Sequence[TaskRef]) -> None:
        """The results of these tasks came again from the broker although they are stored: whoever stored them may
        have gone before the groups were told."""
        ...

    def consumers(self, queue: GroupQueue, count: int) -> None:
        """A consumer of the queue came or went; `count` are there now."""
        ...

    def settled(self, queue: GroupQueue, count: int) -> bool:
        """A client acknowledged. Returns whether there is something to be written (`unwritten`)."""
        ...

    def drop_idle_queues(self) -> None:
        """Called now and then."""
        ...

    @property
    def unwritten(self) -> dict[str, int]:
        """Group → up to which result its client has acknowledged, where that is not stored yet."""
        ...

    def written(self, delivered: dict[str, int]) -> None:
        """This has been stored."""
        ...
