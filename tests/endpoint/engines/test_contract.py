"""What every engine keeps to, shown by the real ones: threads, processes, and Parsl with LocalProvider."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint.engines.base import EngineTask
from farcall.wire.messages import Result

SECTIONS: dict[str, dict[str, Any]] = {
    "threads": {"type": "ThreadPoolEngine", "max_workers": 2},
    "processes": {"type": "ProcessPoolEngine", "max_workers": 2},
    "parsl": {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 2,
        "cores_per_worker": 0.5,
        "heartbeat_period": 1,
        "strategy": "none",
        "provider": {"type": "LocalProvider", "init_blocks": 1, "max_blocks": 1},
    },
}
IN_PROCESSES = ("processes", "parsl")

# A task travels by value, so what it needs it imports itself.


def add(a: int, b: int = 0) -> int:
    return a + b


def fail_with(text: str) -> None:
    raise LookupError(text)


def report_and_wait(port: int) -> int:
    import os
    import socket

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(os.getpid()).encode())
        connection.recv(1)
    return os.getpid()


def end_the_process(code: int) -> None:
    import os

    os._exit(code)


def print_much() -> None:
    import os
    import sys

    for stream in (sys.stdout, sys.stderr):
        stream.write("noise\n" * 10_000)
    os.write(1, b"\x00\xff raw bytes on the output \n" * 1000)


def report_child_and_wait(port: int) -> int:
    """Start a program in a session of its own, and report that."""
    import socket
    import subprocess

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(child.pid).encode())
        connection.recv(1)
    return child.pid


@pytest.fixture(scope="module", params=list(SECTIONS))
def shared(request: pytest.FixtureRequest, start_engine: Callable[..., Any]) -> Any:
    running = start_engine(SECTIONS[request.param])
    running.name = request.param
    return running


@pytest.fixture
def running(shared: Any, recorder: Any) -> Iterator[Any]:
    shared.switch.to = recorder
    yield shared
    assert recorder.deaths == []
    assert all(len(outcomes) == 1 for outcomes in recorder.outcomes.values())


def only_processes(running: Any) -> None:
    if running.name not in IN_PROCESSES:
        pytest.skip("threads share the agent's process, by design")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        assert poll.poll(60_000), f"process {pid} goes on"
    finally:
        os.close(descriptor)


def is_ending(engine: Any, name: str) -> bool:
    """Whether nothing can start any more."""
    if name == "processes":
        return bool(engine._slots.is_stopping)
    return bool(engine._is_stopping)  # Parsl's: set once its nodes are held


def test_a_task_returns_its_value(running: Any, task: Callable[..., EngineTask]) -> None:
    (one,) = running.submit(task(add, 40, b=2))
    assert running.heard.value(one) == 42


def test_an_exception_travels_as_an_error_result(running: Any, task: Callable[..., EngineTask]) -> None:
    (one,) = running.submit(task(fail_with, "no such thing"))
    outcome = running.heard.outcome(one)
    assert isinstance(outcome, Result)
    assert outcome.is_error
    assert "LookupError: no such thing" in outcome.data


def test_each_of_many_tasks_gets_its_own_value_once(running: Any, task: Callable[..., EngineTask]) -> None:
    tasks = [task(add, number, number) for number in range(200)]
    running.submit(*tasks)
    assert [running.heard.value(one) for one in tasks] == [2 * number for number in range(200)]


def test_a_long_task_does_not_hold_up_others(running: Any, task: Callable[..., EngineTask], desk: Any) -> None:
    long, *short = running.submit(task(report_and_wait, desk.port), *(task(add, number) for number in range(20)))
    _, connection = desk.next()
    assert [running.heard.value(one) for one in short] == list(range(20))
    assert long.task_id not in running.heard.outcomes
    connection.close()
    assert running.heard.value(long) > 0


def test_large_arguments_and_results_pass(running: Any, task: Callable[..., EngineTask]) -> None:
    text = "x" * 3_000_000
    one, other = running.submit(task(add, text, b="y"), task(add, text, b="z"))
    assert running.heard.value(one) == text + "y"
    assert running.heard.value(other) == text + "z"


def test_output_of_tasks_does_not_disturb_results(running: Any, task: Callable[..., EngineTask]) -> None:
    only_processes(running)
    noisy, plain = running.submit(task(print_much), task(add, 1))
    assert running.heard.value(noisy) is None
    assert running.heard.value(plain) == 1


def test_capacity_falls_with_tasks_held_and_comes_back(
    running: Any, task: Callable[..., EngineTask], desk: Any
) -> None:
    before = running.engine.capacity()
    assert before >= 2
    holders = running.submit(task(report_and_wait, desk.port), task(report_and_wait, desk.port))
    assert running.engine.capacity() <= before - 2
    connections = [desk.next()[1] for _ in holders]
    for connection in connections:
        connection.close()
    for holder in holders:
        running.heard.outcome(holder)
    # Each task that ends is told as demand, in its own time; the last one's makes it whole.
    running.heard.wait(lambda: running.engine.capacity() >= before)


def test_unknown_resources_are_refused_without_a_run(running: Any, task: Callable[..., EngineTask]) -> None:
    refused, plain = running.submit(task(add, 1, specification={"num_nodes": 2}), task(add, 2))
    failure = running.heard.failure(refused)
    assert failure.text.startswith("Failed to start task: ")
    assert not failure.is_system_failure
    assert not failure.may_have_run
    assert running.heard.value(plain) == 2


def test_status_has_the_members_of_the_protocol(running: Any, task: Callable[..., EngineTask]) -> None:
    (one,) = running.submit(task(add, 1))
    running.heard.value(one)
    status = running.engine.status()
    assert status["engine_type"] == running.kind
    assert {
        "total_workers",
        "idle_workers",
        "pending_tasks",
        "outstanding_tasks",
        "scaling_enabled",
        "max_blocks",
        "min_blocks",
        "nodes_per_block",
        "max_workers_per_node",
    } <= set(status)
    more = (
        {"managers", "active_managers", "total_tasks", "node_info", "provider_type", "queue", "account"}
        if running.name == "parsl"
        else {"total_cores", "total_mem", "total_core_hrs"}
    )
    assert more <= set(status)
    assert status["outstanding_tasks"] == 0


def test_a_task_that_ends_its_process_fails_alone(running: Any, task: Callable[..., EngineTask]) -> None:
    only_processes(running)
    deadly, *others = running.submit(task(end_the_process, 3), *(task(add, number) for number in range(10)))
    failure = running.heard.failure(deadly)
    assert failure.code == "WORKER_LOST"
    assert failure.is_system_failure
    assert [running.heard.value(one) for one in others] == list(range(10))


def test_a_killed_worker_fails_its_task_and_is_replaced(
    running: Any, task: Callable[..., EngineTask], desk: Any
) -> None:
    only_processes(running)
    (victim,) = running.submit(task(report_and_wait, desk.port))
    os.kill(desk.next()[0], signal.SIGKILL)
    failure = running.heard.failure(victim)
    assert failure.code == "WORKER_LOST"
    assert "memory" in failure.text
    both = running.submit(task(report_and_wait, desk.port), task(report_and_wait, desk.port))
    for connection in [desk.next()[1] for _ in both]:
        connection.close()
    assert running.heard.value(both[0]) != running.heard.value(both[1])


def test_cancel_of_what_is_over_or_unknown_is_refused(running: Any, task: Callable[..., EngineTask]) -> None:
    (one,) = running.submit(task(add, 1))
    running.heard.value(one)
    assert running.engine.cancel(one.task_id) is False
    assert running.engine.cancel("00000000-0000-0000-0000-000000000000") is False


def test_a_cancelled_task_never_runs(running: Any, task: Callable[..., EngineTask], desk: Any) -> None:
    if running.name == "parsl":
        pytest.skip("Parsl's queue gives nothing back; the agent keeps the rest")
    holders = running.submit(task(report_and_wait, desk.port), task(report_and_wait, desk.port))
    (waiting,) = running.submit(task(add, 1))
    connections = [desk.next()[1] for _ in holders]
    assert running.engine.cancel(waiting.task_id) is True
    for connection in connections:
        connection.close()
    for holder in holders:
        running.heard.value(holder)
    (last,) = running.submit(task(add, 2))
    assert running.heard.value(last) == 2
    assert waiting.task_id not in running.heard.outcomes


@pytest.mark.parametrize("name", list(SECTIONS))
def test_shutdown_lets_running_tasks_finish_and_starts_no_other(
    name: str, start_engine: Callable[..., Any], task: Callable[..., EngineTask], desk: Any
) -> None:
    section = dict(SECTIONS[name])
    section |= {"max_workers_per_node": 1} if name == "parsl" else {"max_workers": 1}
    running = start_engine(section)
    running_one, waiting = running.submit(task(report_and_wait, desk.port), task(add, 1))
    worker, connection = desk.next()
    ending = threading.Thread(target=running.end, args=(60,))
    ending.start()
    while not is_ending(running.engine, name):
        time.sleep(0.01)  # nobody tells when the shutdown has begun
    connection.close()
    ending.join()
    assert running.heard.value(running_one) == worker
    assert waiting.task_id not in running.heard.outcomes
    assert running.engine.capacity() == 0
    if name in IN_PROCESSES:
        wait_for_end(worker)


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_shutdown_without_grace_leaves_no_process(
    name: str, start_engine: Callable[..., Any], task: Callable[..., EngineTask], desk: Any
) -> None:
    running = start_engine(SECTIONS[name])
    (stuck,) = running.submit(task(report_child_and_wait, desk.port))
    child, _ = desk.next()
    assert is_alive(child)
    running.end()
    assert stuck.task_id not in running.heard.outcomes
    wait_for_end(child)
