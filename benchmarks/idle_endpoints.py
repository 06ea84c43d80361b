"""1,000 endpoints that are connected and have nothing to do: what they cost service and broker.

The agents are simulated in this process: their registration, their connection with its consumer and publishers, and
their reports every 30 seconds are the real ones (about 6 KB each); no engine runs.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.players import Agent, Load, loaded_system
from farcall.wire.limits import DEFAULT_HEARTBEAT_PERIOD_S
from farcall.wire.messages import EndpointStatusReport, pack_message

ENDPOINTS = 1000
WINDOW_S = 30.0


def measure(root: Path, endpoints: int = ENDPOINTS, setup: str = "embedded") -> dict[str, float]:
    """Figures; CPU in percent of one core, by role."""
    with loaded_system(root, setup) as load:
        return idle(load, endpoints)


def idle(load: Load, endpoints: int) -> dict[str, float]:
    """Connect them, and look on for `WINDOW_S`."""
    warm = Agent(load.api, "first")
    warm.start()
    warm.wait_online()
    memory, cpu = load.meter.pss_mib(), load.meter.cpu_s()
    began_s = time.perf_counter()
    agents = [Agent(load.api, f"idle-{number}") for number in range(endpoints)]
    registered_s = time.perf_counter() - began_s
    try:
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.wait_online()
        online_s = time.perf_counter() - began_s
        for agent in agents:  # as real ones do at once; RabbitMQ asks about each publisher's rights then
            agent.report(_report(agent.endpoint_id))
        for agent in agents:
            agent.wait_reported()
        connected = load.meter.cpu_s()
        before, at_s = load.meter.cpu_s(), time.perf_counter()
        _report_in_turn(agents)
        after, window_s = load.meter.cpu_s(), time.perf_counter() - at_s
        grown = load.meter.pss_mib()
    finally:
        for agent in [warm, *agents]:
            agent.close()
    figures = {"endpoints": float(endpoints), "register_per_s": endpoints / registered_s, "all_online_s": online_s}
    for role in memory:
        figures[f"pss_before_{role}_mib"] = memory[role]
        figures[f"pss_with_all_{role}_mib"] = grown[role]
        figures[f"pss_per_endpoint_{role}_kib"] = (grown[role] - memory[role]) * 1024 / endpoints
        figures[f"cpu_connect_{role}_us"] = (connected[role] - cpu[role]) / endpoints * 1e6
        figures[f"idle_cpu_{role}_percent"] = (after[role] - before[role]) / window_s * 100
    return figures


def _report_in_turn(agents: list[Agent]) -> None:
    """Each reports once per period, spread evenly over it."""
    begin_s = time.perf_counter()
    gap_s = DEFAULT_HEARTBEAT_PERIOD_S / len(agents)
    for number in range(int(WINDOW_S / gap_s)):
        late_s = begin_s + number * gap_s - time.perf_counter()
        if late_s > 0:
            time.sleep(late_s)  # the pace is what is measured
        agent = agents[number % len(agents)]
        agent.report(_report(agent.endpoint_id))


def _report(endpoint_id: str) -> bytes:
    state = {
        "managers": 1, "total_workers": 4, "idle_workers": 4, "pending_tasks": 0, "outstanding_tasks": 0,
        "scaling_enabled": True, "heartbeat_period": int(DEFAULT_HEARTBEAT_PERIOD_S), "config_raw": "x" * 5000,
    }  # fmt: skip
    return pack_message(EndpointStatusReport(endpoint_id=endpoint_id, global_state=state))
