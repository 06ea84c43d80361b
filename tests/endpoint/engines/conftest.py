"""Engines as the agent would run them: real ones, in a directory of their own, with a recorder for what they say."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from farcall.endpoint.engines.base import Engine, EngineContext, EngineFailure, EngineTask
from farcall.endpoint.engines.build import build_engine
from farcall.endpoint.engines.config import validate_engine
from farcall.serialize import ComputeSerializer
from farcall.wire.messages import Result, unpack_message

GENEROUS_S = 90.0


class Recorder:
    """Callbacks that remember, and wait for what they have not heard yet."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.outcomes: dict[str, list[Result | EngineFailure]] = {}
        self.deaths: list[str] = []
        self.demands = 0

    def finished(self, task_id: str, packed_result: bytes) -> None:
        result = unpack_message(packed_result)
        assert isinstance(result, Result)
        self._add(task_id, result)

    def failed(self, task_id: str, failure: EngineFailure) -> None:
        self._add(task_id, failure)

    def demand(self) -> None:
        with self.changed:
            self.demands += 1
            self.changed.notify_all()

    def died(self, reason: str) -> None:
        with self.changed:
            self.deaths.append(reason)
            self.changed.notify_all()

    def _add(self, task_id: str, outcome: Result | EngineFailure) -> None:
        with self.changed:
            self.outcomes.setdefault(task_id, []).append(outcome)
            self.changed.notify_all()

    def wait(self, predicate: Callable[[], Any], timeout_s: float = GENEROUS_S) -> None:
        with self.changed:
            assert self.changed.wait_for(predicate, timeout=timeout_s), "waited in vain"

    def outcome(self, task: EngineTask) -> Result | EngineFailure:
        """What became of the task, once it is known; exactly one thing."""
        self.wait(lambda: task.task_id in self.outcomes)
        (outcome,) = self.outcomes[task.task_id]
        return outcome

    def value(self, task: EngineTask) -> Any:
        """What the task's function returned."""
        outcome = self.outcome(task)
        assert isinstance(outcome, Result), outcome
        assert not outcome.is_error, outcome.data
        return ComputeSerializer().deserialize(outcome.data)

    def failure(self, task: EngineTask) -> EngineFailure:
        """Why the engine failed the task."""
        outcome = self.outcome(task)
        assert isinstance(outcome, EngineFailure), outcome
        return outcome


class Switch:
    """Callbacks of a long-lived engine, passed on to the recorder of the test that runs now."""

    def __init__(self) -> None:
        self.to = Recorder()

    def finished(self, task_id: str, packed_result: bytes) -> None:
        self.to.finished(task_id, packed_result)

    def failed(self, task_id: str, failure: EngineFailure) -> None:
        self.to.failed(task_id, failure)

    def demand(self) -> None:
        self.to.demand()

    def died(self, reason: str) -> None:
        self.to.died(reason)


def make_task(function: Any, *args: Any, specification: dict[str, Any] | None = None, **kwargs: Any) -> EngineTask:
    if isinstance(function, FunctionType):  # travels by value, alone: workers do not have the tests' modules
        function = FunctionType(function.__code__, {"__name__": "__main__"}, function.__name__, function.__defaults__)
    serializer = ComputeSerializer()
    buffer = serializer.pack_buffers([serializer.serialize(part) for part in (function, args, kwargs)])
    return EngineTask(
        task_id=str(uuid.uuid4()),
        function_id=str(uuid.uuid4()),
        task_buffer=buffer,
        resource_specification=specification or {},
    )


@pytest.fixture(scope="session")
def task() -> Callable[..., EngineTask]:
    """Makes a task from a function and its arguments."""
    return make_task


class Running:
    """A started engine and who listens to it."""

    def __init__(self, kind: str, engine: Engine, switch: Switch, directory: Path) -> None:
        self.kind = kind
        self.engine = engine
        self.switch = switch
        self.directory = directory
        self.has_ended = False

    @property
    def heard(self) -> Recorder:
        return self.switch.to

    def submit(self, *tasks: EngineTask) -> tuple[EngineTask, ...]:
        self.engine.submit(tasks)
        return tasks

    def end(self, grace_s: float = 0) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.engine.shutdown(grace_s)


@pytest.fixture(scope="module")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Starts an engine from an `engine:` section; ended with the module."""
    running: list[Running] = []

    def start(section: dict[str, Any], directory: Path | None = None) -> Running:
        directory = directory or tmp_path_factory.mktemp("endpoint")
        engine = build_engine(validate_engine(section), EngineContext(endpoint_dir=directory, endpoint_id=None))
        switch = Switch()
        engine.start(switch)
        running.append(Running(section["type"], engine, switch, directory))
        return running[-1]

    yield start
    for item in running:
        item.end()


class Desk:
    """Where tasks report, one connection each, and wait until they are let go."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(GENEROUS_S)
        self.port: int = self._socket.getsockname()[1]
        self._kept: list[socket.socket] = []

    def next(self) -> tuple[int, socket.socket]:
        """The next task's process id, and its connection: close it to let the task go on."""
        connection, _ = self._socket.accept()
        self._kept.append(connection)
        return int(connection.recv(64)), connection

    def close(self) -> None:
        for item in (*self._kept, self._socket):
            item.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
