"""System tests start real processes with the real commands. Everything lies in pytest's temporary directories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farcall import Executor
from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the servers, certificates and the chaos suite
sys.path.insert(0, str(Path(__file__).parent))  # for web_person

from set_ups import Servers, running_servers

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

SET_UPS = ("embedded", "servers")

ENGINES = {"processes": PROCESSES, "threads": THREADS, "parsl": PARSL}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that are marked `on_servers` run in both set-ups, others in the embedded one."""
    is_marked = next(metafunc.definition.iter_markers("on_servers"), None) is not None
    names = SET_UPS if is_marked else SET_UPS[:1]
    for fixture, scope in (("set_up", "function"), ("shared_set_up", "module")):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, names, scope=scope)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A PostgreSQL and a RabbitMQ, for one system at a time."""
    with running_servers() as both:
        yield both


@contextmanager
def system_in(set_up: str, root: Path, request: pytest.FixtureRequest) -> Iterator[ProcessSystem]:
    """A system in one of the set-ups."""
    if set_up == "embedded":
        with process_system(root) as system:
            yield system
        return
    servers: Servers = request.getfixturevalue("servers")
    with process_system(root, servers.environment(), on_start=servers.serve) as system:
        yield system


@pytest.fixture(scope="module")
def shared_system(
    shared_set_up: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ProcessSystem]:
    """One service for the tests of a module that break nothing."""
    with system_in(shared_set_up, tmp_path_factory.mktemp("system"), request) as system:
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
def system(set_up: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ProcessSystem]:
    """A system of one's own, for tests that kill parts of it."""
    with system_in(set_up, tmp_path / "system", request) as own:
        yield own
