"""A service, a broker and an engine in this process, so that an endpoint can be run whole and watched."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from farcall.amqp.memory import MemoryBroker
from farcall.client.rest import ApiClient
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.engines.base import EngineCallbacks, EngineContext, EngineFailure, EngineTask
from farcall.endpoint.process import EndpointRun
from farcall.endpoint.registered import Registered
from farcall.wire.messages import Message, Result, Task, pack_message, unpack_message
from farcall.wire.topology import task_headers

ENDPOINT = "eeeeeeee-0000-4000-8000-000000000001"
FUNCTION = "ffffffff-0000-4000-8000-000000000001"
WAIT_S = 20.0


class FakeEngine:
    """An engine whose tasks do what the test says. `capacity_now` is how many it takes."""

    def __init__(self, capacity: int = 100) -> None:
        self.max_retries_on_system_failure = 0
        self.capacity_now = capacity
        self.tasks: dict[str, EngineTask] = {}
        self.submitted: list[str] = []
        self.backlog = 0
        self.can_cancel: set[str] = set()
        self.shutdowns: list[float] = []
        self.on_shutdown: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    def start(self, callbacks: EngineCallbacks) -> None:
        self.callbacks = callbacks

    def submit(self, tasks: Sequence[EngineTask]) -> None:
        with self._changed:
            for task in tasks:
                self.tasks[task.task_id] = task
                self.submitted.append(task.task_id)
            self._changed.notify_all()

    def capacity(self) -> int:
        return max(0, self.capacity_now - len(self.tasks))

    def note_backlog(self, count: int) -> None:
        with self._changed:
            self.backlog = count
            self._changed.notify_all()

    def cancel(self, task_id: str) -> bool:
        with self._changed:
            return task_id in self.can_cancel and self.tasks.pop(task_id, None) is not None

    def status(self) -> Mapping[str, Any]:
        return {"engine_type": "FakeEngine", "total_workers": self.capacity_now, "pending_tasks": 0}

    def shutdown(self, grace_s: float) -> None:
        self.shutdowns.append(grace_s)
        self.on_shutdown()

    # What the test does

    def wait_submitted(self, count: int) -> list[str]:
        """Wait until this many tasks in all were handed over."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.submitted) >= count, WAIT_S), self.submitted
            return list(self.submitted)

    def wait_backlog(self, count: int) -> None:
        """Wait until this many tasks are kept back by the agent."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.backlog == count, WAIT_S), self.backlog

    def finish(self, task_id: str, value: str = "value") -> None:
        with self._changed:
            self.tasks.pop(task_id, None)
        self.callbacks.finished(task_id, pack_message(Result(task_id=task_id, data=value)))
        self.callbacks.demand()

    def lose(self, task_id: str, text: str = "worker killed by signal 9") -> None:
        with self._changed:
            self.tasks.pop(task_id, None)
        self.callbacks.failed(task_id, EngineFailure(code="WORKER_LOST", text=text, is_system_failure=True))


class Watcher:
    """An announcer that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def _say(self, kind: str, text: str) -> None:
        with self._changed:
            self.said.append((kind, text))
            self._changed.notify_all()

    def notice(self, text: str) -> None:
        self._say("notice", text)

    def waiting(self, text: str) -> None:
        self._say("waiting", text)

    def registered(self, endpoint_id: str) -> None:
        self._say("registered", endpoint_id)

    def connecting(self) -> None:
        self._say("connecting", "")

    def online(self) -> None:
        self._say("online", "")

    def failed(self, text: str) -> None:
        self._say("failed", text)

    def wait(self, kind: str) -> str:
        """Wait for the first of this kind; returns its text."""
        with self._changed:
            found = self._changed.wait_for(lambda: [text for each, text in self.said if each == kind], WAIT_S)
            assert found, self.said
            return found[0]


class FakeService:
    """The REST side of a service, as an HTTP transport; and the broker beside it, with the queues of one endpoint."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.is_up = True
        self.endpoint_id = ENDPOINT
        self.broker = MemoryBroker()
        for exchange, kind in (("results", "topic"), ("heartbeats", "topic")):
            self.broker.declare_exchange(exchange, kind)  # type: ignore[arg-type]
        self.broker.declare_queue("results", confirm_on="ack")
        self.broker.declare_queue("heartbeats")
        self.broker.declare_queue("to-do")
        self.broker.bind("results", "results", "*.results")
        self.broker.bind("heartbeats", "heartbeats", "*.heartbeats")

    def client(self) -> ApiClient:
        return ApiClient("http://service.test:5000", "token", transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if not self.is_up:
            raise httpx.ConnectError("connection refused", request=request)
        body = json.loads(request.content) if request.content else None
        self.requests.append((request.method, request.url.path, body))
        key = f"{request.method} {request.url.path}"
        if key in self.answers:
            status, document = self.answers[key]
            return httpx.Response(
                status, **({"content": document} if isinstance(document, bytes) else {"json": document})
            )
        if request.url.path == "/v2/version":
            return httpx.Response(200, json={"api": "1.0.0", "min_sdk_version": "0.1.0", "min_ep_version": "0.1.0"})
        if request.method in ("POST", "PUT") and request.url.path.startswith("/v3/endpoints"):
            return httpx.Response(200, json=self.registration())
        return httpx.Response(404, json={"code": "NOT_FOUND", "message": f"no answer prepared for {key}"})

    def registration(self) -> dict[str, Any]:
        url = f"amqp://endpoint.{self.endpoint_id}.1:secret@memory:5672/%2F"

        def info(exchange: str) -> dict[str, Any]:
            key = f"{self.endpoint_id}.{exchange}"
            kwargs = {"exchange": exchange, "routing_key": key, "mandatory": True, "properties": {"delivery_mode": 2}}
            return {"connection_url": url, "queue": exchange, "exchange": exchange, "queue_publish_kwargs": kwargs}

        return {
            "endpoint_id": self.endpoint_id,
            "task_queue_info": {"connection_url": url, "queue": "to-do", "exchange": "tasks"},
            "result_queue_info": info("results"),
            "heartbeat_queue_info": info("heartbeats"),
        }

    def send(self, task_id: str, buffer: str = "buffer", function_id: str = FUNCTION) -> None:
        """Put a task on the endpoint's queue."""
        body = pack_message(Task(task_id=task_id, task_buffer=buffer))
        self.broker.publish("", "to-do", body, headers=task_headers(task_id=task_id, function_id=function_id))

    def send_message(self, message: Message | bytes, **headers: Any) -> None:
        body = message if isinstance(message, bytes) else pack_message(message)
        self.broker.publish("", "to-do", body, headers=headers)

    def take_result(self) -> Result:
        """The next result that the endpoint publishes; taking it is the confirm."""
        message = unpack_message(self.broker.take("results", WAIT_S).body)
        assert isinstance(message, Result)
        return message

    def take_report(self) -> dict[str, Any]:
        message = unpack_message(self.broker.take("heartbeats", WAIT_S).body)
        return dict(message.to_data())


class Running:
    """An endpoint that runs in a thread."""

    def __init__(self, service: FakeService, directory: EndpointDirectory, engines: list[FakeEngine]) -> None:
        self.watcher = Watcher()
        self.contexts: list[EngineContext] = []
        self._engines = engines
        self._built = 0
        self.run = EndpointRun(
            directory,
            Registered(directory, service.client()),
            announcer=self.watcher,
            connection_factory=service.broker.connection,
            engine_builder=self._build,
        )
        self.status: int | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _build(self, model: Any, context: EngineContext) -> FakeEngine:
        self.contexts.append(context)
        engine = self._engines[self._built]
        self._built += 1
        return engine

    def _work(self) -> None:
        self.status = self.run.run()

    def wait_end(self) -> int:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the endpoint did not end"
        assert self.status is not None
        return self.status

    def stop(self) -> int:
        self.run.stop()
        return self.wait_end()


class Place:
    """A service, an engine, a directory; `start` runs the endpoint there."""

    def __init__(self, path: Path) -> None:
        self.service = FakeService()
        self.directory = EndpointDirectory(path / "lab")
        self.directory.path.mkdir()
        self.configure("heartbeat_period: 30\nengine:\n  type: ThreadPoolEngine\n  max_workers: 1\n")
        self.engine = FakeEngine()
        self.engines = [self.engine]
        self._running: list[Running] = []

    def configure(self, text: str) -> None:
        self.directory.config_path.write_text(text)

    def start(self) -> Running:
        running = Running(self.service, self.directory, self.engines)
        self._running.append(running)
        return running

    def add_engine(self) -> None:
        """One more, for when the first has died."""
        self.engines.append(FakeEngine())

    def restart(self) -> Running:
        """Again, with a fresh engine."""
        self.engine = FakeEngine()
        self.engines = [self.engine]
        return self.start()

    def close(self) -> None:
        for running in self._running:
            running.run.stop(at_once=True)
            running.wait_end()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()
