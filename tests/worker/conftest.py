"""Tasks as an engine would hand them over, and a look into the message that comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from farcall.serialize import ComputeSerializer
from farcall.wire.messages import Result, unpack_message
from farcall.worker.run import run_task
from farcall.worker.task import WorkerTask

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

TASK_ID = "00000000-0000-4000-8000-000000000007"


def make_task(function: Any, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> WorkerTask:
    options = dict(options or {})
    serializer = options.pop("serializer", None) or ComputeSerializer()
    buffer = serializer.pack_buffers([serializer.serialize(part) for part in (function, args, kwargs)])
    return WorkerTask(**{"task_id": TASK_ID, "task_buffer": buffer, **options})


def opened(message: bytes) -> Result:
    result = unpack_message(message)
    assert isinstance(result, Result)
    return result


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Runs a function as a task in `tmp_path`, and gives its result message."""

    def run_it(function: Any, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Result:
        task = make_task(function, *args, options={"working_dir": str(tmp_path), **(options or {})}, **kwargs)
        return opened(run_task(task))

    return run_it


@pytest.fixture
def value(run: Callable[..., Result]) -> Callable[..., Any]:
    """Runs a function as a task that must succeed, and gives its value."""

    def value_of(function: Any, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        result = run(function, *args, options=options, **kwargs)
        assert result.error_details is None, result.data
        return ComputeSerializer().deserialize(result.data)

    return value_of


@pytest.fixture
def in_main() -> Iterator[Callable[[str, str], Any]]:
    """Executes source in `__main__`, as a script would, and returns one of the names it defines."""
    namespace = sys.modules["__main__"].__dict__
    before = dict(namespace)

    def define(source: str, name: str) -> Any:
        exec(compile(source, "script.py", "exec"), namespace)  # noqa: S102
        return namespace[name]

    yield define
    for name in namespace.keys() - before.keys():
        del namespace[name]
    namespace.update(before)
