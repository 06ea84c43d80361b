"""`make bench`: speed and size of the whole way, beside bare Parsl, in one run on this machine.

Prints one JSON line per figure: `{"figure": …, "value": …, "unit": …, …}`. Machines are noisy: compare ratios within a
run, not figures of different runs. `python -m benchmarks --only htex,farcall-processes --tasks 1000` for a shorter one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import bare_htex, whole_way

SUITES: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "htex": bare_htex.measure,
    "farcall-htex": whole_way.measure_htex,
    "farcall-processes": whole_way.measure_processes,
}


def emit(figure: str, value: float, unit: str, **more: object) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, **more}), flush=True)


def unit_of(name: str) -> str:
    """The unit is the end of a figure's name: `round_trip_median_ms` → ms."""
    return {"per_s": "1/s", "ms": "ms", "mib": "MiB", "us": "us", "percent": "%"}[
        "per_s" if name.endswith("per_s") else name.rsplit("_", 1)[1]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SUITES), help="comma list of: " + ", ".join(SUITES))
    parser.add_argument("--tasks", type=int, default=5000, help="no-ops in one throughput run (default 5000)")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for suite in options.only.split(","):
        root = Path(tempfile.mkdtemp(prefix=f"farcall-bench-{suite}-"))
        try:
            results[suite] = SUITES[suite](root, options.tasks)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        for name, value in results[suite].items():
            emit(f"{suite}.{name}", value, unit_of(name), tasks=options.tasks)
    if "htex" in results:
        bare = results["htex"]
        for suite in results.keys() - {"htex"}:
            ours = results[suite]
            emit(f"{suite}.round_trip_vs_htex", ours["round_trip_median_ms"] / bare["round_trip_median_ms"], "ratio")
            emit(f"{suite}.throughput_vs_htex", ours["throughput_per_s"] / bare["throughput_per_s"], "ratio")


if __name__ == "__main__":
    main()
