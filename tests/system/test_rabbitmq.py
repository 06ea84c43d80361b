"""A whole system on a real RabbitMQ: it, the service and the agent are killed while tasks flow, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest
from counted import TIMEOUT_S, check_all, first_done, note_and_return, wait_at

from certificates import Authority
from farcall import Executor
from farcall.testing.processes import ProcessSystem, process_system
from postgres_server import PostgresServer, postgres_server
from rabbitmq_server import RabbitServer, rabbitmq_server

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitServer]:
    with rabbitmq_server() as made:
        yield made


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    return {"FARCALL_STORE": request.getfixturevalue("postgres").database()}


@pytest.fixture
def system(rabbitmq: RabbitServer, store: dict[str, str], tmp_path: Path) -> Iterator[ProcessSystem]:
    rabbitmq.clear()
    environment = {**rabbitmq.environment, **store}
    with process_system(tmp_path / "system", environment, lambda service: rabbitmq.lead_to(service.port)) as own:
        yield own


only_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def test_two_hundred_calls_come_back(system: ProcessSystem, rabbitmq: RabbitServer, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        check_all({n: ex.submit(note_and_return, str(log), n, 0.0) for n in range(200)}, log)
    assert rabbitmq.password not in system.service.log.read_text()


def test_the_whole_way_over_amqps_with_an_authority_of_the_sites_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    log = tmp_path / "runs"
    monkeypatch.setenv("FARCALL_CA_FILE", str(authority.ca_file))  # for service, endpoint and this program
    with rabbitmq_server(authority.server("localhost")) as server:
        assert server.url.startswith("amqps://")
        environment = {**server.environment, "FARCALL_CA_FILE": str(authority.ca_file)}
        with process_system(tmp_path / "system", environment, lambda service: server.lead_to(service.port)) as system:
            endpoint = system.endpoint(config=PROCESSES)
            with Executor(endpoint_id=endpoint.id) as ex:
                check_all({n: ex.submit(note_and_return, str(log), n, 0.0) for n in range(50)}, log)


@only_sqlite
def test_a_cancelled_call_does_not_run(system: ProcessSystem, tmp_path: Path) -> None:
    import os

    gate, log = tmp_path / "gate", tmp_path / "runs"
    os.mkfifo(gate)
    endpoint = system.endpoint(config="engine:\n  type: ThreadPoolEngine\n  max_workers: 1\n")
    with Executor(endpoint_id=endpoint.id) as ex:
        blocked = ex.submit(wait_at, str(gate))
        waiting = [ex.submit(note_and_return, str(log), n, 0.0) for n in range(3)]
        for each in (blocked, *waiting):
            each.wait_accepted(60)
        assert waiting[1].cancel()
        gate.write_text("open\n")
        assert [waiting[0].result(60), waiting[2].result(60)] == [0, 2]
        with pytest.raises(CancelledError):
            waiting[1].result(0)
    assert log.read_text().split() == ["0", "2"]


def test_a_killed_service_is_not_missed(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        system.service.kill()
        futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150, 250)}
        system.service.start()
        check_all(futures, log)


@pytest.mark.parametrize("forgets", [False, True], ids=["keeps-its-data", "forgets-everything"])
def test_a_killed_rabbitmq_is_not_missed(
    system: ProcessSystem, rabbitmq: RabbitServer, tmp_path: Path, forgets: bool
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        rabbitmq.kill()
        if forgets:
            rabbitmq.forget()
        futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150, 250)}
        rabbitmq.start()
        check_all(futures, log)


@only_sqlite
def test_a_killed_agent_comes_back_to_its_tasks(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES + "  max_retries_on_system_failure: 2\n")
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        endpoint.kill()
        endpoint.start()
        _, silent = wait(futures.values(), timeout=TIMEOUT_S)
        assert not silent
        assert {n: each.result() for n, each in futures.items()} == {n: n for n in range(150)}


@only_sqlite
def test_service_and_rabbitmq_that_come_back_in_either_order_are_not_missed(
    system: ProcessSystem, rabbitmq: RabbitServer, tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(100)}
        first_done(futures.values(), 10)
        system.service.kill()
        rabbitmq.kill()
        rabbitmq.auth.was_in_vain.clear()
        rabbitmq.start()
        assert rabbitmq.auth.was_in_vain.wait(60)  # it has nobody to ask, and refuses who comes
        system.service.start()
        first_done(futures.values(), 50)
        rabbitmq.kill()
        system.service.kill()
        system.service.start()
        rabbitmq.start()
        check_all(futures, log)
