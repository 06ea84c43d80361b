"""The event loop of one connection thread: sockets, timers, and calls from other threads.

It has the methods that pika expects of a loop given to it (`pika.adapters.utils.selector_ioloop_adapter`), and two
things that pika's own lacks: a wake-up is sent only when the thread may be asleep, one for any number of calls; and
a turn has a beginning (`on_input`, after sockets were read) and an end (`on_turn`, before it sleeps), where batches
form. Nothing here knows AMQP.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["THREAD_PREFIX", "Loop", "Timer"]

THREAD_PREFIX = "farcall-amqp-"
"""Names of threads that run a loop begin so."""


class Timer:
    """A call that is due later; `callback` is None once it was made or cancelled."""

    __slots__ = ("callback", "due_s")

    def __init__(self, due_s: float, callback: Callable[[], None]) -> None:
        self.due_s = due_s
        self.callback: Callable[[], None] | None = callback


class Loop:
    """Run by one thread with `start`. Only `post`, `add_callback` and `stop` may be called from others.

    Args:
        on_input: called in each turn after sockets were served, before posted calls.
        on_turn: called last in each turn.
        on_crash: told of an exception that a handler or callback let through; the loop goes on.
    """

    READ = selectors.EVENT_READ
    WRITE = selectors.EVENT_WRITE
    ERROR = 0  # selectors report errors as readiness, which is where pika looks for them

    def __init__(
        self,
        on_input: Callable[[], None],
        on_turn: Callable[[], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._on_input = on_input
        self._on_turn = on_turn
        self._on_crash = on_crash
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[int, Callable[[int, int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._posts: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._wake_sent = False
        self._wake_lock = threading.Lock()
        self._stopping = False
        self._is_closed = False
        self._thread_id: int | None = None
        self._wake_out, self._wake_in = os.pipe()
        for fd in (self._wake_out, self._wake_in):
            os.set_blocking(fd, False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)

    @property
    def is_own_thread(self) -> bool:
        return threading.get_ident() == self._thread_id

    # From any thread

    def post(self, callback: Callable[..., Any], *args: Any) -> bool:
        """Call this on the loop's thread, in the order of posting. False: never, because the loop has closed."""
        entry = (callback, args)
        self._posts.append(entry)
        # The flag is cleared before posts are taken, so whoever sees it set is seen by that taking.
        if not self._wake_sent and threading.get_ident() != self._thread_id:
            self._wake_sent = True
            self._wake()
        if self._is_closed:
            try:
                self._posts.remove(entry)
            except ValueError:
                return True  # `close` has taken it
            return False
        return True

    def add_callback(self, callback: Callable[[], Any]) -> None:
        """`post`, by the name that pika knows."""
        self.post(callback)

    add_callback_threadsafe = add_callback

    def stop(self) -> None:
        """End `start` after the turn that is under way."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        # Without the lock a byte could go into whatever file got the descriptor's number after `close`.
        with self._wake_lock:
            if self._wake_in >= 0:
                try:
                    os.write(self._wake_in, b"x")
                except BlockingIOError:
                    pass  # full of such bytes, so it will wake anyway

    # On the loop's thread

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + max(0.0, delay_s), callback)
        heapq.heappush(self._timers, (timer.due_s, next(self._order), timer))
        return timer

    def remove_timeout(self, timer: Timer) -> None:
        timer.callback = None

    def add_handler(self, fd: int, handler: Callable[[int, int], None], events: int) -> None:
        self._handlers[fd] = handler
        self._selector.register(fd, events)

    def update_handler(self, fd: int, events: int) -> None:
        self._selector.modify(fd, events)

    def remove_handler(self, fd: int) -> None:
        self._handlers.pop(fd, None)
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError, OSError):
            pass  # never registered, or the descriptor is closed already

    def start(self) -> None:
        """Run until `stop`."""
        self._thread_id = threading.get_ident()
        while not self._stopping:
            try:
                self._turn()
            except Exception as exc:
                self._wake_sent = False
                self._on_crash(exc)

    def close(self) -> None:
        """Make the calls that are still posted, release the descriptors; after `start` returned, on its thread."""
        self._is_closed = True
        self._run_posts()
        self._selector.close()
        with self._wake_lock:
            os.close(self._wake_out)
            os.close(self._wake_in)
            self._wake_in = -1
        self._timers.clear()
        self._handlers.clear()

    def _turn(self) -> None:
        ready = self._selector.select(self._wait_s())
        self._wake_sent = True  # awake: until posts are taken, nobody needs to wake us
        for key, events in ready:
            handler = self._handlers.get(key.fd)
            if handler is not None:
                handler(key.fd, events)
            elif key.fd == self._wake_out:
                os.read(self._wake_out, 4096)
        self._on_input()
        self._run_timers()
        self._wake_sent = False
        self._run_posts()
        self._on_turn()

    def _run_posts(self) -> None:
        posts = self._posts
        for _ in range(len(posts)):
            callback, args = posts.popleft()
            callback(*args)

    def _wait_s(self) -> float | None:
        if self._posts or self._stopping:
            return 0.0
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - time.monotonic()) if timers else None

    def _run_timers(self) -> None:
        timers = self._timers
        if not timers:
            return
        now_s = time.monotonic()
        due: list[Timer] = []
        while timers and timers[0][0] <= now_s:
            due.append(heapq.heappop(timers)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
