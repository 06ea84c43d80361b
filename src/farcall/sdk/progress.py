"""A progress bar for futures, fed by their callbacks: `with progress(futures, "Sweeping"): …`.

On a terminal a bar with counts and times; elsewhere (a log, a pipe) a line for about every tenth of the calls.
Works with any `concurrent.futures` future.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["progress"]

_LINES = 10

_Tell = Callable[[int, int], None]
"""Shows how many have ended, and how many of them failed."""


@contextmanager
def progress(
    futures: Iterable[Future[Any]], title: str = "Calls", *, console: Console | None = None
) -> Iterator[Console]:
    """Show how many of the futures have ended, and how many of them failed, until the `with` statement ends.

    Waits for nothing: do that inside.

    Args:
        console: where; standard error if None.

    Yields:
        The console: what is printed to it appears above the bar.
    """
    console = console or Console(stderr=True)
    watched = list(futures)
    show = _bar if console.is_terminal else _lines
    with show(console, title, len(watched)) as tell:
        count = _Count(tell)
        for future in watched:
            future.add_done_callback(count.ended)
        try:
            yield console
        finally:
            count.close()


class _Count:
    """Counts ends from whatever thread, and passes each on under a lock, so that the numbers only grow."""

    def __init__(self, tell: _Tell) -> None:
        self._lock = threading.Lock()
        self._tell = tell
        self._done = self._failed = 0
        self._is_closed = False

    def ended(self, future: Future[Any]) -> None:
        failed = future.cancelled() or future.exception() is not None
        with self._lock:
            self._done += 1
            self._failed += failed
            if not self._is_closed:
                self._tell(self._done, self._failed)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True


@contextmanager
def _bar(console: Console, title: str, total: int) -> Iterator[_Tell]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failures]}", style="red"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, failures="")

        def tell(done: int, failed: int) -> None:
            bar.update(task, completed=done, failures=f"{failed} failed" if failed else "")

        yield tell


@contextmanager
def _lines(console: Console, title: str, total: int) -> Iterator[_Tell]:
    shown = 0

    def tell(done: int, failed: int) -> None:
        nonlocal shown
        step = done * _LINES // total
        if step > shown:
            shown = step
            failures = f", {failed} failed" if failed else ""
            console.print(f"{title}: {done} of {total} done{failures}", markup=False, highlight=False)

    yield tell
