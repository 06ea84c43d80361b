"""`ComputeFuture`: the future of one call on an endpoint.

Keeps the contract of `concurrent.futures`. Its state stays pending until the call has ended, because nobody here
knows when a worker takes it up; so `running()` is always False, and `cancel()` means exactly what it means there: if it
returns True, the call does not deliver a result any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from enum import Enum
from typing import Any, TypeVar

from farcall.wire.errors import TaskCancelled

__all__ = ["ComputeFuture", "OpenCount", "Phase"]

_T = TypeVar("_T")

_SENDING_PATIENCE_S = 5.0


class Phase(Enum):
    """How far a call has got on its way to the service."""

    WAITING = "waiting"
    """In this process only."""
    SENDING = "sending"
    """In a request whose answer has not come yet."""
    ACCEPTED = "accepted"
    """Stored by the service; `task_id` is set."""


class ComputeFuture(Future[_T]):
    """What will become of one call: its value, the exception that it raised, or why it could not run.

    Attributes:
        task_id: the id that the service gave the call; None until it has accepted it.
    """

    def __init__(self, task_id: str | None = None) -> None:
        super().__init__()
        self.task_id = task_id
        self._phase = Phase.WAITING if task_id is None else Phase.ACCEPTED
        self._is_cancelling = False
        self._is_ending_cancelled = False
        self._sent: threading.Event | None = None
        self._cancel_remotely: Callable[[str], bool] | None = None
        self._on_end: Callable[[], None] | None = None

    def __repr__(self) -> str:
        task = self.task_id or "none yet"
        return f"{super().__repr__()[:-1]} task_id={task}>"

    def wait_accepted(self, timeout_s: float | None = None) -> str | None:
        """Wait until the service has accepted the call, or it has ended without; returns `task_id`."""
        with self._condition:
            if self._phase is Phase.ACCEPTED or self.done():
                return self.task_id
            sent = self._sent = self._sent or threading.Event()
        sent.wait(timeout_s)
        return self.task_id

    def cancel(self) -> bool:
        """Try to prevent the call, wherever it is.

        A call that has not left this process is dropped. One that the service has accepted is cancelled there, which
        takes one request: it does not start any more, or its outcome is discarded if it runs already. A call
        that is just being sent is waited for, at most some seconds.

        Returns:
            True if the call is cancelled (`result()` raises CancelledError then); False if it has ended
            before, or the service could not be asked.
        """
        self._wait_sent()
        with self._condition:
            if self.done():
                return self.cancelled()
            if self._phase is Phase.SENDING or (self._phase is Phase.ACCEPTED and self._cancel_remotely is None):
                return False
            task_id, cancel_remotely = self.task_id, self._cancel_remotely
            self._is_cancelling = True
        if task_id is None or cancel_remotely is None or cancel_remotely(task_id):
            return self._end_cancelled()
        self._is_cancelling = False
        return self.cancelled()

    def _wait_sent(self) -> None:
        with self._condition:
            if self._phase is not Phase.SENDING or self.done():
                return
            # Not the future's own condition: `result()` takes any notification for the end or the time-out.
            sent = self._sent = self._sent or threading.Event()
        sent.wait(_SENDING_PATIENCE_S)

    def _end_cancelled(self) -> bool:
        with self._condition:
            is_first = not self._is_ending_cancelled
            self._is_ending_cancelled = True
        if not super().cancel():
            return False
        if is_first:
            # Now rather than when somebody takes it up: `wait` and `as_completed` count only notified ones.
            self.set_running_or_notify_cancel()
            self._ended()
        return True

    def begin_sending(self) -> bool:
        """For the submitter: the call is about to leave; False if it must not, because it was cancelled."""
        with self._condition:
            if self.done() or self._is_cancelling:
                return False
            self._phase = Phase.SENDING
            return True

    def accept(self, task_id: str) -> None:
        """For the submitter: the service has stored the call."""
        with self._condition:
            self.task_id = task_id
            self._phase = Phase.ACCEPTED
        if self._sent is not None:
            self._sent.set()

    def finish(self, value: Any = None, error: BaseException | None = None) -> bool:
        """End with a value or an error, unless it has ended before; returns whether it ended now. Never raises."""
        try:
            if error is None:
                self.set_result(value)
            elif self._is_cancelling and isinstance(error, TaskCancelled):
                return self._end_cancelled()  # our own cancellation came back before the answer to its request
            else:
                self.set_exception(error)
        except InvalidStateError:
            return False
        self._ended()
        return True

    def _ended(self) -> None:
        if self._sent is not None:
            self._sent.set()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()


class OpenCount:
    """How many futures of an Executor have not ended, and a way to wait until none is left."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._count = 0

    def enter(self, future: ComputeFuture[Any]) -> None:
        with self._changed:
            self._count += 1
        future._on_end = self._leave

    def _leave(self) -> None:
        with self._changed:
            self._count -= 1
            if self._count == 0:
                self._changed.notify_all()

    @property
    def count(self) -> int:
        return self._count

    def wait_none(self, timeout_s: float | None = None) -> bool:
        """Wait until all have ended; False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_s)
