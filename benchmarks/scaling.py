"""What a task costs the servers with few and many endpoints, and with short and long queues: it is to stay the same.

Agents that answer at once, no-ops of some bytes; CPU time of all server processes together, divided by the tasks.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.players import Agent, Load, Reader, loaded_system

ENDPOINTS = (1, 10, 100)
QUEUED = (1_000, 10_000, 100_000)
TASKS = 10_000
PAYLOAD = "28\n00\ngASVBQAAAAAAAABLB4WULg==\n12\n00\ngAR9lC4=\n"


def measure_endpoints(root: Path, tasks: int = TASKS, setup: str = "embedded") -> dict[str, float]:
    """Tasks spread over 1, 10 and 100 endpoints, through to the reader of results."""
    figures: dict[str, float] = {}
    with loaded_system(root, setup) as load:
        reader = _reader(load)
        for count in ENDPOINTS:
            agents = [Agent(load.api, f"of-{count}-{number}") for number in range(count)]
            for agent in agents:
                agent.start()
            for agent in agents:
                agent.wait_online()
            for repeat in ("warm", "measured"):  # the first time, caches and queues come to be
                share = tasks // count if repeat == "measured" else 100
                reader.expect(share * count)
                cpu, began_s = load.meter.cpu_s(), time.perf_counter()
                for agent in agents:
                    load.submitter.submit(agent.endpoint_id, share, PAYLOAD)
                reader.wait()
                seconds, used = time.perf_counter() - began_s, load.meter.cpu_s()
            figures |= _figures(f"endpoints_{count}", share * count, seconds, cpu, used)
            for agent in agents:
                agent.close()
        reader.close()
    return _with_ratio(figures, [f"endpoints_{count}" for count in ENDPOINTS])


def measure_queued(root: Path, queued: tuple[int, ...] = QUEUED, setup: str = "embedded") -> dict[str, float]:
    """Tasks queued for an endpoint that is away, and then taken by it when it comes."""
    figures: dict[str, float] = {}
    with loaded_system(root, setup) as load:
        reader = _reader(load)
        for count in queued:
            agent = Agent(load.api, f"queued-{count}")
            reader.expect(count)
            cpu = load.meter.cpu_s()
            seconds = load.submitter.submit(agent.endpoint_id, count, PAYLOAD)
            stored = load.meter.cpu_s()
            figures |= _figures(f"submit_queued_{count}", count, seconds, cpu, stored)
            began_s = time.perf_counter()
            agent.start()
            reader.wait()
            figures |= _figures(
                f"drain_queued_{count}", count, time.perf_counter() - began_s, stored, load.meter.cpu_s()
            )
            agent.close()
        reader.close()
    figures = _with_ratio(figures, [f"submit_queued_{count}" for count in queued])
    return _with_ratio(figures, [f"drain_queued_{count}" for count in queued])


def _reader(load: Load) -> Reader:
    """After one group of tasks, so that there is a queue to read."""
    agent = Agent(load.api, "first")
    load.submitter.submit(agent.endpoint_id, 100, PAYLOAD)
    reader = Reader(load.submitter.results_address())
    reader.expect(100)
    agent.start()
    reader.wait()
    agent.close()
    return reader


def _figures(
    name: str, tasks: int, seconds: float, before: dict[str, float], after: dict[str, float]
) -> dict[str, float]:
    figures = {f"{name}_per_s": tasks / seconds}
    if len(before) > 1:
        figures |= {f"{name}_cpu_{role}_us": (after[role] - before[role]) / tasks * 1e6 for role in before}
    figures[f"{name}_cpu_us"] = (sum(after.values()) - sum(before.values())) / tasks * 1e6
    return figures


def _with_ratio(figures: dict[str, float], names: list[str]) -> dict[str, float]:
    """How much more a task costs at the largest than at the smallest."""
    stem = names[0].rpartition("_")[0]
    ratio = figures[f"{names[-1]}_cpu_us"] / figures[f"{names[0]}_cpu_us"]
    return {**figures, f"{stem}_cpu_last_vs_first_ratio": ratio}
