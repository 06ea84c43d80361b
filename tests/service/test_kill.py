"""kill -9 of a real service in the middle of submissions and results: what was answered or confirmed is there."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
from service_world import CODE, PAYLOAD

from farcall.wire.messages import Result, pack_message


class Process:
    """A detached `farcall-service` that keeps its ports and its data over restarts."""

    def __init__(self, root: Path) -> None:
        self._env = {**os.environ, "FARCALL_USER_DIR": str(root / "user"), "FARCALL_DATA_DIR": str(root / "data")}
        self._env.pop("FARCALL_TOKEN", None)
        self._root = root
        self._ports = ("0", "0")
        self.status: Any = {}
        self.token = ""

    def start(self) -> None:
        http_port, amqp_port = self._ports
        self.command("start", "--detach", "--port", http_port, "--amqp-port", amqp_port)
        self.status = json.loads(self.command("status", "--json"))
        self._ports = (str(self.status["port"]), str(self.status["amqp_port"]))
        services = json.loads((self._root / "user" / "tokens.json").read_text())["services"]
        self.token = services[self.status["url"]]["access_token"]

    def command(self, *args: str) -> str:
        command = [sys.executable, "-m", "farcall.cli.service", *args]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def kill(self) -> None:
        fd = os.pidfd_open(self.status["pid"])
        try:
            os.kill(self.status["pid"], signal.SIGKILL)
            import select

            poller = select.poll()
            poller.register(fd, select.POLLIN)
            assert poller.poll(30_000)
        finally:
            os.close(fd)

    def ask(self, method: str, path: str, document: Any = None, **headers: str) -> Any:
        """Raises OSError or HTTPException if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self._ports[0]), timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **headers})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, (answer.status, text)
        return json.loads(text)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    made.start()
    yield made
    made.command("stop")


class Agent:
    """Answers each task with a result, and remembers which were confirmed. Ends with the connection."""

    def __init__(self, registration: Any, enough: int) -> None:
        self.confirmed: list[str] = []
        self.enough = threading.Event()
        self.ready = threading.Event()
        self._enough = enough
        self._registration = registration
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        info = self._registration["task_queue_info"]
        try:
            connection = pika.BlockingConnection(
                pika.URLParameters(info["connection_url"].replace("@localhost:", "@127.0.0.1:"))
            )
            channel, out = connection.channel(), connection.channel()
            out.confirm_delivery()
            self.ready.set()
            for method, properties, _ in channel.consume(info["queue"], exclusive=True):
                task_id = properties.headers["task_uuid"]
                kwargs = self._registration["result_queue_info"]["queue_publish_kwargs"]
                out.basic_publish(
                    kwargs["exchange"], kwargs["routing_key"], pack_message(Result(task_id=task_id, data="v"))
                )
                self.confirmed.append(task_id)
                channel.basic_ack(method.delivery_tag)
                if len(self.confirmed) >= self._enough:
                    self.enough.set()
        except (pika.exceptions.AMQPError, OSError):
            self.ready.set()


class Submitter:
    """Submits in small batches until the service goes away; remembers what was answered and what was not."""

    def __init__(self, process: Process, path: str, function_id: str, group_id: str) -> None:
        self.answered: list[str] = []
        self.open_key: str | None = None
        self._process = process
        self._path = path
        self._function_id = function_id
        self._group_id = group_id
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def send(self, key: str) -> None:
        document = {"tasks": {self._function_id: [PAYLOAD] * 5}, "task_group_id": self._group_id}
        answer = self._process.ask("POST", self._path, document, **{"Idempotency-Key": key})
        self.answered += answer["tasks"][self._function_id]

    def _run(self) -> None:
        number = 0
        while True:
            number += 1
            key = f"{id(self)}-{number}"
            try:
                self.send(key)
            except (OSError, http.client.HTTPException):
                self.open_key = key
                return


def test_nothing_that_was_answered_or_confirmed_is_lost(process: Process) -> None:
    function_id = process.ask("POST", "/v3/functions", {"function_name": "f", "function_code": CODE})["function_uuid"]
    registration = process.ask("POST", "/v3/endpoints", {"endpoint_name": "here", "direct": True, "metadata": {}})
    path = f"/v3/endpoints/{registration['endpoint_id']}/submit"
    first = process.ask("POST", path, {"tasks": {function_id: [PAYLOAD]}})
    group_id = first["task_group_id"]
    agent = Agent(registration, enough=60)
    submitters = [Submitter(process, path, function_id, group_id) for _ in range(3)]
    assert agent.enough.wait(60)

    process.kill()
    for thread in (agent.thread, *(each.thread for each in submitters)):
        thread.join(30)
        assert not thread.is_alive()
    process.start()

    answered = first["tasks"][function_id] + [task_id for each in submitters for task_id in each.answered]
    found = process.ask("POST", "/v2/batch_status", {"task_ids": answered})["results"]
    assert set(found) == set(answered)
    assert {found[task_id]["status"] for task_id in agent.confirmed if task_id in found} == {"success"}

    # What was under way when the service died is sent again with its key, and counts once.
    for each in submitters:
        assert each.open_key is not None
        each.send(each.open_key)
    group = process.ask("GET", f"/v2/taskgroup/{group_id}")
    in_group = {task["id"] for task in group["tasks"]}
    assert in_group == set(first["tasks"][function_id]) | {task_id for each in submitters for task_id in each.answered}

    # The old credential is still good, and everything that had not ended ends now.
    left = process.ask("POST", "/v2/batch_status", {"task_ids": sorted(in_group)})["results"]
    open_ids = {task_id for task_id, task in left.items() if task["status"] != "success"}
    again = Agent(registration, enough=len(open_ids))
    if open_ids:
        assert again.enough.wait(60)
    ended = process.ask("POST", "/v2/batch_status", {"task_ids": sorted(in_group)})["results"]
    assert {task["status"] for task in ended.values()} == {"success"}
    assert again.ready.wait(30)
