"""An endpoint on a real Slurm: tasks run in its jobs, with account and time limit as configured, and jobs end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcall import Executor
from farcall.testing.processes import ProcessSystem, process_system
from slurm_server import PARTITION, Slurm, slurm_cluster

TIMEOUT_S = 120

CONFIG = f"""\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
  address: 127.0.0.1
  provider:
    type: SlurmProvider
    partition: {PARTITION}
    account: pi-chard
    walltime: "00:02:00"
    cores_per_node: 2
    exclusive: false
    init_blocks: 0
    max_blocks: 1
    launcher:
      type: SrunLauncher
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def system(slurm: Slurm, tmp_path: Path) -> Iterator[ProcessSystem]:
    with process_system(tmp_path, slurm.environment) as running:
        yield running


def test_tasks_run_in_a_job_that_is_gone_after_the_endpoint(slurm: Slurm, system: ProcessSystem) -> None:
    endpoint = system.endpoint(config=CONFIG)
    with Executor(endpoint_id=endpoint.id) as executor:
        names = ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT")
        job, *seen = [executor.submit(os.getenv, name).result(TIMEOUT_S) for name in names]
        assert seen == [PARTITION, "pi-chard"]
        told = slurm.run("scontrol", "-o", "show", "job", job)
        assert "TimeLimit=00:02:00" in told
        assert "JobState=RUNNING" in told
    endpoint.command("stop", "here")
    assert "JobState=CANCELLED" in slurm.run("scontrol", "-o", "show", "job", job)
