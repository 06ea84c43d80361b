"""What only real sockets show: clients that go away, large bodies, keep-alive."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from service_world import PAYLOAD, Rest, ServiceThread

from farcall.service.context import Service
from farcall.wire.framing import pack_buffers

Start = Callable[..., ServiceThread]


def as_body(document: Any) -> bytes:
    """What both ways of sending have in common: a repetition is the same to the last byte."""
    return json.dumps(document).encode()


def raw_request(rest: Rest, path: str, document: Any) -> bytes:
    body = as_body(document)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {rest.http.headers['authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("is_repeated_while_running", [True, False])
def test_a_submission_repeated_after_a_lost_answer_counts_once(
    service_thread: Start, is_repeated_while_running: bool
) -> None:
    thread = service_thread()
    ada = Rest(thread)
    function_id, endpoint_id = ada.function(), ada.endpoint()["endpoint_id"]
    group_id = ada.submit(endpoint_id, function_id)["task_group_id"]
    path = f"/v3/endpoints/{endpoint_id}/submit"
    document = {"tasks": {function_id: [PAYLOAD] * 3}, "task_group_id": group_id}
    entered, go_on = threading.Event(), threading.Event()

    def hold(_conn: object) -> None:
        entered.set()
        assert go_on.wait(30)

    holding = threading.Thread(target=thread.call, args=(lambda service: service.db.write(hold),))
    holding.start()
    assert entered.wait(30)
    with socket.create_connection(("127.0.0.1", thread.running.port)) as client:
        client.sendall(raw_request(ada, path, document))
        wait_until(thread, lambda service: bool(service.replay._running))
        assert thread.call(is_first_gone) is False
    wait_until(thread, is_first_gone)

    def repeat() -> Any:
        answer = ada.http.post(path, content=as_body(document))
        assert answer.status_code == 200
        return answer.json()

    with ThreadPoolExecutor(1) as pool:
        if is_repeated_while_running:
            again = pool.submit(repeat)
            go_on.set()
        else:
            go_on.set()
            wait_until(thread, lambda service: bool(service.replay._lost))
            again = pool.submit(repeat)
        answer = again.result(30)
    holding.join(30)
    group = ada.ask("GET", f"/v2/taskgroup/{group_id}")
    assert [task["id"] for task in group["tasks"]][1:] == answer["tasks"][function_id]


def wait_until(thread: ServiceThread, is_so: Callable[[Service], Any]) -> None:
    """Each look is a turn of the service's loop; what is waited for happens on it."""
    for _ in range(100_000):
        if thread.call(is_so):
            return
    raise AssertionError("it never became so")


async def is_first_gone(service: Service) -> bool:
    """Whether the service has noticed that the first client left."""
    (running,) = service.replay._running.values()
    return await running[0][0]()


def test_arguments_at_the_limit_make_the_whole_way_in(service_thread: Start) -> None:
    ada = Rest(service_thread())
    function_id, endpoint_id = ada.function(), ada.endpoint()["endpoint_id"]
    limit = 10 * 1024 * 1024
    overhead = len(pack_buffers(["x" * limit, "{}"])) - limit
    path = f"/v3/endpoints/{endpoint_id}/submit"
    for extra, status in ((0, 200), (1, 413)):
        payload = pack_buffers(["x" * (limit - overhead + extra), "{}"])
        answer = ada.ask("POST", path, {"tasks": {function_id: [payload]}}, status)
    assert answer["code"] == "TASK_PAYLOAD_TOO_LARGE"


def test_a_body_announced_too_large_is_refused_before_it_is_sent(service_thread: Start) -> None:
    thread = service_thread()
    with socket.create_connection(("127.0.0.1", thread.running.port)) as client:
        client.sendall(b"POST /v3/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        client.settimeout(30)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"TASK_PAYLOAD_TOO_LARGE" in answer


def test_many_requests_share_one_connection(service_thread: Start) -> None:
    thread = service_thread()
    with socket.create_connection(("127.0.0.1", thread.running.port)) as client:
        client.settimeout(30)
        for _ in range(5):
            client.sendall(b"GET /v2/version HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while b'"1.0.0"' not in answer:
                piece = client.recv(65536)
                assert piece
                answer += piece
