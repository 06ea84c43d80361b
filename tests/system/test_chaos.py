"""A short storm: two clients, two endpoints, a fault every few seconds, all is counted. The long one: `make chaos`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chaos.plan import draw_plan
from chaos.report import print_report
from chaos.setups import SETUPS, chaos_system, missing_for, why_no_cut
from chaos.storm import Storm
from chaos.verdict import judge

TASKS, FAULTS, SEED = 600, 9, 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("setup", [SETUPS[0], SETUPS[-1]])
def test_in_a_storm_every_task_ends_with_one_outcome(setup: str, tmp_path: Path) -> None:
    missing = missing_for(setup)
    if missing is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    no_cable = why_no_cut()
    with chaos_system(setup, tmp_path / "storm", with_cable=no_cable is None) as system:
        plan = draw_plan(SEED, system.victims, tasks=TASKS, faults=FAULTS)
        storm = Storm(system, plan, seed=SEED, tasks=TASKS, seconds=60, stall_s=60)
        storm.run()
        verdict = judge(storm.evidence())
        assert print_report(storm, system, verdict, seed=SEED, setup=setup, tasks=TASKS), no_cable
        assert len(storm.struck) >= FAULTS // 2, "it was over before anything broke"
