"""What becomes of a user endpoint that our manager has started, when things happen to it: no task is lost.

The manager has no privilege, so all of it runs as one account; its owner is a client with either family of SDKs.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from one_account import Account, Manager, account_for

from farcall import Executor
from farcall.client.rest import ApiClient
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, kill_and_wait, process_system
from farcall.wire.auth import COMPUTE_SCOPE
from official import OfficialSide, OurSide, official_side, token_of

pytestmark = [pytest.mark.xdist_group("multi-user"), pytest.mark.timeout(300)]

TIMEOUT_S = 90.0
TEMPLATE = """\
heartbeat_period: 5
shutdown_grace_period: 2
idle_heartbeats_soft: {{ SOFT | default(0) }}
endpoint_setup: {{ SETUP | default() }}
endpoint_teardown: {{ TEARDOWN | default() }}
engine:
  type: {{ ENGINE | default("ProcessPoolEngine") }}
  max_workers: {{ WORKERS | default(1) }}
  max_retries_on_system_failure: 1
"""
SCHEMA = """\
{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
 "properties": {"WORKERS": {"type": "integer", "minimum": 1}}}
"""


@by_value
def process_of_agent() -> int:
    import os

    return os.getpid()


@by_value
def knock(port: int) -> str:
    """Tell the test that this runs, and where; end when it hangs up."""
    import os
    import socket

    with socket.create_connection(("127.0.0.1", port)) as desk:
        desk.sendall(str(os.getpid()).encode())
        desk.recv(1)
    return "done"


class Desk:
    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(TIMEOUT_S)
        self.port: int = self._socket.getsockname()[1]

    def next(self) -> socket.socket:
        """The next task that knocks."""
        knocking = self._socket.accept()[0]
        assert knocking.recv(64)
        return knocking

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    with process_system(tmp_path_factory.mktemp("life")) as running:
        yield running


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_for(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def site(system: ProcessSystem, account: Account) -> Iterator[Manager]:
    manager = Manager(system, account)
    manager.write(
        config__yaml="display_name: One account\n",
        user_config_template__yaml__j2=TEMPLATE,
        user_config_schema__json=SCHEMA,
    )
    manager.start()
    yield manager
    manager.stop()


def pid_of(site: Manager, **running: Any) -> int:
    """The process of the only user endpoint that runs."""
    (row,) = [each for each in site.user_endpoints() if each.get("pid")]
    return int(row["pid"])


def test_tasks_of_a_killed_user_endpoint_are_finished_by_the_next(site: Manager, desk: Desk) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 1}) as ex:
        running, waiting = ex.submit(knock, desk.port), ex.submit(process_of_agent)
        with desk.next():
            kill_and_wait(pid_of(site))
        desk.next().close()
        assert running.result(TIMEOUT_S) == "done"
        assert waiting.result(TIMEOUT_S)
        with ApiClient() as client:
            attempts = [client.task_details(str(each.task_id))["attempts"] for each in (running, waiting)]
        assert attempts == [2, 1]


def test_a_task_that_comes_while_an_idle_one_is_ending_is_not_lost(site: Manager, account: Account, desk: Desk) -> None:
    """`endpoint_teardown` holds the end up, when it takes no tasks any more, until one has been submitted."""
    fifo = account.home / "teardown"
    os.mkfifo(fifo)
    if account.uid is not None:
        os.chown(fifo, account.uid, -1)
    config = {"ENGINE": "ThreadPoolEngine", "SOFT": 1, "TEARDOWN": f"echo > {fifo}"}
    with Executor(endpoint_id=site.id, user_endpoint_config=config) as ex:
        first = ex.submit(process_of_agent).result(TIMEOUT_S)
        with open(os.open(fifo, os.O_RDONLY)) as teardown:  # opens when the teardown runs
            late = ex.submit(process_of_agent)
            assert late.wait_accepted(TIMEOUT_S)
            teardown.read()
        assert late.result(TIMEOUT_S) != first
    os.kill(int(late.result()), signal.SIGKILL)


@pytest.fixture(scope="module")
def either_sdk(
    system: ProcessSystem, site: Manager, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], OfficialSide | OurSide]]:
    """One client with both families; a manager of its own, for it must be the owner."""
    root = tmp_path_factory.mktemp("client")
    with official_side(root, system) as official:
        ours = OurSide(root, system, official.client)
        yield lambda name: official if name == "official" else ours


@pytest.fixture(scope="module")
def of_client(either_sdk: Any, system: ProcessSystem, site: Manager) -> Iterator[Manager]:
    token = token_of(either_sdk("official").client, system, COMPUTE_SCOPE)
    manager = Manager(system, site.account, "clients", {"FARCALL_TOKEN": token})
    manager.write(
        config__yaml="display_name: The client's\n",
        user_config_template__yaml__j2=TEMPLATE,
        user_config_schema__json=SCHEMA,
    )
    manager.start()
    yield manager
    manager.stop()


@pytest.mark.parametrize("sdk", ["official", "ours"])
def test_why_a_user_endpoint_does_not_start_arrives_in_the_future_of_either_sdk(
    either_sdk: Any, of_client: Manager, sdk: str
) -> None:
    wishes: list[tuple[dict[str, Any], list[str]]] = [
        ({"SETUP": "echo no such module: lammps; exit 3"}, ["endpoint_setup", "status 3", "no such module: lammps"]),
        ({"WORKERS": 0}, ["WORKERS", "minimum"]),
        ({"ENGINE": "ThradPoolEngine"}, ["line 7", "ThreadPoolEngine"]),
    ]
    calls = [("failure", {"endpoint": of_client.id, "options": config}) for config, _ in wishes]
    calls.append(("options", {"endpoint": of_client.id, "options": {"WORKERS": 2}}))
    *failures, works = either_sdk(sdk).programs(calls)
    for (config, words), answer in zip(wishes, failures, strict=True):
        assert all(word in answer["value"] for word in words), (config, answer)
    assert works["value"][0] > 0, works
