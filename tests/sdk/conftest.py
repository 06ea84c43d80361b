"""A service in this process: REST over httpx's MockTransport, results over the in-memory broker.

It stores what is submitted; a test decides when tasks end (`finish`), or lets them run at once (`runs_tasks`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from farcall.amqp.memory import MemoryBroker
from farcall.client.rest import ApiClient
from farcall.client.retry import RetryPolicy
from farcall.client.tokens import TokenStore
from farcall.sdk import Client, Executor
from farcall.sdk.stream import close_streams
from farcall.serialize import ComputeSerializer
from farcall.wire.errors import ApiError, EndpointNotFound, FunctionNotFound, TaskGroupNotFound, TaskNotFound
from farcall.wire.framing import pack_buffers
from farcall.wire.messages import ErrorDetails, Result, pack_message

WAIT_S = 30.0
PREFIX = "tg.me."

Handler = Callable[[httpx.Request, Any], tuple[int, Any] | None]


class FakeService:
    """What the SDK sees of a service. All methods from any thread."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.endpoint_id = str(uuid4())
        self.functions: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.submissions: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.runs_tasks = True
        self.is_streaming = True
        self.before: Handler = lambda request, document: None
        """Asked first; an answer of its own ends the matter."""
        self._changed = threading.Condition(threading.RLock())
        self._serializer = ComputeSerializer()

    # --- for tests

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(predicate, WAIT_S), "this did not happen in time"

    def wait_tasks(self, count: int) -> list[str]:
        """Wait until so many tasks were submitted; their ids in order."""
        self.wait_for(lambda: len(self.tasks) >= count)
        return list(self.tasks)

    def finish(self, task_id: str, value: Any = None, *, error: str | None = None, code: str = "RemoteExecutionError"):
        """End a task, and stream its result if that is on."""
        data = error if error is not None else self._serializer.serialize(value)
        details = {"python_version": "3.11.0"}
        result = Result(
            task_id=task_id,
            data=data,
            details=details,
            error_details=None if error is None else ErrorDetails(code=code, user_message="it failed"),
        )
        with self._changed:
            task = self.tasks[task_id]
            if task["status"] in ("success", "failed"):
                return
            outcome = {"result": data} if error is None else {"exception": data, "reason": f"{code}: it failed"}
            task.update(status="failed" if error else "success", completion_t=str(time.time()), **outcome)
            self._changed.notify_all()
        if self.is_streaming:
            self.stream(task["group"], pack_message(result))

    def stream(self, group: str, body: bytes) -> None:
        self.broker.publish("", PREFIX + group, body, timestamp=int(time.time()))

    def run(self, task_id: str) -> None:
        """Do what an endpoint would."""
        task = self.tasks[task_id]
        buffer = self.functions[task["function"]]["function_code"] + task["payload"]
        function, args, kwargs = self._serializer.unpack_and_deserialize(buffer)
        try:
            value = function(*args, **kwargs)
        except Exception as exc:
            self.finish(task_id, error=f"Traceback: {type(exc).__name__}: {exc}")
        else:
            self.finish(task_id, value)

    # --- REST

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        document = json.loads(request.content) if request.content else None
        with self._changed:
            self.requests.append((request.method, path))
            self._changed.notify_all()
        own = self.before(request, document)
        if own is None:
            try:
                own = 200, self.answer(request.method, path, document)
            except ApiError as exc:
                own = exc.http_status, exc.to_document()
        return httpx.Response(own[0], json=own[1])

    def answer(self, method: str, path: str, document: Any) -> Any:
        """What a healthy service would say."""
        with self._changed:
            answer = self._answer(method, path, document)
            self._changed.notify_all()
        return answer

    def _answer(self, method: str, path: str, document: Any) -> Any:
        part = path.split("?")[0].split("/")
        if path.startswith("/v2/version"):
            return {"api": "1", "min_sdk_version": "0.1.0", "min_ep_version": "0.1.0"}
        if path == "/v2/get_amqp_result_connection_url":
            return {"queue_prefix": PREFIX, "connection_url": "amqp://me:secret@memory/%2F"}
        if (method, path) == ("POST", "/v3/functions"):
            function_id = str(uuid4())
            if document.get("serialized") is False:
                code = f"st\n{document['function_name']}:{document['function_code']}"
                document["function_code"] = pack_buffers([code])
            self.functions[function_id] = document
            return {"function_uuid": function_id}
        if method == "POST" and path.endswith("/submit"):
            return self._submit(part[3], document)
        if path == "/v2/batch_status":
            return {"response": "batch", "results": {i: self.tasks[i] for i in document["task_ids"] if i in self.tasks}}
        if method == "GET" and path.startswith("/v2/tasks/"):
            if part[3] not in self.tasks:
                raise TaskNotFound(f"no task {part[3]}")
            return self.tasks[part[3]]
        if path.startswith("/v2/taskgroup/"):
            ids = [i for i, task in self.tasks.items() if task["group"] == part[3]]
            if not ids:
                raise TaskGroupNotFound(f"no group {part[3]}")
            return {"taskgroup_id": part[3], "tasks": [{"id": i, "created_at": "2026-01-01T00:00:00Z"} for i in ids]}
        if path.endswith("/cancel"):
            task = self.tasks[part[3]]
            if task["status"] in ("success", "failed"):
                return {"task_id": part[3], "status": task["status"]}
            self.finish(part[3], error="by its owner", code="TASK_CANCELLED")
            return {"task_id": part[3], "status": "cancelled"}
        raise ApiError(f"the fake service has no {method} {path}", None, 404)

    def _submit(self, endpoint_id: str, document: Any) -> Any:
        if endpoint_id != self.endpoint_id:
            raise EndpointNotFound(f"no endpoint {endpoint_id}")
        for function_id in document["tasks"]:
            if function_id not in self.functions:
                raise FunctionNotFound(f"no function {function_id}")
        group = document.get("task_group_id") or str(uuid4())
        self.broker.declare_queue(PREFIX + group)
        self.submissions.append(document)
        answer: dict[str, list[str]] = {}
        for function_id, payloads in document["tasks"].items():
            for payload in payloads:
                task_id = str(uuid4())
                self.tasks[task_id] = {
                    "task_id": task_id,
                    "status": "received",
                    "group": group,
                    "function": function_id,
                    "payload": payload,
                }
                answer.setdefault(function_id, []).append(task_id)
        if self.runs_tasks:
            for task_ids in answer.values():
                for task_id in task_ids:
                    self.run(task_id)  # the results overtake this answer
        return {"request_id": str(uuid4()), "task_group_id": group, "endpoint_id": endpoint_id, "tasks": answer}


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def service(broker: MemoryBroker) -> FakeService:
    return FakeService(broker)


@pytest.fixture
def api(service: FakeService, tmp_path) -> ApiClient:
    quick = RetryPolicy(first_s=0.01, longest_s=0.02, budget_s=5.0, unmet_budget_s=0.05)
    return ApiClient(
        "http://fake:5000",
        "fc_token",
        store=TokenStore(tmp_path / "tokens.json"),
        retry=quick,
        transport=httpx.MockTransport(service.handle),
    )


@pytest.fixture
def client(api: ApiClient) -> Client:
    return Client(api=api)


@pytest.fixture
def make_executor(service: FakeService, broker: MemoryBroker, client: Client) -> Iterator[Callable[..., Executor]]:
    made: list[Executor] = []

    def make(**options: Any) -> Executor:
        defaults = {"endpoint_id": service.endpoint_id, "client": client, "connect": broker.connection}
        made.append(Executor(**{**defaults, **options}))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)
    close_streams(5.0)


@pytest.fixture
def executor(make_executor: Callable[..., Executor]) -> Executor:
    return make_executor()
