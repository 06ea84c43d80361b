"""Those who put a load on a service and do nothing else: a submitter, agents that answer at once, a reader of results.

They speak the real protocol over real sockets (`farcall.endpoint.agent.links` is the agents' own way to the broker),
but run nothing, so that what is measured is the service's share.
"""

from __future__ import annotations

import http.client
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from farcall.amqp import AmqpConnection, Delivery
from farcall.client.rest import ApiClient
from farcall.endpoint.agent.links import Links
from farcall.testing.processes import ProcessSystem, ServiceProcess, process_system
from farcall.wire.rest import EndpointRegistration, RegistrationResponse

__all__ = ["Agent", "Load", "Meter", "Reader", "Submitter", "loaded_system", "payload", "server_environment"]

CODE = "42\nst\ntriple:def triple(n):\n    return 3 * n\n"
MIB = 1024 * 1024
WAIT_S = 300
_RESULT = (
    '\x01{"message_type":"result","data":{"task_id":"TASK","data":"00\\ngASVBQAAAAAAAABLB4WULg==\\n","details":'
    '{"os":"Linux-6.1","dill_version":"0.3.9","python_version":"3.11.7","hostname":"vm","pid":12},'
    '"error_details":null,"task_statuses":[{"timestamp":1700000000000000000,"state":"execution-start",'
    '"actor":"worker"},{"timestamp":1700000000000000001,"state":"execution-end","actor":"worker"}]}}'
)


def payload(size_bytes: int) -> str:
    """Packed arguments of about this size: one text, and no keywords."""
    return f"{size_bytes + 3}\n00\n{'x' * size_bytes}12\n00\ngAR9lC4=\n"


class Submitter:
    """Submits tasks, one request after the other on one connection."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        answer = self._post("/v3/functions", {"function_name": "triple", "function_code": CODE})
        self.function_id: str = answer["function_uuid"]
        self.group_id: str | None = None

    def submit(self, endpoint_id: str, count: int, packed: str, *, batch: int = 100) -> float:
        """Submit `count` tasks in requests of `batch` (which must divide it); returns the seconds that took."""
        if count % batch:
            raise ValueError(f"{count} tasks do not make whole requests of {batch}")
        body: dict[str, Any] = {"tasks": {self.function_id: [packed] * batch}, "create_queue": True}
        path = f"/v3/endpoints/{endpoint_id}/submit"
        if self.group_id is None:
            self.group_id = self._post(path, body)["task_group_id"]
            count -= batch
        text = json.dumps({**body, "task_group_id": self.group_id}).encode()
        began_s = time.perf_counter()
        for _ in range(count // batch):
            self._send("POST", path, text)
        return time.perf_counter() - began_s

    def results_address(self) -> tuple[str, str]:
        """Broker's URL and the name of the group's queue."""
        info = self._send("GET", "/v2/get_amqp_result_connection_url", b"")
        return info["connection_url"], info["queue_prefix"] + str(self.group_id)

    def _post(self, path: str, document: Any) -> Any:
        return self._send("POST", path, json.dumps(document).encode())

    def _send(self, method: str, path: str, body: bytes) -> Any:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)


class Agent:
    """An endpoint's agent that answers each task at once."""

    def __init__(self, api: ApiClient, name: str) -> None:
        self._registration: RegistrationResponse = api.register_endpoint(
            EndpointRegistration(endpoint_name=name, direct=True)
        )
        self.endpoint_id = self._registration.endpoint_id
        self._links: Links | None = None
        self.is_online = threading.Event()

    def start(self) -> None:
        """Returns at once; see `is_online`."""
        links = self._links = Links(lambda: self._registration)
        links.start(
            on_tasks=partial(self._answer, links),
            on_online=self.is_online.set,
            on_offline=self.is_online.clear,
            on_refused=lambda reason: None,
        )

    def wait_online(self) -> None:
        if not self.is_online.wait(WAIT_S):
            raise TimeoutError(f"endpoint {self.endpoint_id} did not come online")

    def report(self, body: bytes) -> None:
        assert self._links is not None
        self._links.publish_report(body)

    def wait_reported(self) -> None:
        """Until all reports are confirmed."""
        assert self._links is not None
        if not self._links.flush(WAIT_S):
            raise TimeoutError(f"the report of endpoint {self.endpoint_id} was not confirmed")

    def close(self) -> None:
        if self._links is not None:
            self._links.close()

    @staticmethod
    def _answer(links: Links, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            links.publish_result(_RESULT.replace("TASK", delivery.headers["task_uuid"]).encode(), lambda ok: None)
        links.ack(deliveries)


class Reader:
    """Reads the results of a group and counts them."""

    def __init__(self, address: tuple[str, str]) -> None:
        url, queue = address
        self.count = 0
        self._target = 0
        self._is_reached = threading.Event()
        self._connection = AmqpConnection(url, name="results")
        self._consumer = self._connection.consume(queue, self._take)
        self._connection.start()

    def expect(self, count: int) -> None:
        """So many more from now on; call it before they are submitted."""
        self._is_reached.clear()
        self._target = self.count + count

    def wait(self) -> None:
        if not self._is_reached.wait(WAIT_S):
            raise TimeoutError(f"{self._target - self.count} results did not come")

    def close(self) -> None:
        self._connection.close()

    def _take(self, deliveries: list[Delivery]) -> None:
        self._consumer.ack(deliveries)
        self.count += len(deliveries)
        if self.count >= self._target:
            self._is_reached.set()


class Meter:
    """CPU time and proportional memory of the servers' processes, by role."""

    def __init__(self, roots: dict[str, int]) -> None:
        self._roots = roots

    def _family(self, pid: int) -> list[psutil.Process]:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> dict[str, float]:
        return {
            role: sum(sum(process.cpu_times()[:2]) for process in self._family(pid))
            for role, pid in self._roots.items()
        }

    def pss_mib(self) -> dict[str, float]:
        return {
            role: sum(process.memory_full_info().pss for process in self._family(pid)) / MIB
            for role, pid in self._roots.items()
        }


class Load:
    """A running service with all that is needed to put a load on it."""

    def __init__(self, system: ProcessSystem, servers: dict[str, int]) -> None:
        self.system = system
        self.meter = Meter({"service": system.service.pid, **servers})
        tokens = json.loads((system.root / "user" / "tokens.json").read_text())
        self.token = str(next(iter(tokens["services"].values()))["access_token"])
        self.api = ApiClient(system.service.url, self.token)
        self.submitter = Submitter(system.service.url, self.token)


@contextmanager
def server_environment(
    setup: str,
) -> Iterator[tuple[dict[str, str], Callable[[ServiceProcess], None] | None, dict[str, int]]]:
    """What a service needs for a set-up: settings for its environment, what to do once it runs, and its servers' pids.

    Args:
        setup: `embedded`, or `servers`: a PostgreSQL and a RabbitMQ that are started for it (the tests' own).
    """
    if setup == "embedded":
        yield {}, None, {}
        return
    from set_ups import running_servers

    with running_servers() as servers:
        yield servers.environment(), servers.serve, servers.pids()


@contextmanager
def loaded_system(root: Path, setup: str = "embedded", more: Mapping[str, str] | None = None) -> Iterator[Load]:
    """A service on its own, without limits on requests, and many files allowed to it and to us.

    Args:
        more: settings, for its environment.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    with server_environment(setup) as (settings, on_start, servers):
        with process_system(root, {"FARCALL_REQUESTS_PER_S": "0", **settings, **(more or {})}, on_start) as system:
            yield Load(system, servers)
