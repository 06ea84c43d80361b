"""Who reads the task queues, as far as RabbitMQ tells. Decides only; `transport` asks and tells.

RabbitMQ announces each consumer that comes or goes, and answers how many a queue has when it is declared. Both travel
on ways of their own, so either may arrive first; an answer that may be older than an announcement does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Ask", "Command", "Consumers", "Tell"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Look at the queue, and then call `counted` with this `serial`."""

    queue: str
    serial: int


@dataclass(frozen=True, slots=True)
class Tell:
    """The queue has so many consumers now. 0 and then 1: another one than before."""

    queue: str
    count: int


Command = Ask | Tell


class Consumers:
    """The task queues of one connection to the broker."""

    def __init__(self) -> None:
        self._serials: dict[str, int] = {}
        self._attached: set[str] = set()
        self._serial = 0

    def __contains__(self, queue: object) -> bool:
        """Whether the queue is watched."""
        return queue in self._serials

    def watch(self, queue: str) -> list[Command]:
        """Begin with a queue, which is to be made by looking at it."""
        if queue in self._serials:
            return []
        return [self._ask(queue)]

    @property
    def watched(self) -> list[str]:
        return list(self._serials)

    def unwatch(self, queue: str) -> list[Command]:
        """It is none of our business any more."""
        self._serials.pop(queue, None)
        return self._left(queue)

    def came(self, queue: str) -> list[Command]:
        """A consumer was announced. It knows nothing yet, even if there seemed to be one already."""
        if queue not in self._serials:
            return []
        self._serials[queue] = 0  # whatever is being asked is older than this
        return [*self._left(queue), *self._joined(queue)]

    def went(self, queue: str) -> list[Command]:
        """A consumer's end was announced; another may be there."""
        if queue not in self._serials:
            return []
        return [self._ask(queue)]

    def counted(self, queue: str, serial: int, count: int) -> list[Command]:
        """The answer to `Ask`."""
        if self._serials.get(queue) != serial:
            return []
        if count:
            return self._joined(queue)
        # Told even if there seemed to be none: whoever watched it before us may have seen one.
        return self._left(queue) or [Tell(queue, 0)]

    def lost(self) -> list[Command]:
        """The connection is gone, and with it all that was known."""
        self._serials.clear()
        return [command for queue in sorted(self._attached) for command in self._left(queue)]

    def _ask(self, queue: str) -> Ask:
        self._serial += 1
        self._serials[queue] = self._serial
        return Ask(queue, self._serial)

    def _joined(self, queue: str) -> list[Command]:
        if queue in self._attached:
            return []
        self._attached.add(queue)
        return [Tell(queue, 1)]

    def _left(self, queue: str) -> list[Command]:
        if queue not in self._attached:
            return []
        self._attached.discard(queue)
        return [Tell(queue, 0)]


def queue_of(headers: Any) -> str | None:
    """The queue that an announcement is about; None if it cannot be told."""
    queue = headers.get("queue")
    return queue if isinstance(queue, str) else None
