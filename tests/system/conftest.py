"""System tests start real processes with the real commands. Everything lies in pytest's temporary directories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcall import Executor
from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system

sys.path.insert(0, str(Path(__file__).parents[1]))  # for postgres_server, haproxy_server, certificates
sys.path.insert(0, str(Path(__file__).parent))  # for web_person

PROCESSES = """\
engine:
  type: ProcessPoolEngine
  max_workers: 2
"""

THREADS = """\
engine:
  type: ThreadPoolEngine
  max_workers: 4
"""

PARSL = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
"""

ENGINES = {"processes": PROCESSES, "threads": THREADS, "parsl": PARSL}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="module")
def shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    """One service for the tests of a module that break nothing."""
    with process_system(tmp_path_factory.mktemp("system")) as system:
        yield system


@pytest.fixture(scope="module", params=ENGINES)
def any_endpoint(shared_system: ProcessSystem, request: pytest.FixtureRequest) -> EndpointProcess:
    """An endpoint of each kind of engine in turn."""
    return shared_system.endpoint(request.param, ENGINES[request.param])


@pytest.fixture(scope="module")
def endpoint(shared_system: ProcessSystem) -> EndpointProcess:
    return shared_system.endpoint("plain", PROCESSES)


@pytest.fixture
def executor(endpoint: EndpointProcess) -> Iterator[Executor]:
    with Executor(endpoint_id=endpoint.id) as ex:
        yield ex


@pytest.fixture
def system(tmp_path: Path) -> Iterator[ProcessSystem]:
    """A system of one's own, for tests that kill parts of it."""
    with process_system(tmp_path / "system") as own:
        yield own
