"""A user endpoint as a process of its own, between a broker and a manager that are both the test's."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import pytest

from farcall.broker import Broker, Delivery, Properties, serve
from farcall.endpoint.manager.line import (
    AuditLine,
    Begin,
    CredentialCounts,
    CredentialRefused,
    Credentials,
    Failed,
    Message,
    State,
    Stop,
    pack,
    read_exactly_one,
)
from farcall.serialize import ComputeSerializer
from farcall.wire.messages import Result, Task, pack_message, unpack_message
from farcall.wire.topology import task_headers

pytestmark = pytest.mark.system

UEP = "dddddddd-0000-4000-8000-000000000001"
MANAGER = "cccccccc-0000-4000-8000-000000000001"
FUNCTION = "ffffffff-0000-4000-8000-000000000001"
NAME = f"uep.{MANAGER}.{UEP}"
THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n"
PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 1\n"
WAIT_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Login:
    name: str


class Service:
    """A broker with the queues of one user endpoint, whose password the test may change."""

    def __init__(self) -> None:
        self.password = "first"
        self.results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self.reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._broker = self._do(Broker)
        self._do(self._declare)
        self._server = self._wait(serve(self._broker, self, "127.0.0.1", 0))

    def _declare(self) -> None:
        for exchange, take in (("results", self._on_results), ("heartbeats", self._on_reports)):
            self._broker.declare_exchange(exchange, "topic")
            self._broker.declare_queue(exchange)
            self._broker.bind(exchange, exchange, f"*.{exchange}")
            self._broker.consume(exchange, take, no_ack=True)
        self._broker.declare_queue("to-do")

    def _on_results(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            message = unpack_message(delivery.body)
            assert isinstance(message, Result)
            self.results.put(message)

    def _on_reports(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.reports.put(dict(unpack_message(delivery.body).to_data()))

    async def authenticate(self, username: str, password: str) -> Login | None:
        return Login(username) if password == self.password else None

    def allows(self, principal: Login, action: str, resource: str, name: str) -> bool:
        return True

    def allows_routing_key(self, principal: Login, exchange: str, routing_key: str) -> bool:
        return routing_key == f"{UEP}.{exchange}"

    def queues(self, password: str | None = None) -> dict[str, Any]:
        url = f"amqp://endpoint.{UEP}.1:{password or self.password}@127.0.0.1:{self._server.port}/%2F"

        def info(exchange: str) -> dict[str, Any]:
            kwargs = {"exchange": exchange, "routing_key": f"{UEP}.{exchange}", "mandatory": True, "properties": {}}
            return {"connection_url": url, "queue": exchange, "exchange": exchange, "queue_publish_kwargs": kwargs}

        return {
            "endpoint_id": UEP,
            "task_queue_info": {"connection_url": url, "queue": "to-do", "exchange": "tasks"},
            "result_queue_info": info("results"),
            "heartbeat_queue_info": info("heartbeats"),
        }

    def send(self, function: Any, *args: Any) -> str:
        """A task; its id."""
        if isinstance(function, FunctionType):  # travels by value: workers do not have this module
            function = FunctionType(function.__code__, {"__name__": "__main__"}, function.__name__)
        task_id, serializer = str(uuid.uuid4()), ComputeSerializer()
        buffer = serializer.pack_buffers([serializer.serialize(part) for part in (function, args, {})])
        body = pack_message(Task(task_id=task_id, task_buffer=buffer))
        headers = task_headers(task_id=task_id, function_id=FUNCTION)
        self._do(self._broker.publish, "", "to-do", body, Properties(headers=headers))
        return task_id

    def value(self, task_id: str) -> Any:
        """What the next result, which is this task's, holds."""
        result = self.results.get(timeout=WAIT_S)
        assert (result.task_id, result.is_error) == (task_id, False), result
        return ComputeSerializer().deserialize(result.data)

    def change_password(self, password: str) -> None:
        """And cut every connection."""
        self.password = password
        self._do(self._broker.close_connections, lambda _: True, "the login was changed")

    def waiting(self) -> int:
        depth = self._do(self._broker.queue_depth, "to-do")
        return int(depth.ready + depth.unacked)

    def _do(self, function: Callable[..., T], *args: Any) -> T:
        async def do() -> T:
            return function(*args)

        return self._wait(do())

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_S)

    def close(self) -> None:
        self._wait(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)


class Agent:
    """A process with the agent, and the manager's end of its line."""

    def __init__(self, base: Path, config: str, begin: Begin) -> None:
        self.line, theirs = socket.socketpair()
        self.line.settimeout(WAIT_S)
        self.line.sendall(pack(begin))
        document = base / "handover.json"
        document.write_text(json.dumps({"name": NAME, "base": str(base), "config": config}))
        with document.open("rb") as file, theirs:
            fds = (theirs.fileno(), file.fileno())
            command = ["_start-user-endpoint", NAME, "--line-fd", str(fds[0]), "--config-fd", str(fds[1])]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "farcall.cli.endpoint", *command],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                cwd=base,
            )
        self.directory = base / NAME
        self.heard: list[Message] = []

    def say(self, message: Message) -> None:
        self.line.sendall(pack(message))

    def hear(self, kind: type[T], fits: Callable[[T], bool] = lambda _: True) -> T:
        """The next message of this kind that fits; what comes before is kept in `heard`."""
        while (message := read_exactly_one(self.line)) is not None:
            if isinstance(message, kind) and fits(message):
                return message
            self.heard.append(message)
        raise AssertionError(f"the line ended after {self.heard}; {self.wait()}")

    def online(self) -> Agent:
        self.hear(State, lambda state: state.phase == "online")
        return self

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        self.line.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def broker() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture
def service(broker: Service) -> Service:
    broker.password = "first"
    assert broker.waiting() == 0
    for left in (broker.results, broker.reports):
        while not left.empty():
            left.get()
    return broker


@pytest.fixture
def start(service: Service, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def start(config: str = THREADS, **begin: Any) -> Agent:
        begin.setdefault("queues", service.queues())
        agents.append(Agent(tmp_path, config, Begin(user_endpoint_id=UEP, **begin)))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


def double(number: int) -> int:
    return 2 * number


def knock_and_wait(port: int, value: str) -> str:
    """Tell the test that this runs, and go on when it hangs up."""
    import socket

    with socket.create_connection(("127.0.0.1", port)) as desk:
        desk.recv(1)
    return value


@pytest.fixture
def desk() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as desk:
        desk.settimeout(WAIT_S)
        yield desk


def port(desk: socket.socket) -> int:
    return int(desk.getsockname()[1])


def test_it_works_with_what_it_was_handed_and_ends_when_told_to(start: Any, service: Service) -> None:
    agent = start().online()
    assert service.value(service.send(double, 21)) == 42
    state = agent.hear(State, lambda state: state.executed == 1)
    assert (state.running, state.queued) == (0, 0)
    report = service.reports.get(timeout=WAIT_S)
    assert report["endpoint_id"] == UEP
    assert report["global_state"]["config_raw"] == THREADS
    assert report["global_state"]["posix_pid"] == agent.process.pid
    agent.say(Stop(reason="the test is over"))
    assert agent.hear(State, lambda state: state.phase == "stopping").executed == 1
    assert agent.wait() == 0
    assert not any(isinstance(message, Failed) for message in agent.heard)
    names = {path.name for path in agent.directory.iterdir()}
    assert {"journal.db", "endpoint.log"} <= names
    assert not names & {"config.yaml", "endpoint.json", "daemon.pid"}
    assert agent.directory.stat().st_mode & 0o077 == 0


def test_a_killed_one_that_is_started_again_finishes_its_tasks_by_its_journal(
    start: Any, service: Service, desk: socket.socket
) -> None:
    config = PROCESSES.replace("max_workers", "max_retries_on_system_failure: 1\n  max_workers")
    first = start(config).online()
    ids = [service.send(knock_and_wait, port(desk), "again"), service.send(double, 1)]
    running, _ = desk.accept()
    first.hear(State, lambda state: (state.running, state.queued) == (1, 1) or state.running == 2)
    first.process.kill()
    first.wait()
    running.close()
    assert service.waiting() == 0
    start(config).online()
    desk.accept()[0].close()
    results = {result.task_id: result for result in (service.results.get(timeout=WAIT_S) for _ in ids)}
    assert [ComputeSerializer().deserialize(results[each].data) for each in ids] == ["again", 2]


def test_there_is_one_process_for_a_user_endpoint(start: Any, service: Service) -> None:
    first = start().online()
    second = start()
    failed = second.hear(Failed)
    assert "Another instance of this endpoint is running" in failed.text
    assert str(first.process.pid) in failed.text
    assert second.wait() == failed.status == 73
    assert service.value(service.send(double, 3)) == 6


def test_when_the_manager_is_gone_it_ends_in_order(start: Any, service: Service, desk: socket.socket) -> None:
    agent = start().online()
    task_id = service.send(knock_and_wait, port(desk), "done")
    running, _ = desk.accept()
    agent.line.shutdown(socket.SHUT_RDWR)
    while service.reports.get(timeout=WAIT_S)["global_state"]["outstanding_tasks"] == 0:
        pass
    running.close()
    assert service.value(task_id) == "done"
    assert agent.wait() == 0
    while service.reports.get(timeout=WAIT_S)["global_state"]["active"]:
        pass


def test_what_hangs_does_not_keep_it_when_the_manager_is_gone(start: Any, tmp_path: Path) -> None:
    """`endpoint_setup` waits for ever; what it has started ends, too."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    config = f"endpoint_setup: |\n  sleep 1000 > {fifo}\nshutdown_grace_period: 0\n{THREADS}"
    agent = start(config)
    with fifo.open("rb") as end_of_sleep:  # opens when the command runs, and ends with the last process that has it
        agent.line.shutdown(socket.SHUT_RDWR)
        assert end_of_sleep.read() == b""
    assert agent.wait() == 0


def test_a_signal_and_the_end_of_the_line_together_leave_running_tasks_their_time(
    start: Any, service: Service, desk: socket.socket
) -> None:
    agent = start().online()
    task_id = service.send(knock_and_wait, port(desk), "done")
    running, _ = desk.accept()
    agent.process.send_signal(signal.SIGTERM)
    agent.hear(State, lambda state: state.phase == "stopping")
    agent.line.shutdown(socket.SHUT_RDWR)
    running.close()
    assert service.value(task_id) == "done"
    assert agent.wait() == 0


def test_a_newer_login_is_used_when_the_older_is_refused(start: Any, service: Service) -> None:
    agent = start().online()
    agent.say(Credentials(queues=service.queues("second")))
    service.change_password("second")
    agent.hear(State, lambda state: state.phase == "offline")
    agent.online()
    assert service.value(service.send(double, 4)) == 8
    assert not any(isinstance(message, CredentialRefused) for message in agent.heard)


def test_the_manager_is_asked_whether_a_refused_login_counts(start: Any, service: Service) -> None:
    agent = start().online()
    service.change_password("second")
    assert agent.hear(CredentialRefused).reason
    agent.say(Credentials(queues=service.queues()))
    agent.online()
    service.change_password("third")
    agent.hear(CredentialRefused)
    agent.say(CredentialCounts(why_not="This user endpoint was deleted."))
    assert agent.hear(Failed).text == "This user endpoint was deleted."
    assert agent.wait() == 69


@pytest.mark.parametrize(
    ("config", "step", "status", "words"),
    [
        (f"{THREADS}endpoint_setup: |\n  echo no such module\n  exit 3\n", "setup", 75, ["status 3", "no such module"]),
        ("engine:\n  type: ThreadPoolEngine\n  max_wrkers: 2\n", "config", 78, ["line 3", "max_workers"]),
        (f"high_assurance: true\n{THREADS}", "config", 78, ["line 1", "high_assurance", "manager"]),
    ],
)
def test_why_it_does_not_start_is_told_to_the_manager(
    start: Any, config: str, step: str, status: int, words: list[str]
) -> None:
    agent = start(config)
    failed = agent.hear(Failed)
    assert (failed.step, failed.status) == (step, status)
    assert all(word in failed.text for word in words), failed.text
    assert agent.wait() == status


def test_each_state_of_a_task_is_told_for_the_audit_log_of_an_audited_manager(start: Any, service: Service) -> None:
    agent = start(is_audited=True, is_encrypted=True).online()
    task_id = service.send(double, 5)
    lines = [agent.hear(AuditLine).text for _ in range(3)]
    begin = f"fid={FUNCTION} tid={task_id} bid= jid= "
    assert lines == [begin + state for state in ("RECEIVED", "EXEC_START", "EXEC_END")]
    assert service.value(task_id) == 10


def test_the_managers_list_of_functions_counts_before_the_templates(start: Any, service: Service) -> None:
    config = f"allowed_functions: [{FUNCTION}]\n{THREADS}"
    start(config, allowed_functions=(MANAGER,)).online()
    task_id = service.send(double, 6)
    result = service.results.get(timeout=WAIT_S)
    assert result.task_id == task_id
    assert result.error_details is not None
    assert result.error_details.code == "FUNCTION_NOT_ALLOWED"


def test_a_task_that_comes_when_an_idle_one_is_ending_is_left_for_the_next(start: Any, service: Service) -> None:
    config = f"heartbeat_period: 5\nidle_heartbeats_soft: 1\n{THREADS}"
    agent = start(config).online()
    assert service.value(service.send(double, 7)) == 14
    assert agent.hear(State, lambda state: state.idle_until_unix is not None).executed <= 1
    agent.hear(State, lambda state: state.phase == "stopping")
    task_id = service.send(double, 8)
    assert agent.wait() == 0
    start(config).online()
    assert service.value(task_id) == 16
