"""100,000 tasks of 10 KB for an endpoint that is offline: what the service's memory does, and the speed of submitting.

Waiting tasks are to cost disk, not memory, and the last submission is to be as fast as the first.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.players import Agent, Load, loaded_system, payload

TASKS = 100_000
SIZE_BYTES = 10 * 1024
PIECES = 20


def measure(root: Path, tasks: int = TASKS, setup: str = "embedded") -> dict[str, float]:
    """Figures; `…_grew_mib` is peak minus the beginning."""
    with loaded_system(root, setup) as load:
        return fill(load, tasks)


def fill(load: Load, tasks: int) -> dict[str, float]:
    """Submit for an endpoint whose agent has never connected."""
    agent = Agent(load.api, "away")
    packed = payload(SIZE_BYTES)
    load.submitter.submit(agent.endpoint_id, 200, packed)  # what is loaded once is loaded
    piece = tasks // PIECES
    memory, rates = [load.meter.pss_mib()], []
    cpu = [load.meter.cpu_s()]
    for _ in range(PIECES):
        rates.append(piece / load.submitter.submit(agent.endpoint_id, piece, packed))
        memory.append(load.meter.pss_mib())
        cpu.append(load.meter.cpu_s())
    tenth = PIECES // 10
    figures = {}
    for role in memory[0]:
        values = [each[role] for each in memory]
        figures[f"pss_before_{role}_mib"] = values[0]
        figures[f"pss_after_{role}_mib"] = values[-1]
        figures[f"pss_peak_{role}_mib"] = max(values)
        figures[f"pss_grew_{role}_mib"] = max(values) - values[0]
    first, last = (sum(each) / tenth for each in (rates[:tenth], rates[-tenth:]))
    figures["submit_first_per_s"] = first
    figures["submit_last_per_s"] = last
    figures["submit_last_vs_first_ratio"] = last / first
    first_cpu, last_cpu = (
        (end["service"] - start["service"]) / (tenth * piece) * 1e6
        for start, end in ((cpu[0], cpu[tenth]), (cpu[-1 - tenth], cpu[-1]))
    )
    figures["submit_cpu_first_us"], figures["submit_cpu_last_us"] = first_cpu, last_cpu
    figures["tasks_per_piece"] = piece
    return figures
