"""Our manager at a service of several processes, on PostgreSQL and RabbitMQ, behind a load balancer.

Which of two relays cares for a manager and which for a user endpoint of it is chance, and notices come to either.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator

import httpx
import pytest
from one_account import Account, Manager, account_for

from farcall import Executor
from farcall.client.rest import ApiClient
from farcall.testing.functions import by_value
from farcall.testing.processes import SeveralProcesses, kill_and_wait, several_processes
from set_ups import running_servers
from tcp_balancer import balancer

pytestmark = [pytest.mark.xdist_group("multi-user"), pytest.mark.timeout(240)]

TIMEOUT_S = 90.0
TEMPLATE = """\
shutdown_grace_period: 1
engine:
  type: ThreadPoolEngine
  max_workers: {{ WORKERS }}
  max_retries_on_system_failure: 1
"""


@by_value
def agent() -> int:
    import os

    return os.getpid()


@by_value
def knock(port: int) -> str:
    """Tell the test which process runs this; end when it hangs up."""
    import os
    import socket

    with socket.create_connection(("127.0.0.1", port)) as desk:
        desk.sendall(str(os.getpid()).encode())
        desk.recv(1)
    return "done"


@by_value
def sleep_for(seconds: float) -> None:
    import time

    time.sleep(seconds)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_for(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeveralProcesses]:
    with contextlib.ExitStack() as closing:
        servers = closing.enter_context(running_servers())
        front = closing.enter_context(balancer())
        environment = servers.environment()
        servers.rabbit.lead_to(front.port)
        root = tmp_path_factory.mktemp("system")
        made = closing.enter_context(several_processes(root, environment, ("api", "api", "relay", "relay"), front.url))
        front.backends = [each.port for each in made.fronts]
        front.wait_up(2)
        yield made


@pytest.fixture(scope="module")
def site(system: SeveralProcesses, account: Account) -> Iterator[Manager]:
    env = {name: system.commands.env[name] for name in ("FARCALL_SERVICE_URL", "FARCALL_TOKEN")}
    manager = Manager(system, account, "site", env)
    manager.write(config__yaml="heartbeat_period: 5\n", user_config_template__yaml__j2=TEMPLATE)
    manager.start()
    yield manager
    manager.stop()


def executor(site: Manager, workers: int) -> Executor:
    return Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": workers})


def test_user_endpoints_are_started_whichever_relay_sees_to_them(system: SeveralProcesses, site: Manager) -> None:
    """Eight of them: that all are of the relay that their manager is of is unlikely."""
    with contextlib.ExitStack() as closing:
        executors = [closing.enter_context(executor(site, 1 + number)) for number in range(8)]
        agents = [each.result(TIMEOUT_S) for each in [ex.submit(agent) for ex in executors]]
        assert len(set(agents)) == 8
        assert [ex.submit(agent).result(TIMEOUT_S) for ex in executors] == agents
    assert {row["pid"] for row in site.user_endpoints()} == set(agents)
    headers = {"authorization": f"Bearer {system.commands.env['FARCALL_TOKEN']}"}
    for front in system.fronts:
        url = f"http://127.0.0.1:{front.port}/v3/endpoints/{site.id}/console"
        shown = httpx.get(url, headers=headers, trust_env=False, timeout=30).json()
        assert len(shown["user_endpoints"]) == 8, shown


def test_tasks_of_killed_user_endpoints_are_finished_by_the_next(site: Manager) -> None:
    """The manager's notices say that this was not the end; each comes to either relay. No task may fail of that."""
    with contextlib.ExitStack() as closing:
        desk = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        desk.settimeout(TIMEOUT_S)
        executors = [closing.enter_context(executor(site, 1 + number)) for number in range(8)]
        running = [ex.submit(knock, desk.getsockname()[1]) for ex in executors]
        knocking = [closing.enter_context(desk.accept()[0]) for _ in executors]
        for each in knocking:
            kill_and_wait(int(each.recv(64)))
        for _ in executors:
            with desk.accept()[0] as again:
                assert again.recv(64)
        assert [each.result(TIMEOUT_S) for each in running] == ["done"] * 8
        with ApiClient() as client:
            assert [client.task_details(str(each.task_id))["attempts"] for each in running] == [2] * 8


def test_a_killed_manager_and_relay_are_not_missed(system: SeveralProcesses, site: Manager) -> None:
    with executor(site, 1) as ex:
        before = ex.submit(agent).result(TIMEOUT_S)
        ended = os.pidfd_open(before)
        site.kill()
        system.services["relay-1"].kill()
        waiting = ex.submit(agent)
        assert select.select([ended], [], [], TIMEOUT_S)[0], "a user endpoint outlived its manager"
        os.close(ended)
        site.start()
        assert waiting.result(TIMEOUT_S) != before
        system.services["relay-1"].start()
        assert ex.submit(agent).result(TIMEOUT_S) == waiting.result()


def test_a_user_endpoint_is_stopped_through_the_service(site: Manager) -> None:
    with executor(site, 2) as ex, ApiClient() as client:
        ended = os.pidfd_open(ex.submit(agent).result(TIMEOUT_S))
        row = next(each for each in site.user_endpoints() if each["options"] == {"WORKERS": 2})
        running = ex.submit(sleep_for, 600.0)
        client.stop_user_endpoint(row["id"], "maintenance until noon")
        assert "maintenance until noon" in str(running.exception(TIMEOUT_S))
        assert select.select([ended], [], [], TIMEOUT_S)[0], "the manager was not told"
        os.close(ended)


def test_why_one_does_not_start_is_told_whichever_relay_hears_of_it(site: Manager) -> None:
    with contextlib.ExitStack() as closing:
        executors = [closing.enter_context(executor(site, -number)) for number in range(6)]
        for future in [ex.submit(agent) for ex in executors]:
            assert "max_workers" in str(future.exception(TIMEOUT_S))
