"""Farcall through the whole way: SDK, service, broker, agent, engine, worker and back, each in its own process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks import loads
from benchmarks.players import server_environment
from farcall import Executor
from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system

HTEX = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
  address: 127.0.0.1
  encrypted: true
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
"""
PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"
IDLE_WINDOW_S = 10.0
MIB = 1024 * 1024


class Meter:
    """CPU time and proportional memory of the system's processes, by role."""

    def __init__(self, system: ProcessSystem, endpoint: EndpointProcess, servers: Mapping[str, int]) -> None:
        self._roots = {"service": system.service.pid, "endpoint": endpoint.pid}
        self._servers = servers

    def _processes(self) -> dict[str, list[psutil.Process]]:
        service = psutil.Process(self._roots["service"])
        agent = psutil.Process(self._roots["endpoint"])
        return {
            "client": [psutil.Process(os.getpid())],
            "service": [service, *service.children(recursive=True)],
            "agent": [agent],
            "engine_and_workers": agent.children(recursive=True),
            **{role: [psutil.Process(pid), *psutil.Process(pid).children(True)] for role, pid in self._servers.items()},
        }

    def cpu_s(self) -> dict[str, float]:
        return {role: sum(sum(p.cpu_times()[:2]) for p in processes) for role, processes in self._processes().items()}

    def pss_mib(self) -> dict[str, float]:
        """Service, and the endpoint with all that it started."""
        sums = {
            role: sum(p.memory_full_info().pss for p in processes) / MIB
            for role, processes in self._processes().items()
        }
        servers = {role: sums[role] for role in self._servers}
        return {"service": sums["service"], "endpoint": sums["agent"] + sums["engine_and_workers"], **servers}


def measure_htex(root: Path, tasks: int) -> dict[str, float]:
    return _measure(root, tasks, HTEX)


def measure_processes(root: Path, tasks: int) -> dict[str, float]:
    return _measure(root, tasks, PROCESSES)


def measure_servers(root: Path, tasks: int) -> dict[str, float]:
    """As `measure_processes`, over PostgreSQL and RabbitMQ."""
    return _measure(root, tasks, PROCESSES, "servers")


def _measure(root: Path, tasks: int, config: str, setup: str = "embedded") -> dict[str, float]:
    with server_environment(setup) as (settings, on_start, servers), process_system(root, settings, on_start) as system:
        endpoint = system.endpoint("bench", config)
        meter = Meter(system, endpoint, servers)
        with Executor(endpoint_id=endpoint.id) as executor:
            executor.submit(loads.noop).result(timeout=120)
            figures = _idle(meter)
            figures |= loads.round_trip(executor.submit)
            before = meter.cpu_s()
            figures |= loads.throughput(executor.submit, tasks)
            after = meter.cpu_s()
            figures |= {f"cpu_per_task_{role}_us": (after[role] - before[role]) / (3 * tasks) * 1e6 for role in before}
            figures |= loads.megabyte_echo(executor.submit)
            figures |= {f"peak_pss_{role}_mib": value for role, value in meter.pss_mib().items()}
    return figures


def _idle(meter: Meter) -> dict[str, float]:
    """Memory and CPU of a system that has run one task and now has nothing to do."""
    before = meter.cpu_s()
    time.sleep(IDLE_WINDOW_S)  # the window is what is measured
    after = meter.cpu_s()
    figures = {f"idle_pss_{role}_mib": value for role, value in meter.pss_mib().items()}
    for role in before.keys() - {"client"}:
        figures[f"idle_cpu_{role}_percent"] = (after[role] - before[role]) / IDLE_WINDOW_S * 100
    return figures
