"""Running tasks: `run_task` is what engines execute on a node. It always returns a result message.

Whatever the function does short of ending the process becomes a result: a value, or an error with a reason.
A process that ends (killed, `os._exit`) is the engine's to notice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import time_ns
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from farcall.serialize import AllDataStrategies, ComputeSerializer, DillDataBase64, strategy_from
from farcall.wire.errors import DeserializationError, FramingError, MaxResultSizeExceeded, SerializationError
from farcall.wire.framing import unpack_buffers
from farcall.worker.report import add_hint, failure_message, success_message, traceback_text
from farcall.worker.surroundings import Surroundings
from farcall.worker.task import WorkerTask
from farcall.worker.time_limit import TaskTimedOut, TimeLimit, limit_from_environment

__all__ = ["run_bundle", "run_task", "warm_up"]

_EXIT_ADVICE = (
    "\nThe function called sys.exit(), which on a worker would end other people's tasks too. It was taken for a "
    "failure: return a value, or raise an exception that says what went wrong.\n"
)


def run_task(task: WorkerTask) -> bytes:
    """Run one task.

    Returns:
        The packed `result` message, ready to be published unchanged. Never raises.

    Source: wire protocol, result contents and payloads.
    """
    started_ns, pid = time_ns(), os.getpid()
    try:
        data = _serialized_result(task)
    except BaseException as exc:
        _end_if_forked(pid, exc)
        return _failure(task, exc, started_ns)
    _end_if_forked(pid, None)
    return success_message(task.task_id, task.endpoint_id, data, started_ns, time_ns())


def run_bundle(tasks: Iterable[WorkerTask]) -> list[bytes]:
    """Run several tasks one after the other; one that fails does not touch the others.

    Returns:
        Their result messages in the same order, each with its own times.
    """
    return [run_task(task) for task in tasks]


def warm_up() -> None:
    """Import what the first task would have to wait for (dill). For engines that start workers ahead of tasks."""
    run_task(WorkerTask(task_id="00000000-0000-0000-0000-000000000000", task_buffer=""))


class _CouldNotExecute(Exception):
    """The message was no task."""


def _serialized_result(task: WorkerTask) -> str:
    limit_s = limit_from_environment()
    with Surroundings(task):
        function, args, kwargs = _load(task)
        if limit_s is None:
            value = function(*args, **kwargs)
        else:
            value = _call_within(limit_s, function, args, kwargs)
        data = _serialize(value, task)
    if len(data) > task.result_limit_chars:
        raise MaxResultSizeExceeded(
            f"The serialized result has {len(data)} characters, and the limit is {task.result_limit_chars}. Return "
            "less: write large data to a file that you can reach, and return its path."
        )
    return data


def _load(task: WorkerTask) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    serializer = _serializer(task.allowed_serializers and tuple(task.allowed_serializers))
    try:
        buffers = unpack_buffers(task.task_buffer)
    except FramingError as exc:
        raise _CouldNotExecute(f"The task's buffer of {len(task.task_buffer)} characters is damaged: {exc}") from exc
    if len(buffers) != 3:
        raise _CouldNotExecute(
            f"The task's buffer has {len(buffers)} parts instead of three: function, arguments, keyword arguments."
        )
    function, args, kwargs = (serializer.deserialize(buffer, python_version=task.python_version) for buffer in buffers)
    if not callable(function):
        raise _CouldNotExecute(f"What was sent as the function is of type {type(function).__name__}; not callable.")
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict):
        raise _CouldNotExecute(
            f"The arguments are of type {type(args).__name__} and {type(kwargs).__name__} instead of tuple and dict."
        )
    return function, tuple(args), kwargs


def _call_within(limit_s: float, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        with TimeLimit(limit_s):
            return function(*args, **kwargs)
    except TaskTimedOut as exc:
        raise TimeoutError(
            f"The task was stopped after {limit_s:g} s, the limit that the endpoint's site sets for every task "
            "(GC_TASK_TIMEOUT)."
        ).with_traceback(exc.__traceback__) from None


def _serialize(value: Any, task: WorkerTask) -> str:
    kind = type(value)
    if kind is GeneratorType or kind is AsyncGeneratorType:
        raise SerializationError(
            "The function returned a generator, whose values exist only while it runs here. Return list(...) of it."
        )
    if kind is CoroutineType:
        value.close()  # else Python warns that it was never awaited
        raise SerializationError(
            "The function returned a coroutine (it is an `async def`), and workers run no event loop. Send a plain "
            "`def` that calls asyncio.run(...) and returns its value."
        )
    if task.result_serializers:
        return ComputeSerializer.serialize_from_list(value, task.result_serializers, what="the result")
    return _default_serializer.serialize(value, what="the result")


def _failure(task: WorkerTask, exc: BaseException, started_ns: int) -> bytes:
    code, text = "RemoteExecutionError", ""
    if isinstance(exc, _CouldNotExecute):
        code, text = "CouldNotExecuteUserTaskError", str(exc)
    elif isinstance(exc, MaxResultSizeExceeded):
        code, text = "MaxResultSizeExceeded", str(exc)
    else:
        hint = add_hint(exc)
        text = traceback_text(exc) + hint
        if isinstance(exc, SystemExit):
            text += _EXIT_ADVICE
    return failure_message(
        task.task_id,
        task.endpoint_id,
        exc,
        code=code,
        text=text,
        with_exception=code == "RemoteExecutionError" and _accepts_dill(_as_tuple(task.result_serializers)),
        started_ns=started_ns,
        ended_ns=time_ns(),
    )


def _end_if_forked(pid: int, exc: BaseException | None) -> None:
    """A child process that the function forked must not come out of here as a second worker."""
    if os.getpid() == pid:
        return
    if exc is not None and not isinstance(exc, SystemExit):
        sys.stderr.write(traceback_text(exc))
    sys.stderr.flush()
    os._exit(0 if exc is None else 1)


_default_serializer = ComputeSerializer()


@lru_cache(maxsize=8)
def _serializer(allowed: tuple[str, ...] | None) -> ComputeSerializer:
    try:
        return ComputeSerializer(allowed_deserializer_types=allowed)
    except ValueError as exc:  # the endpoint checks its configuration, so another release wrote this
        raise DeserializationError(f"The endpoint's allowed_serializers cannot be used by its worker: {exc}") from exc


@lru_cache(maxsize=32)
def _accepts_dill(result_serializers: tuple[str, ...] | None) -> bool:
    if not result_serializers:
        return True
    for path in result_serializers:
        try:
            if type(strategy_from(path)) in (DillDataBase64, AllDataStrategies):
                return True
        except ValueError:
            continue
    return False


def _as_tuple(paths: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if paths is None else tuple(paths)
