"""`make bench`: speed and size of the whole way, beside bare Parsl, in one run on this machine.

Prints one JSON line per figure: `{"figure": …, "value": …, "unit": …, …}`. Machines are noisy: compare ratios within a
run, not figures of different runs. `python -m benchmarks --only htex,farcall-processes --tasks 1000` for a shorter one;
`--only servers-queued,…` for what `make bench-servers` measures. Suites of servers start a PostgreSQL and a RabbitMQ of
their own; without those programs they are left out, with the reason.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for its servers

from benchmarks import backpressure, bare_htex, idle_endpoints, open_pages, scaling, user_endpoints, whole_way
from set_ups import missing_servers

Suite = Callable[[Path, int], dict[str, float]]


def _fixed(measure: Callable[..., dict[str, float]], setup: str = "embedded") -> Suite:
    """A suite whose size is its own."""
    return lambda root, _: measure(root, setup=setup)


SUITES: dict[str, Suite] = {
    "htex": bare_htex.measure,
    "farcall-htex": whole_way.measure_htex,
    "farcall-processes": whole_way.measure_processes,
    "servers-processes": whole_way.measure_servers,
    "backpressure": _fixed(backpressure.measure),
    "endpoints": _fixed(scaling.measure_endpoints),
    "queued": _fixed(scaling.measure_queued),
    "idle": _fixed(idle_endpoints.measure),
    "user-endpoints": _fixed(user_endpoints.measure),
    "console": _fixed(open_pages.measure),
}
LONG: dict[str, Suite] = {
    "servers-backpressure": _fixed(backpressure.measure, "servers"),
    "servers-endpoints": _fixed(scaling.measure_endpoints, "servers"),
    "servers-queued": _fixed(scaling.measure_queued, "servers"),
    "servers-idle": _fixed(idle_endpoints.measure, "servers"),
}
_UNITS = {"s": "s", "ms": "ms", "us": "us", "mib": "MiB", "kib": "KiB", "percent": "%", "ratio": "ratio"}


def emit(figure: str, value: float, unit: str, **more: object) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, **more}), flush=True)


def unit_of(name: str) -> str:
    """The unit is the end of a figure's name: `round_trip_median_ms` → ms. Without one it is a number of things."""
    return "1/s" if name.endswith("per_s") else _UNITS.get(name.rpartition("_")[2], "1")


def why_not(suite: str) -> str | None:
    """What a suite needs and this machine lacks."""
    return missing_servers() if suite.startswith("servers") else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {**SUITES, **LONG}
    parser.add_argument("--only", default=",".join(SUITES), help="comma list of: " + ", ".join(known))
    parser.add_argument("--tasks", type=int, default=5000, help="no-ops in one throughput run (default 5000)")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for suite in options.only.split(","):
        reason = why_not(suite)
        if reason is not None:
            print(json.dumps({"figure": suite, "left_out": reason}), flush=True)
            continue
        root = Path(tempfile.mkdtemp(prefix=f"farcall-bench-{suite}-"))
        try:
            results[suite] = known[suite](root, options.tasks)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        for name, value in results[suite].items():
            more = {"tasks": options.tasks} if "round_trip_median_ms" in results[suite] else {}
            emit(f"{suite}.{name}", value, unit_of(name), **more)
    _compare(results)


def _compare(results: dict[str, dict[str, float]]) -> None:
    """Round trip and throughput as ratios of bare Parsl's, and those over servers of the embedded ones."""
    for base, name in (("htex", "htex"), ("farcall-processes", "embedded")):
        for suite, figures in results.items():
            is_one = suite.startswith("farcall") if name == "htex" else suite == "servers-processes"
            if base not in results or not is_one:
                continue
            for figure, short in (("round_trip_median_ms", "round_trip"), ("throughput_per_s", "throughput")):
                emit(f"{suite}.{short}_vs_{name}", figures[figure] / results[base][figure], "ratio")


if __name__ == "__main__":
    main()
