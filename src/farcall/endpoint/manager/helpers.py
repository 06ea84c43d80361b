"""Threads for what may take its time, so that the manager's loop does not. They never keep the process alive."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

__all__ = ["Helpers"]

_log = logging.getLogger(__name__)

THREADS_LIMIT: Final = 8


class Helpers:
    """At most THREADS_LIMIT threads, made when they are needed. `do` and `close` from one thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._changed = threading.Condition()
        self._undone = self._threads = 0

    def do(self, work: Callable[[], None]) -> None:
        """Do this, soon, in some thread. What it raises is logged."""
        with self._changed:
            self._undone += 1
            if self._undone > self._threads and self._threads < THREADS_LIMIT:
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._queue.put(work)

    def close(self, timeout_s: float) -> None:
        """Wait until all is done, not longer than this."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            self._changed.wait_for(lambda: not self._undone, max(0.0, until_s - time.monotonic()))

    def _work(self) -> None:
        while True:
            work = self._queue.get()
            try:
                work()
            except Exception:
                _log.exception("A helper failed unexpectedly.", extra={"event": "manager.helper_failed"})
            with self._changed:
                self._undone -= 1
                self._changed.notify_all()
