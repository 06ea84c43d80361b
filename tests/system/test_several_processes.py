"""A service of several processes on PostgreSQL and RabbitMQ, behind a load balancer. Each of them is killed, stopped
and started again while tasks flow; nothing is lost, and clients and agents notice nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import httpx
import pytest
from counted import TIMEOUT_S, check_all, first_done, note_and_return, wait_at

from farcall import Executor
from farcall.testing.processes import ServiceProcess, SeveralProcesses, several_processes
from farcall.wire.errors import TaskCancelled
from official import Client, OfficialSide
from postgres_server import PostgresServer, postgres_server
from rabbitmq_server import RabbitServer, rabbitmq_server
from tcp_balancer import Balancer, balancer

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"
THREAD = "engine:\n  type: ThreadPoolEngine\n  max_workers: 1\n"


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitServer]:
    with rabbitmq_server() as made:
        yield made


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture(scope="module")
def front() -> Iterator[Balancer]:
    with balancer() as made:
        yield made


@pytest.fixture(scope="module")
def start(
    rabbitmq: RabbitServer, postgres: PostgresServer, front: Balancer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., SeveralProcesses]]:
    """Starts a service of these roles, unless it is the one that runs; whoever breaks it mends it."""
    current: tuple[tuple[str, ...], SeveralProcesses] | None = None
    with contextlib.ExitStack() as closing:

        def begin(*roles: str) -> SeveralProcesses:
            nonlocal current
            if current is None or current[0] != roles:
                closing.close()
                rabbitmq.clear()
                rabbitmq.lead_to(front.port)
                environment = {**rabbitmq.environment, "FARCALL_STORE": postgres.database()}
                root = tmp_path_factory.mktemp("system")
                current = roles, closing.enter_context(several_processes(root, environment, roles, front.url))
                front.backends = [each.port for each in current[1].fronts]
            front.wait_up(len(front.backends))
            return current[1]

        yield begin


@pytest.fixture
def system(start: Callable[..., SeveralProcesses]) -> Iterator[SeveralProcesses]:
    system = start("api", "api", "relay", "relay")
    yield system
    for endpoint in system.endpoints:
        endpoint.stop()
    system.endpoints.clear()


def new_name() -> str:
    return f"e{next(_numbers)}"


_numbers = itertools.count()


def ask(process: ServiceProcess, path: str, system: SeveralProcesses, **more: Any) -> Any:
    headers = {"authorization": f"Bearer {system.commands.env['FARCALL_TOKEN']}"}
    method = more.pop("method", "GET")
    url = f"http://127.0.0.1:{process.port}{path}"
    answer = httpx.request(method, url, headers=headers, timeout=30, trust_env=False, **more)
    assert answer.status_code == 200, (process.name, path, answer.status_code, answer.text)
    return answer.json() if "json" in answer.headers["content-type"] else answer.text


def slots(process: ServiceProcess, system: SeveralProcesses) -> int:
    found = re.search(r"^farcall_relay_slots (\d+)", ask(process, "/metrics", system), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_any_process_answers_for_all(system: SeveralProcesses, front: Balancer, tmp_path: Path) -> None:
    first, second = system.fronts
    relays = [system.services["relay-1"], system.services["relay-2"]]
    endpoint = system.endpoint(new_name(), PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        check_all(
            {n: ex.submit(note_and_return, str(tmp_path / "runs"), n, 0.0) for n in range(100)}, tmp_path / "runs"
        )
        group = ex.task_group_id
    for process in (first, second):
        assert ask(process, f"/v2/endpoints/{endpoint.id}/status", system)["status"] == "online"
        assert len(ask(process, f"/v2/taskgroup/{group}", system)["tasks"]) == 100
    for process in (first, second, *relays):
        inside = ask(process, "/v3/service", system)
        assert inside["endpoints_online"] == [endpoint.id]
        assert inside["tasks"]["success"] >= 100
        assert ask(process, "/readyz", system) == {"status": "ready"}
    assert [slots(relay, system) for relay in relays] == [32, 32]
    refused = httpx.get(f"http://127.0.0.1:{relays[0].port}/v2/whoami", trust_env=False)
    assert refused.status_code == 404, "a relay answers for itself only"


@pytest.mark.parametrize("victim", ["api-1", "relay-1", "relay-2"])
def test_a_killed_process_is_not_missed(system: SeveralProcesses, tmp_path: Path, victim: str) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(new_name(), PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        system.services[victim].kill()
        futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150, 250)}
        first_done(futures.values(), 200)
        system.services[victim].start()
        check_all(futures, log)


@pytest.mark.parametrize("victim", ["api-1", "relay-1", "relay-2"])
def test_a_stopped_process_is_not_missed_and_harms_nobody_when_it_goes_on(
    system: SeveralProcesses, tmp_path: Path, victim: str
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(new_name(), PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        os.kill(system.services[victim].pid, signal.SIGSTOP)
        try:
            futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150, 250)}
            wait(futures.values(), timeout=TIMEOUT_S)
        finally:
            os.kill(system.services[victim].pid, signal.SIGCONT)
        check_all(futures, log)
        more = {n: ex.submit(note_and_return, str(log), n, 0.0) for n in range(250, 300)}
        check_all(futures | more, log)


def test_processes_that_are_replaced_one_after_another_are_not_noticed(
    system: SeveralProcesses, front: Balancer, tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(new_name(), PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures: dict[int, Future[int]] = {}
        for each in system.services.values():
            futures |= {n: ex.submit(note_and_return, str(log), n, 0.0) for n in range(len(futures), len(futures) + 60)}
            each.stop()
            each.start()
            if each.role == "api":
                front.wait_up(2)
        check_all(futures, log)


def test_servers_that_are_killed_are_not_missed(
    system: SeveralProcesses, postgres: PostgresServer, rabbitmq: RabbitServer, tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(new_name(), PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        postgres.kill()
        futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150, 200)}
        postgres.start()
        first_done(futures.values(), 100)
        rabbitmq.kill()
        rabbitmq.forget()
        futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(200, 250)}
        rabbitmq.start()
        check_all(futures, log)


def test_a_task_is_cancelled_by_whichever_process_is_asked(system: SeveralProcesses, tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "runs"
    os.mkfifo(gate)
    endpoint = system.endpoint(new_name(), THREAD)
    with Executor(endpoint_id=endpoint.id) as ex:
        blocked = ex.submit(wait_at, str(gate))
        waiting = [ex.submit(note_and_return, str(log), n, 0.0) for n in range(5)]
        for each in (blocked, *waiting):
            each.wait_accepted(60)
        try:
            for process, future in zip(system.fronts, (waiting[1], waiting[3]), strict=True):
                ask(process, f"/v3/tasks/{future.task_id}/cancel", system, method="POST")
                with pytest.raises(TaskCancelled):
                    future.result(60)
        finally:
            gate.write_text("open\n")
        assert [waiting[n].result(60) for n in (0, 2, 4)] == [0, 2, 4]
    assert log.read_text().split() == ["0", "2", "4"]


def test_processes_that_do_everything_share_the_work_as_well(
    start: Callable[..., SeveralProcesses], tmp_path: Path
) -> None:
    system = start("all", "all")
    log = tmp_path / "runs"
    endpoints = [system.endpoint(name, PROCESSES) for name in ("here", "there", "yonder")]
    futures: dict[int, Future[int]] = {}
    executors = [Executor(endpoint_id=each.id, batch_size=8) for each in endpoints]
    for n in range(300):
        futures[n] = executors[n % 3].submit(note_and_return, str(log), n, 0.005)
    first_done(futures.values(), 20)
    system.services["all-1"].kill()
    first_done(futures.values(), 200)
    system.services["all-1"].start()
    check_all(futures, log)
    assert sum(slots(each, system) for each in system.services.values()) == 64
    for ex in executors:
        ex.shutdown()


def test_an_official_endpoint_and_its_user_endpoints(system: SeveralProcesses, front: Balancer, tmp_path: Path) -> None:
    """Whichever relay sees to them: started, refused with the reason, and started again when a relay has gone."""
    side = OfficialSide(tmp_path, front.port, Client(system, "official"))
    relay = system.services["relay-2"]
    try:
        endpoint = side.endpoint()
        assert side.program("submit", endpoint=endpoint.id)[1] == 4.5
        text = side.program("failure", endpoint=endpoint.id, options={"workers": "a lot"})
        assert "Failed to start" in text
        relay.kill()
        endpoint.kill_user_endpoints()
        assert side.program("submit", endpoint=endpoint.id)[1] == 4.5
        assert side.program("look", endpoint=endpoint.id)[0] == "online"
    finally:
        side.close()
        relay.start()
