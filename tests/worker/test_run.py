"""Whatever a function does, its task ends in a result message that says so."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farcall.serialize import AllCodeStrategies, ComputeSerializer, JSONData, PureSourceTextInspect, source
from farcall.serialize.exceptions import RemoteTraceback, load_exception
from farcall.wire.errors import SerializationError
from farcall.wire.messages import Result
from farcall.worker import report
from farcall.worker.run import run_bundle, run_task
from farcall.worker.task import WorkerTask

from .conftest import TASK_ID, make_task, opened

Run = Callable[..., Result]


def add(x: int, y: int = 1) -> int:
    return x + y


def divide(x: int) -> float:
    return 1 / x


def fail_with(exc: BaseException) -> None:
    raise exc


def exit_with(code: Any) -> None:
    sys.exit(code)


def endless(n: int) -> int:
    return endless(n + 1)


def make_generator() -> Any:
    yield 1


async def make_coroutine() -> int:
    return 1


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class RefusesToBePickled:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


def test_a_value_comes_back_with_times_and_the_worker_described(run: Run) -> None:
    result = run(add, 1, y=5, options={"endpoint_id": "e" * 8})
    assert (result.task_id, result.error_details) == (TASK_ID, None)
    assert ComputeSerializer().deserialize(result.data) == 6
    start, end = result.task_statuses
    assert (start.state, start.actor, end.state, end.actor) == ("execution-start", "worker", "execution-end", "worker")
    assert start.timestamp <= end.timestamp
    details = dict(result.details or {})
    assert details["endpoint_id"] == "e" * 8
    assert details["pid"] == os.getpid()
    assert details["python_version"] == sys.version.split()[0]
    assert {"os", "dill_version", "globus_compute_sdk_version", "farcall_version", "hostname", "block"} <= set(details)


def test_a_task_that_only_has_source_and_json_runs(value: Callable[..., Any]) -> None:
    options = {"serializer": ComputeSerializer(PureSourceTextInspect, JSONData)}
    assert value(add, 1, options=options) == 2


def test_the_result_is_in_the_first_format_of_the_callers_that_can_hold_it(run: Run) -> None:
    both = ("globus_compute_sdk.serialize.JSONData", "farcall.serialize.DillDataBase64")
    assert run(add, 1, options={"result_serializers": both}).data == "11\n2"
    assert run(set, [1], options={"result_serializers": both}).data.startswith("00\n")
    refused = run(set, [1], options={"result_serializers": both[:1]})
    assert "JSON" in refused.data
    assert refused.is_error


def test_a_function_can_return_a_function(value: Callable[..., Any]) -> None:
    def outer() -> Any:
        return lambda x: x + 1

    assert value(outer)(1) == 2


def test_an_exception_is_told_without_the_workers_own_frames(run: Run) -> None:
    result = run(divide, 0)
    assert result.error_details is not None
    assert result.error_details.code == "RemoteExecutionError"
    assert result.error_details.user_message == "ZeroDivisionError: division by zero"
    assert result.data.startswith("Traceback (most recent call last):\n")
    assert "in divide" in result.data
    assert report._OWN_FILES not in result.data


def test_the_exception_travels_as_its_own_type(run: Run) -> None:
    result = run(divide, 0)
    exc = load_exception(result.details, result.data)
    assert type(exc) is ZeroDivisionError
    assert isinstance(exc.__cause__, RemoteTraceback)
    assert "in divide" in str(exc.__cause__)


@pytest.mark.parametrize(
    ("accepted", "travels"),
    [
        (None, True),
        (("farcall.serialize.JSONData",), False),
        (("farcall.serialize.JSONData", "globus_compute_sdk.serialize.concretes.DillDataBase64"), True),
        (("farcall.serialize.AllDataStrategies",), True),
        (("no.such.Thing",), False),
    ],
)
def test_the_exception_travels_as_an_object_only_if_the_caller_reads_pickles(
    run: Run, accepted: Any, travels: bool
) -> None:
    details = run(divide, 0, options={"result_serializers": accepted}).details or {}
    assert ("exception" in details) is travels


def test_causes_are_told_too(run: Run) -> None:
    def chained() -> None:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError as exc:
            raise ValueError("outer") from exc

    text = run(chained).data
    assert "ZeroDivisionError" in text
    assert "direct cause" in text
    assert text.endswith("ValueError: outer\n")


def test_lines_of_a_function_that_came_as_source_are_quoted(run: Run) -> None:
    text = "def broken(x):\n    whole = [x]\n    return whole[7]  # this line\n"
    task = WorkerTask(TASK_ID, ComputeSerializer.pack_buffers([f"st\nbroken:{text}", "11\n[1]", "11\n{}"]))
    assert "return whole[7]  # this line" in opened(run_task(task)).data
    assert text in source._compiled


@pytest.mark.parametrize("code", [0, 3, None, "text"])
def test_sys_exit_is_a_failure_that_explains_itself_and_the_worker_lives(run: Run, code: Any) -> None:
    result = run(exit_with, code)
    assert result.is_error
    assert "sys.exit()" in result.data
    assert "SystemExit" in result.data
    assert "exception" not in (result.details or {})  # raised again at the caller, it would end the caller


def test_a_keyboard_interrupt_is_a_failure(run: Run) -> None:
    assert "KeyboardInterrupt" in run(fail_with, KeyboardInterrupt()).data


def test_endless_recursion_is_a_failure(run: Run) -> None:
    result = run(endless, 0)
    assert result.error_details is not None
    assert result.error_details.user_message.startswith("RecursionError")
    assert len(result.data) <= report.TRACEBACK_LIMIT_CHARS
    assert type(load_exception(result.details, result.data)) is RecursionError


def test_an_exception_that_cannot_speak_nor_travel_is_a_failure(run: Run, in_main: Callable[[str, str], Any]) -> None:
    speechless = in_main(
        "class Speechless(Exception):\n"
        "    def __str__(self):\n        raise SystemExit(1)\n"
        "    def __reduce__(self):\n        raise KeyboardInterrupt\n"
        "def f():\n    raise Speechless\n",
        "f",
    )
    result = run(speechless)
    assert result.is_error
    assert "Speechless" in result.data


def test_a_huge_message_is_cut_in_the_middle(run: Run) -> None:
    result = run(fail_with, ValueError("<begin>" + "x" * 1_000_000 + "<end>"))
    assert len(result.data) <= report.TRACEBACK_LIMIT_CHARS
    assert "<begin>" in result.data
    assert "characters left out" in result.data
    assert result.data.endswith("<end>\n")
    assert result.error_details is not None
    assert len(result.error_details.user_message) <= 500


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (make_generator, r"returned a generator.*list\(\.\.\.\)"),
        (make_coroutine, r"coroutine.*asyncio\.run"),
        (threading.Thread, "Cannot serialize the result"),
        (RefusesToBePickled, "not me"),
    ],
    ids=["generator", "coroutine", "thread", "refusing"],
)
def test_a_result_that_cannot_be_sent_says_so(run: Run, function: Any, says: str) -> None:
    result = run(function)
    assert result.error_details is not None
    assert result.error_details.code == "RemoteExecutionError"
    import re

    assert re.search(says, result.data, re.DOTALL)
    assert "_dill.py" not in result.data
    assert isinstance(load_exception(result.details, result.data), SerializationError)


def test_a_result_over_the_limit_says_both_sizes(run: Run) -> None:
    result = run(str, "x" * 2000, options={"result_limit_chars": 1000})
    assert result.error_details is not None
    assert result.error_details.code == "MaxResultSizeExceeded"
    assert "1000" in result.data
    assert len(result.data) < 500
    assert not run(str, "x" * 2000, options={"result_limit_chars": 3000}).is_error


@pytest.mark.parametrize("buffer", ["", "xx", "3\nab", "1\n1", ComputeSerializer.pack_buffers(["11\n1"] * 4)])
def test_what_is_no_task_says_so(buffer: str) -> None:
    result = opened(run_task(WorkerTask(TASK_ID, buffer)))
    assert result.error_details is not None
    assert result.error_details.code == "CouldNotExecuteUserTaskError"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (["11\n5", "11\n[]", "11\n{}"], "not callable"),
        (["01\ngASVFAAAAAAAAACMCGJ1aWx0aW5zlIwDbGVulJOULg==\n", "11\n5", "11\n{}"], "int and dict"),
    ],
)
def test_a_task_of_the_wrong_types_says_so(parts: list[str], says: str) -> None:
    result = opened(run_task(WorkerTask(TASK_ID, ComputeSerializer.pack_buffers(parts))))
    assert says in result.data


def test_a_refused_strategy_says_what_the_endpoint_accepts(run: Run) -> None:
    result = run(add, 1, options={"allowed_serializers": ("globus_compute_sdk.*Code", "farcall.serialize.JSONData")})
    assert "does not accept arguments serialized with DillDataBase64; it accepts JSONData" in result.data
    assert result.is_error


def test_bytecode_of_another_python_is_not_run(run: Run, in_main: Callable[[str, str], Any]) -> None:
    function = in_main("def f():\n    return 5\n", "f")
    result = run(function)
    assert not result.is_error
    import dill

    from farcall.serialize import mime

    untagged = "01\n" + mime.encode(dill.dumps(function))  # as the other ecosystem sends it
    task = WorkerTask(TASK_ID, ComputeSerializer.pack_buffers([untagged, "11\n[]", "11\n{}"]), python_version="3.9.1")
    text = opened(run_task(task)).data
    assert "Python 3.9" in text
    assert sys.version.split()[0] in text
    assert "AllCodeStrategies" in text
    assert not opened(run_task(task._replace(python_version=sys.version))).is_error


def test_source_from_another_python_is_run(run: Run) -> None:
    options = {"serializer": ComputeSerializer(AllCodeStrategies), "python_version": "3.99.0"}
    assert not run(add, 1, options=options).is_error


def test_one_failing_call_of_a_bundle_does_not_touch_the_others() -> None:
    tasks = [make_task(add, 1), make_task(exit_with, 1), WorkerTask(TASK_ID, "no"), make_task(add, 2)]
    results = [opened(message) for message in run_bundle(tasks)]
    assert [result.is_error for result in results] == [False, True, True, False]
    times = [status.timestamp for result in results for status in result.task_statuses]
    assert times == sorted(times)


def test_a_child_that_a_function_forks_does_not_answer_in_its_place() -> None:
    script = """
import os, sys
from farcall.serialize import ComputeSerializer
from farcall.worker.run import run_task
from farcall.worker.task import WorkerTask
s = ComputeSerializer()
def f():
    import os
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return pid
task = WorkerTask("00000000-0000-4000-8000-000000000007", s.pack_buffers([s.serialize(x) for x in (f, (), {})]))
run_task(task)
print("one worker", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "one worker\n"


def test_tasks_run_side_by_side_in_threads(tmp_path: Path) -> None:
    barrier = threading.Barrier(2, timeout=30)

    def meet(n: int) -> int:
        barrier.wait()
        return n

    source.show_in_tracebacks()
    results: dict[int, Result] = {}
    # A barrier cannot travel: the function is found by name in this module, where both threads see the same one.
    globals()["meet"] = meet
    meet.__module__, meet.__qualname__ = __name__, "meet"
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: opened(run_task(make_task(meet, n)))})) for n in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [ComputeSerializer().deserialize(results[n].data) for n in (1, 2)] == [1, 2]


def test_run_task_is_found_by_name_and_its_task_is_small() -> None:
    import pickle

    task = make_task(add, 1)
    assert pickle.loads(pickle.dumps(run_task)) is run_task
    assert pickle.loads(pickle.dumps(task)) == task
    assert len(pickle.dumps(task)) < len(task.task_buffer) + 200


def test_a_coroutine_that_is_not_awaited_leaves_no_warning(run: Run, recwarn: pytest.WarningsRecorder) -> None:
    run(make_coroutine)
    assert not [w for w in recwarn if "never awaited" in str(w.message)]
    assert asyncio.iscoroutinefunction(make_coroutine)


def uses_a_name_of_its_module() -> int:
    return add(1)


def uses_a_variable_too_early() -> int:
    x += 1  # type: ignore[name-defined]  # noqa: F821
    return x


def test_a_name_that_did_not_travel_is_explained(run: Run, in_main: Callable[[str, str], Any]) -> None:
    as_source = {"serializer": ComputeSerializer(strategy_code=PureSourceTextInspect())}
    result = run(uses_a_name_of_its_module, options=as_source)
    assert "NameError: name 'add' is not defined" in result.data
    assert result.data.count("'add' is not known inside the function on the worker") == 1
    error = load_exception(result.details, result.data)
    assert (type(error), str(error)) == (NameError, "name 'add' is not defined")
    if sys.version_info >= (3, 11):
        assert "Import or define it inside the function" in "".join(error.__notes__)
    of_script = run(in_main("def asks(): return not_there", "asks"))
    assert "'not_there' is not known inside the function" in of_script.data


def test_it_is_explained_too_where_the_main_module_has_the_name_that_multiprocessing_gives(
    in_main: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(in_main("def asks(): return not_there", "asks"))
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules["__main__"])
    monkeypatch.setattr(sys.modules["__main__"], "__name__", "__mp_main__")
    assert "'not_there' is not known inside the function" in opened(run_task(task)).data


def test_other_errors_of_names_get_no_such_advice(run: Run) -> None:
    def fails_in_an_installed_module() -> None:
        import textwrap
        from types import FunctionType

        FunctionType(compile("nowhere", "x", "eval"), vars(textwrap))()

    for function in (uses_a_variable_too_early, fails_in_an_installed_module):
        result = run(function)
        assert "Error: " in result.data
        assert "on the worker" not in result.data
    assert "on the worker" not in run(fail_with, NameError("made by hand")).data
