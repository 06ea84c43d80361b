"""Who is told what happens at endpoints, beside those who work on it: pages that are being looked at, and history.

On the way of each batch of tasks, so whoever looks on must return at once. What they raise is theirs: it is logged,
and the tasks go their way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["Onlooker", "Onlookers"]

_logger = logging.getLogger(__name__)


class Onlooker(Protocol):
    """Called on the event loop, after the commit where there is one."""

    def reported(self, endpoint_id: str, state: Mapping[str, Any]) -> None:
        """A status report has come to this process, with this `global_state`."""
        ...

    def submitted(self, endpoint_id: str, count: int, manager_id: str | None) -> None:
        """This process has stored tasks. `manager_id`: of whom the endpoint is a user endpoint, if it is one."""
        ...

    def ended(self, endpoint_id: str, succeeded: int, failed: int) -> None:
        """This process has stored ends of tasks."""
        ...

    def away(self, endpoint_id: str) -> None:
        """Nothing takes its tasks any more."""
        ...

    def changed(self, endpoint_id: str) -> None:
        """Something else is new: it attached, was registered or deleted, or another process told of its tasks."""
        ...


class Onlookers:
    """All of them, as one."""

    def __init__(self) -> None:
        self._all: list[Onlooker] = []

    def add(self, onlooker: Onlooker) -> None:
        self._all.append(onlooker)

    def reported(self, endpoint_id: str, state: Mapping[str, Any]) -> None:
        self._tell(lambda each: each.reported(endpoint_id, state))

    def submitted(self, endpoint_id: str, count: int, manager_id: str | None) -> None:
        self._tell(lambda each: each.submitted(endpoint_id, count, manager_id))

    def ended(self, endpoint_id: str, succeeded: int, failed: int) -> None:
        self._tell(lambda each: each.ended(endpoint_id, succeeded, failed))

    def away(self, endpoint_id: str) -> None:
        self._tell(lambda each: each.away(endpoint_id))

    def changed(self, endpoint_id: str) -> None:
        self._tell(lambda each: each.changed(endpoint_id))

    def _tell(self, tell: Callable[[Onlooker], None]) -> None:
        for each in self._all:
            try:
                tell(each)
            except Exception:
                _logger.exception("What happened at an endpoint was not noted", extra={"event": "onlookers.failed"})
