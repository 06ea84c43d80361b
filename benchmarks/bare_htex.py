"""Parsl's HighThroughputExecutor by itself: two workers, the settings of the endpoint it is compared with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks import loads


def measure(root: Path, tasks: int) -> dict[str, float]:
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    provider.script_dir = str(root)
    executor = HighThroughputExecutor(
        label="bare", max_workers_per_node=2, encrypted=True, address="127.0.0.1", provider=provider
    )
    executor.run_dir = str(root)
    executor.start()
    try:
        executor.scale_out_facade(1)

        def submit(function: object, *args: object) -> object:
            return executor.submit(function, {}, *args)

        submit(loads.noop).result(timeout=60)  # type: ignore[attr-defined]  # Parsl is untyped
        return {
            **loads.round_trip(submit),  # type: ignore[arg-type]
            **loads.throughput(submit, tasks),  # type: ignore[arg-type]
            **loads.megabyte_echo(submit),  # type: ignore[arg-type]
        }
    finally:
        executor.scale_in_facade(1)  # shutdown alone leaves the workers until they miss its heartbeats
        executor.shutdown()
