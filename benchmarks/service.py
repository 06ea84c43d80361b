"""What a task costs in the service: submit, feed, result, in its one process. Prints one JSON line per figure.

A real `farcall-service` in a process of its own; one other process plays SDK and endpoint without running anything:
it submits no-ops over HTTP, answers each task message with a result at once, and reads the results. So the figures are
the service's share of the whole way, and its CPU time is its own.

    python benchmarks/service.py [tasks] [batch]
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farcall.amqp import AmqpConnection

CODE = "42\nst\ntriple:def triple(n):\n    return 3 * n\n"
PAYLOAD = "28\n00\ngASVBQAAAAAAAABLB4WULg==\n12\n00\ngAR9lC4=\n"
TICKS = os.sysconf("SC_CLK_TCK")


def emit(figure: str, value: float, unit: str) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 4), "unit": unit}), flush=True)


class Service:
    def __init__(self, root: Path) -> None:
        self.env = {**os.environ, "FARCALL_USER_DIR": str(root / "user"), "FARCALL_DATA_DIR": str(root / "data")}
        self.command("start", "--detach", "--port", "0", "--amqp-port", "0")
        self.status = json.loads(self.command("status", "--json"))
        tokens = json.loads((root / "user" / "tokens.json").read_text())
        self.token = next(iter(tokens["services"].values()))["access_token"]

    def command(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "farcall.cli.service", *args], env=self.env, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.decode()

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.status['pid']}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def pss_mib(self) -> float:
        lines = Path(f"/proc/{self.status['pid']}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Rest:
    def __init__(self, service: Service) -> None:
        parts = urlsplit(service.status["url"])
        self._connection = http.client.HTTPConnection("127.0.0.1", parts.port)
        self._headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}

    def post(self, path: str, document: Any) -> Any:
        return self.raw(path, json.dumps(document).encode())

    def raw(self, path: str, body: bytes, method: str = "POST") -> Any:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text)
        return json.loads(text)


class Clients:
    """The endpoint that answers at once, and the reader of the results."""

    def __init__(self, rest: Rest, endpoint: Any, group_id: str) -> None:
        self.done = 0
        self.target = 0
        self.finished = threading.Event()
        url = endpoint["task_queue_info"]["connection_url"]
        self._results = AmqpConnection(url, name="results")
        kwargs = endpoint["result_queue_info"]["queue_publish_kwargs"]
        self._publisher = self._results.publisher(kwargs["exchange"], "results")
        self._kwargs = kwargs
        self._tasks = AmqpConnection(url, name="tasks")
        self._sdk = AmqpConnection(
            rest.raw("/v2/get_amqp_result_connection_url", b"", "GET")["connection_url"], name="sdk"
        )
        self._connections = [self._results, self._tasks, self._sdk]
        for connection in self._connections:
            connection.start()
            assert connection.wait_connected(10)
        sdk_info = rest.raw("/v2/get_amqp_result_connection_url", b"", "GET")
        self._reader = self._sdk.consume(sdk_info["queue_prefix"] + group_id, self._on_results)
        self._worker = self._tasks.consume(endpoint["task_queue_info"]["queue"], self._on_tasks, exclusive=True)

    def _on_tasks(self, deliveries: Any) -> None:
        for delivery in deliveries:
            task_id = delivery.headers["task_uuid"]
            body = (
                '\x01{"message_type":"result","data":{"task_id":"TASK","data":"00\\ngASVBQAAAAAAAABLB4WULg==\\n","details":'
                '{"os":"Linux-6.1","dill_version":"0.3.9","python_version":"3.11.7","hostname":"vm","pid":12},'
                '"error_details":null,"task_statuses":[{"timestamp":1700000000000000000,"state":"execution-start",'
                '"actor":"worker"},{"timestamp":1700000000000000001,"state":"execution-end","actor":"worker"}]}}'
            ).replace("TASK", task_id)
            self._publisher.publish(body.encode(), self._kwargs, lambda ok: None)
        self._worker.ack(deliveries)

    def _on_results(self, deliveries: Any) -> None:
        self._reader.ack(deliveries)
        self.done += len(deliveries)
        if self.done >= self.target:
            self.finished.set()

    def expect(self, count: int) -> None:
        self.finished.clear()
        self.target = self.done + count

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    root = Path(tempfile.mkdtemp(prefix="farcall-bench-service-"))
    service = Service(root)
    try:
        measure(service, count, batch)
    finally:
        service.command("stop")
        shutil.rmtree(root, ignore_errors=True)


def measure(service: Service, count: int, batch: int) -> None:
    rest = Rest(service)
    emit("pss_idle_mib", service.pss_mib, "MiB")
    function_id = rest.post("/v3/functions", {"function_name": "triple", "function_code": CODE})["function_uuid"]
    endpoint = rest.post("/v3/endpoints", {"endpoint_name": "bench", "direct": True, "metadata": {}})
    path = f"/v3/endpoints/{endpoint['endpoint_id']}/submit"
    group_id = rest.post(path, {"tasks": {function_id: [PAYLOAD]}, "create_queue": True})["task_group_id"]

    def request(size: int) -> bytes:
        document = {"tasks": {function_id: [PAYLOAD] * size}, "create_queue": True, "task_group_id": group_id}
        return json.dumps(document).encode()

    clients = Clients(rest, endpoint, group_id)
    one, many = request(1), request(batch)
    clients.target = 1
    assert clients.finished.wait(10)
    submits, trips = [], []
    before = service.cpu_s
    for _ in range(300):
        clients.expect(1)
        begun = time.perf_counter()
        rest.raw(path, one)
        submits.append(time.perf_counter() - begun)
        assert clients.finished.wait(10)
        trips.append(time.perf_counter() - begun)
    emit("submit_one_median_ms", statistics.median(submits) * 1e3, "ms")
    emit("submit_one_p95_ms", statistics.quantiles(submits, n=20)[18] * 1e3, "ms")
    emit("round_trip_median_ms", statistics.median(trips) * 1e3, "ms")
    emit("round_trip_cpu_us", (service.cpu_s - before) / 300 * 1e6, "us")
    for _ in range(3):
        clients.expect(count)
        before, begun = service.cpu_s, time.perf_counter()
        for _ in range(count // batch):
            rest.raw(path, many)
        submitted_s = time.perf_counter() - begun
        assert clients.finished.wait(120)
        elapsed_s = time.perf_counter() - begun
        emit("throughput_per_s", count / elapsed_s, "1/s")
        emit("submitted_per_s", count / submitted_s, "1/s")
        emit("cpu_per_task_us", (service.cpu_s - before) / count * 1e6, "us")
    emit("pss_after_mib", service.pss_mib, "MiB")
    clients.close()


if __name__ == "__main__":
    main()
