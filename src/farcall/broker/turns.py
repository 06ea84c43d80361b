"""Work put off to the end of the loop turn, so that what happens many times in a turn is told once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

__all__ = ["Defer", "Turns", "on_running_loop"]

_logger = logging.getLogger(__name__)

Defer = Callable[[Callable[[], None]], object]
"""Arranges for a function to be called soon, once, and not from inside this call (`loop.call_soon`)."""


def on_running_loop(job: Callable[[], None]) -> None:
    """`call_soon` of whatever event loop is running. Raises RuntimeError if none is."""
    asyncio.get_running_loop().call_soon(job)


class Turns:
    """Jobs of this turn, done in order when the turn ends.

    Args:
        defer: how the end of the turn is arranged.
    """

    def __init__(self, defer: Defer) -> None:
        self._defer = defer
        self._jobs: list[Callable[[], None]] = []

    def soon(self, job: Callable[[], None]) -> None:
        if not self._jobs:
            self._defer(self.finish)
        self._jobs.append(job)

    def finish(self) -> None:
        """Do the jobs. Those that they add belong to the next turn; one that fails does not stop the others."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            try:
                job()
            except Exception:
                _logger.exception("A callback of the broker's owner failed", extra={"event": "broker.callback_failed"})
