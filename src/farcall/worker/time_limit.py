"""A site's limit on the duration of any task: `GC_TASK_TIMEOUT` (or `FARCALL_TASK_TIMEOUT`), in seconds.

In the main thread of a process a timer signal (SIGALRM) interrupts the task, also while it waits in a system
call. In other threads Python has nothing of the kind: the exception is delivered between two bytecodes, so a
task that waits in C code (a `sleep`, a socket) ends only when that call returns. A ShellFunction's command is
ended in time in any thread.
"""

from __future__ import annotations

import logging
import os
import threading
from time import monotonic
from types import FrameType, TracebackType

__all__ = ["TaskTimedOut", "TimeLimit", "limit_from_environment"]

_log = logging.getLogger(__name__)

_NAMES = ("GC_TASK_TIMEOUT", "FARCALL_TASK_TIMEOUT")


class TaskTimedOut(BaseException):
    """Raised inside of a task whose time is up. Not an Exception, so that `except Exception` lets it pass."""


def limit_from_environment() -> float | None:
    """The site's limit in seconds; None if there is none, or it is no positive number (which is logged)."""
    for name in _NAMES:
        text = os.environ.get(name)
        if not text:
            continue
        try:
            limit_s = float(text)
        except ValueError:
            limit_s = 0.0
        if limit_s > 0:
            return limit_s
        _log.warning(
            "A task time-out that is no positive number of seconds is ignored",
            extra={"event": "worker.bad_timeout", "variable": name, "value": text},
        )
    return None


class TimeLimit:
    """A context manager that raises `TaskTimedOut` in its body after `limit_s` seconds; None: never."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self._active = False
        self._fired = False
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._thread_id = 0

    def __enter__(self) -> TimeLimit:
        if self.limit_s is None:
            return self
        self._active = True
        if threading.current_thread() is threading.main_thread():
            import signal

            self._former = signal.signal(signal.SIGALRM, self._on_signal)
            self._since_s = monotonic()
            self._former_timer = signal.setitimer(signal.ITIMER_REAL, self.limit_s)
        else:
            self._thread_id = threading.get_ident()
            self._timer = threading.Timer(self.limit_s, self._on_timer)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self.limit_s is None:
            return
        if self._timer is None:
            import signal

            self._active = False  # first: from here on a late signal does nothing
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._former)
            delay_s, interval_s = self._former_timer
            if delay_s > 0:  # somebody else's timer goes on
                left_s = max(delay_s - (monotonic() - self._since_s), 1e-6)
                signal.setitimer(signal.ITIMER_REAL, left_s, interval_s)
            return
        with self._lock:
            self._active = False
            self._timer.cancel()
            if self._fired:
                _raise_in_thread(self._thread_id, None)  # takes back what has not been delivered yet

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._active:
            self._active = False
            raise TaskTimedOut

    def _on_timer(self) -> None:
        with self._lock:
            if self._active:
                self._fired = True
                _raise_in_thread(self._thread_id, TaskTimedOut)


def _raise_in_thread(thread_id: int, kind: type[BaseException] | None) -> None:
    import ctypes

    exception = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), exception)
