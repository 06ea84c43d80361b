"""Calls that write down where they run that they ran, and what must be true of them at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, as_completed, wait
from pathlib import Path
from typing import Any

from farcall.testing.functions import by_value

__all__ = ["TIMEOUT_S", "check_all", "first_done", "note_and_return", "wait_at"]

TIMEOUT_S = 150


@by_value
def note_and_return(log: str, number: int, seconds: float) -> int:
    import os
    import time

    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % number)
    os.close(fd)
    time.sleep(seconds)
    return number


@by_value
def wait_at(gate: str) -> None:
    with open(gate) as fifo:
        fifo.read()


def first_done(futures: Iterable[Future[Any]], count: int) -> None:
    """Wait until `count` of the futures are done."""
    for done, _ in enumerate(as_completed(futures, timeout=TIMEOUT_S), 1):
        if done >= count:
            return


def check_all(futures: dict[int, Future[int]], log: Path) -> None:
    """Each call has returned its number and was executed once."""
    _, silent = wait(futures.values(), timeout=TIMEOUT_S)
    assert not silent, f"{len(silent)} of {len(futures)} tasks never ended"
    assert {number: future.result() for number, future in futures.items()} == {number: number for number in futures}
    executions = Counter(int(line) for line in log.read_text().split())
    assert executions == dict.fromkeys(futures, 1), "a task was lost or ran twice although no agent and no worker died"
