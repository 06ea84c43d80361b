"""GlobusMPIEngine with a real executor, in a block that believes to have two nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint.engines.base import EngineTask
from farcall.endpoint.engines.specification import mpi_specification


def launch_prefix() -> str:
    import os

    return os.environ["PARSL_MPI_PREFIX"]


@pytest.fixture(scope="module")
def running(start_engine: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    nodes: Path = tmp_path_factory.mktemp("job") / "nodes"
    nodes.write_text("n1\nn2\n")
    provider = {
        "type": "LocalProvider",
        "launcher": {"type": "SimpleLauncher"},
        "nodes_per_block": 2,
        "worker_init": f"export PBS_NODEFILE={nodes}",
    }
    return start_engine({"type": "GlobusMPIEngine", "max_workers_per_block": 2, "provider": provider})


def test_a_task_gets_the_nodes_and_ranks_that_it_asks_for(running: Any, task: Callable[..., EngineTask]) -> None:
    (one,) = running.submit(task(launch_prefix, specification={"num_nodes": 2, "ranks_per_node": 3}))
    prefix = running.heard.value(one)
    assert prefix.startswith("mpiexec -n 6 -ppn 3 -hosts ")
    assert set(prefix.split()[-1].split(",")) == {"n1", "n2"}


def test_a_task_without_nodes_or_with_unknown_resources_is_refused(
    running: Any, task: Callable[..., EngineTask]
) -> None:
    bare, odd = running.submit(task(launch_prefix), task(launch_prefix, specification={"num_nodez": 1}))
    for refused in (bare, odd):
        failure = running.heard.failure(refused)
        assert failure.text.startswith("Failed to start task: ")
        assert not failure.may_have_run


def test_its_status_names_it(running: Any) -> None:
    status = running.engine.status()
    assert status["engine_type"] == "GlobusMPIEngine"
    assert status["max_workers_per_node"] == 2


def test_the_third_of_nodes_ranks_and_ranks_per_node_follows() -> None:
    whole = {"num_nodes": 2, "num_ranks": 6, "ranks_per_node": 3}
    for missing in ("num_ranks", "ranks_per_node"):
        given = {name: number for name, number in whole.items() if name != missing}
        assert mpi_specification(given, nodes_per_block=2) == whole
    assert mpi_specification({"num_nodes": 2, "num_ranks": 5}, nodes_per_block=2)["ranks_per_node"] == 3


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "num_nodes"),
        ({"num_ranks": 4, "ranks_per_node": 2}, "num_nodes"),
        ({"num_nodes": 2}, "ranks_per_node"),
        ({"num_nodes": "2", "num_ranks": 4}, "whole number"),
        ({"num_nodes": 0, "num_ranks": 4}, "at least 1"),
        ({"num_nodes": True, "num_ranks": 4}, "whole number"),
        ({"num_nodes": 3, "num_ranks": 6}, "has 2"),
        ({"num_nodes": 2, "num_ranks": 9, "ranks_per_node": 4}, "do not fit"),
        ({"num_nodes": 2, "num_ranks": 1}, "do not fit"),
        ({"num_nodes": 1, "gpus": 1}, "gpus"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused_with_words(given: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        mpi_specification(given, nodes_per_block=2)
