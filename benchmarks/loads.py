"""The loads that are put on every system under measurement, given a `submit(function, *args) -> Future`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from farcall.testing.functions import by_value

Submit = Callable[..., "Future[Any]"]

ROUND_TRIPS = 300
ECHOES = 60
MIB = 1024 * 1024


@by_value
def noop() -> None:
    return None


@by_value
def echo(value: Any) -> Any:
    return value


def round_trip(submit: Submit) -> dict[str, float]:
    """Submit one no-op at a time."""
    times = []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        submit(noop).result(timeout=60)
        times.append((time.perf_counter() - started) * 1e3)
    times.sort()
    return {
        "round_trip_median_ms": statistics.median(times),
        "round_trip_p95_ms": times[int(len(times) * 0.95)],
    }


def throughput(submit: Submit, tasks: int, repeats: int = 3) -> dict[str, float]:
    """`tasks` no-ops at once; the median of three."""
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        futures = [submit(noop) for _ in range(tasks)]
        for future in futures:
            future.result(timeout=300)
        rates.append(tasks / (time.perf_counter() - started))
    return {"throughput_per_s": statistics.median(rates)}


def megabyte_echo(submit: Submit) -> dict[str, float]:
    """1 MiB there and back, several in flight."""
    value = bytes(range(256)) * (MIB // 256)
    started = time.perf_counter()
    futures = [submit(echo, value) for _ in range(ECHOES)]
    for future in futures:
        assert len(future.result(timeout=300)) == MIB
    return {"echo_1mib_per_s": ECHOES / (time.perf_counter() - started)}
