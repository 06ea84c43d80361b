"""Tasks that wait for an endpoint cost disk, not memory. The figures for ten times as many: `make bench`."""

from __future__ import annotations

from concurrent.futures import wait
from pathlib import Path

import psutil
import pytest

from farcall import Executor
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem

THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n"
TASKS, TEXT = 10_000, "x" * 10_240  # 100 MB in all
MIB = 1024 * 1024
LIMIT_MIB = 40
TIMEOUT_S = 150


@by_value
def length(text: str) -> int:
    return len(text)


def pss_mib(pid: int) -> float:
    return psutil.Process(pid).memory_full_info().pss / MIB


@pytest.mark.on_servers
def test_ten_thousand_waiting_tasks_are_not_kept_in_memory(system: ProcessSystem, tmp_path: Path) -> None:
    endpoint = system.endpoint(config=THREADS)
    with Executor(endpoint_id=endpoint.id) as ex:
        function = ex.register_function(length)
        warm = [ex.submit_to_registered_function(function, (TEXT,)) for _ in range(500)]
        assert not wait(warm, timeout=TIMEOUT_S).not_done
        endpoint.stop()
        before_mib = pss_mib(system.service.pid)
        futures = [ex.submit_to_registered_function(function, (TEXT,)) for _ in range(TASKS)]
        for future in futures:
            assert future.wait_accepted(TIMEOUT_S)
        grown_mib = pss_mib(system.service.pid) - before_mib
        assert grown_mib < LIMIT_MIB, f"{grown_mib:.0f} MiB more for {TASKS} waiting tasks"
        endpoint.start()
        assert not wait(futures, timeout=TIMEOUT_S).not_done
        assert all(future.result() == len(TEXT) for future in futures)
