"""Endpoints on a real Slurm: tasks run in its jobs, with account and time limit as configured, and jobs end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from manager_of_root import Manager

from deck import ACCOUNT, ACCOUNT_SCHEMA
from farcall import Executor
from farcall.testing.processes import ProcessSystem, process_system
from local_users import local_users, open_directory, python_for_everybody
from official import Client, OurSide, official_side
from slurm_server import PARTITION, Slurm, slurm_cluster

pytestmark = pytest.mark.xdist_group("slurm")

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


def test_the_decks_template_and_schema_make_jobs_of_the_local_users(
    slurm: Slurm, system: ProcessSystem, tmp_path: Path
) -> None:
    """With our SDK and with the official one; what the schema does not allow is said in the future's exception."""
    with local_users() as people, open_directory() as directory, official_side(tmp_path, system) as elsewhere:
        ann, ben = Client(system, "ann"), elsewhere.client
        manager = Manager(
            system,
            python_for_everybody(directory),
            "cluster",
            ACCOUNT,
            {ann.id: people.a.name, ben.id: people.b.name},
            schema=ACCOUNT_SCHEMA,
            environment="".join(f"{name}: {value}\n" for name, value in slurm.environment.items()),
        )
        ours = OurSide(tmp_path / "ann", system, ann)
        try:
            told = ours.program("as_local_user", endpoint=manager.id, config={"ACCOUNT_ID": "314159265"})
            assert "ACCOUNT_ID" in told
            assert "pi-chard" in told
            wish = {"ACCOUNT_ID": "pi-chard", "WALLTIME": "00:02:00"}
            for side, person in ((ours, people.a), (elsewhere, people.b)):
                (facts,) = side.program("as_local_user", endpoint=manager.id, config=wish)
                assert facts["uids"] == [person.uid] * 3
                job = slurm.run("scontrol", "-o", "show", "job", facts["environ"]["SLURM_JOB_ID"])
                assert f"UserId={person.name}({person.uid})" in job
                assert "Account=pi-chard" in job
                assert "TimeLimit=00:02:00" in job
                slurm.run("scancel", facts["environ"]["SLURM_JOB_ID"])  # the node is only one, and jobs have it alone
        finally:
            manager.command("stop", manager.name)
        assert slurm.run("squeue", "-h") == ""
