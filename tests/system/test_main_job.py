"""A function from here to an endpoint and back, with each engine."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import pytest

from farcall import Client, Executor, ShellFunction
from farcall.testing.functions import by_value
from farcall.testing.processes import EndpointProcess, ProcessSystem

pytestmark = pytest.mark.on_servers

EXAMPLES = Path(__file__).parents[2] / "examples"


@by_value
def double(x: Any) -> Any:
    return x * 2


@by_value
def fail_with_value_error(text: str) -> None:
    raise ValueError(text, 42)


@by_value
def echo(value: Any) -> Any:
    return value


def test_a_call_comes_back_with_its_value(any_endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=any_endpoint.id) as ex:
        future = ex.submit(double, 21)
        assert future.result(timeout=60) == 42
        assert uuid.UUID(str(future.task_id))


def test_many_calls_each_give_their_own_value(any_endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=any_endpoint.id) as ex:
        futures = {ex.submit(double, n): n for n in range(300)}
        for future in as_completed(futures, timeout=120):
            assert future.result() == 2 * futures[future]


def test_an_exception_arrives_as_its_own_type_with_the_remote_traceback(any_endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=any_endpoint.id) as ex, pytest.raises(ValueError) as caught:
        ex.submit(fail_with_value_error, "wrong here").result(timeout=60)
    assert caught.value.args == ("wrong here", 42)
    assert "fail_with_value_error" in str(caught.value.__cause__)


def test_a_shell_function_returns_its_output(any_endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=any_endpoint.id) as ex:
        result = ex.submit(ShellFunction("echo hello {name}; awk 'BEGIN {print 6 * 7}'"), name="world").result(60)
    assert result.returncode == 0
    assert result.stdout == "hello world\n42\n"


def test_a_megabyte_comes_back_unchanged(executor: Executor) -> None:
    value = bytes(range(256)) * 4096
    assert executor.submit(echo, value).result(timeout=60) == value


def test_a_batch_of_the_client_gives_all_its_results(endpoint: EndpointProcess) -> None:
    client = Client()
    function_id = client.register_function(double)
    batch = client.create_batch()
    for n in range(10):
        batch.add(function_id, args=(n,))
    answer = client.batch_run(endpoint.id, batch)
    task_ids = answer["tasks"][function_id]
    assert len(task_ids) == 10
    # The client has no stream; the group's Executor waits for us without polling.
    with Executor(endpoint_id=endpoint.id, task_group_id=answer["task_group_id"]) as ex:
        futures = {str(f.task_id): f for f in ex.reload_tasks()}
        assert [futures[t].result(timeout=60) for t in task_ids] == [2 * n for n in range(10)]
    assert client.get_result(task_ids[3]) == 6


def test_source_code_can_be_registered_without_an_object(executor: Executor) -> None:
    function_id = executor.register_source_code("def triple(x):\n    return 3 * x\n", "triple")
    assert executor.submit_to_registered_function(function_id, (14,)).result(timeout=60) == 42


def test_results_of_a_client_that_went_away_are_there_for_the_next(
    shared_system: ProcessSystem, endpoint: EndpointProcess, tmp_path: Path
) -> None:
    program = tmp_path / "submit_and_leave.py"
    program.write_text(
        "import os, sys\n"
        "from farcall import Executor\n"
        "def square(x):\n    return x * x\n"
        "ex = Executor(endpoint_id=sys.argv[1], task_group_id=sys.argv[2])\n"
        "futures = [ex.submit(square, n) for n in range(50)]\n"
        "futures[-1].result()\n"  # all are accepted then, and some results were never read
        "os._exit(0)\n"
    )
    group = str(uuid.uuid4())
    subprocess.run([sys.executable, str(program), endpoint.id, group], check=True, timeout=120)
    with Executor(endpoint_id=endpoint.id, task_group_id=group) as ex:
        values = sorted(f.result(timeout=60) for f in ex.reload_tasks())
    assert values == [n * n for n in range(50)]


def test_the_program_of_the_deck_runs(shared_system: ProcessSystem, endpoint: EndpointProcess) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "jittery_multiply.py"), "1", "2", "6.283"],
        env={**os.environ, "FARCALL_ENDPOINT_ID": endpoint.id},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    values = sorted(float(line) for line in done.stdout.split())
    for value, exact in zip(values, (0.0, 2.0, 12.566), strict=True):
        assert abs(value - exact) <= 1.0


def test_two_processes_that_wait_for_the_same_tasks_both_get_all_results(
    shared_system: ProcessSystem, endpoint: EndpointProcess, tmp_path: Path
) -> None:
    other = tmp_path / "other_reader.py"
    other.write_text(
        "import sys\n"
        "from farcall import Executor\n"
        "ex = Executor(endpoint_id=sys.argv[1], task_group_id=sys.argv[2])\n"
        "futures = ex.reload_tasks()\n"
        "print('waiting', len(futures), flush=True)\n"
        "print(sum(f.result(60) for f in futures), flush=True)\n"
    )
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    @by_value
    def wait_at(gate: str, n: int) -> int:
        with open(gate) as fifo:
            fifo.read()
        return n

    with Executor(endpoint_id=endpoint.id, task_group_id=str(uuid.uuid4())) as ex:
        first = ex.submit(echo, 0)
        futures = [ex.submit(wait_at, str(gate), 1), *(ex.submit(echo, n) for n in range(2, 10))]
        assert first.result(60) == 0
        second = subprocess.Popen(
            [sys.executable, str(other), endpoint.id, str(ex.task_group_id)], stdout=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        assert second.stdout.readline() == "waiting 10\n"
        gate.write_text("open\n")  # a writer opens the gate for the one worker that reads it
        assert [f.result(60) for f in futures] == list(range(1, 10))
        assert second.stdout.readline() == f"{sum(range(10))}\n"
        assert second.wait(60) == 0
