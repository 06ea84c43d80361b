"""What pages cost that wait for news of endpoints. Prints one JSON line per figure.

A real `farcall-service` in a process of its own; here, plain sockets ask for /v3/endpoints/{id}/live as pages do, and
one AMQP connection reports for the endpoints.

    python benchmarks/waiting.py [pages] [endpoints] [seconds]
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.service import Rest, Service, emit
from farcall.amqp import AmqpConnection
from farcall.wire.messages import EndpointStatusReport, pack_message

_VERSION = re.compile(rb'"version":"(\w+)"')


class Page:
    """One connection that asks, waits, and asks again."""

    def __init__(self, service: Service, endpoint_id: str) -> None:
        self._service, self._endpoint_id = service, endpoint_id
        self.socket = socket.create_connection(("127.0.0.1", urlsplit(service.status["url"]).port))
        self.answers = -1
        self._text = b""
        self.ask("wait_s=0")

    def ask(self, query: str) -> None:
        path = f"/v3/endpoints/{self._endpoint_id}/live?{query}"
        head = f"GET {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {self._service.token}\r\n\r\n"
        self.socket.sendall(head.encode())

    def read(self) -> None:
        self._text += self.socket.recv(65536)
        head, found, body = self._text.partition(b"\r\n\r\n")
        if not found or len(body) < int(re.search(rb"content-length: (\d+)", head)[1]):  # type: ignore[index]
            return
        self._text = b""
        assert head.startswith(b"HTTP/1.1 200"), head
        self.answers += 1
        self.ask(f"after={_VERSION.search(body)[1].decode()}&wait_s=55")  # type: ignore[index]


class Reporter:
    """Reports for an endpoint."""

    def __init__(self, registration: Any) -> None:
        self._id = registration["endpoint_id"]
        info = registration["heartbeat_queue_info"]
        self._connection = AmqpConnection(info["connection_url"], name="reports")
        self._connection.start()
        assert self._connection.wait_connected(10)
        self._kwargs = info["queue_publish_kwargs"]
        self._publisher = self._connection.publisher(self._kwargs["exchange"], None)

    def report(self, number: int) -> None:
        state = {"total_workers": 64, "idle_workers": number % 64, "outstanding_tasks": number, "heartbeat_period": 30}
        message = EndpointStatusReport(endpoint_id=self._id, global_state=state, task_statuses={})
        self._publisher.publish(pack_message(message), self._kwargs, lambda ok: None)

    def close(self) -> None:
        self._connection.close()


def main() -> None:
    pages, endpoints, seconds = (int(text) for text in (*sys.argv[1:], *("200", "20", "15")[len(sys.argv) - 1 :]))
    root = Path(tempfile.mkdtemp(prefix="farcall-bench-waiting-"))
    os.environ |= {"FARCALL_LIVE_WAITERS_PER_IDENTITY": str(pages + 1), "FARCALL_REQUESTS_PER_S": "0"}
    service = Service(root)
    try:
        measure(service, pages, endpoints, seconds)
    finally:
        service.command("stop")
        shutil.rmtree(root, ignore_errors=True)


def measure(service: Service, count: int, endpoints: int, seconds: float) -> None:
    rest = Rest(service)
    registered = [
        rest.post("/v3/endpoints", {"endpoint_name": f"bench{at}", "direct": True, "metadata": {}})
        for at in range(endpoints)
    ]
    for each in registered:
        rest.raw(f"/v3/endpoints/{each['endpoint_id']}/live", b"", "GET")
    before_mib = service.pss_mib
    pages = [Page(service, registered[at % endpoints]["endpoint_id"]) for at in range(count)]
    selector = selectors.DefaultSelector()
    for page in pages:
        selector.register(page.socket, selectors.EVENT_READ, page)
    serve(selector, 3.0)
    emit("waiting_pages_kib_each", (service.pss_mib - before_mib) * 1024 / count, "KiB")
    begun = service.cpu_s
    serve(selector, seconds)
    emit("waiting_cpu_percent", (service.cpu_s - begun) / seconds * 100, "%")
    reporters = [Reporter(each) for each in registered]
    begun, answers = service.cpu_s, sum(page.answers for page in pages)
    for number in range(int(seconds)):
        for reporter in reporters:
            reporter.report(number)
        serve(selector, 1.0)
    answered = sum(page.answers for page in pages) - answers
    emit("told_answers_per_s", answered / seconds, "1/s")
    emit("told_cpu_percent", (service.cpu_s - begun) / seconds * 100, "%")
    emit("told_cpu_us_each", (service.cpu_s - begun) / max(1, answered) * 1e6, "us")
    for reporter in reporters:
        reporter.close()
    for page in pages:
        page.socket.close()


def serve(selector: selectors.BaseSelector, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            key.data.read()


if __name__ == "__main__":
    main()
