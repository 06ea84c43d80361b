"""Kills of what is between the agent and its workers, and of the agent itself; blocks that cannot start."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from farcall.endpoint.engines.base import EngineContext, EngineStartFailed, EngineTask
from farcall.endpoint.engines.build import build_engine
from farcall.endpoint.engines.config import validate_engine

PROCESSES = {"type": "ProcessPoolEngine", "max_workers": 2}
PARSL = {
    "type": "GlobusComputeEngine",
    "max_workers_per_node": 1,
    "heartbeat_period": 1,
    "provider": {"type": "LocalProvider", "init_blocks": 0, "min_blocks": 0, "max_blocks": 1},
    "job_status_kwargs": {"strategy_period": 600},
}


def add(a: int, b: int = 0) -> int:
    return a + b


def report_and_wait(port: int) -> int:
    import os
    import socket

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(os.getpid()).encode())
        connection.recv(1)
    return os.getpid()


def report_child_and_wait(port: int) -> int:
    """Start a program in a session of its own, and report that."""
    import socket
    import subprocess

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(child.pid).encode())
        connection.recv(1)
    return child.pid


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        assert poll.poll(60_000), f"process {pid} goes on: {psutil.Process(pid).cmdline()}"
    finally:
        os.close(descriptor)


def test_the_pool_recovers_when_its_watcher_is_killed(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask], desk: Any
) -> None:
    running = start_engine(PROCESSES)
    (stuck,) = running.submit(task(report_and_wait, desk.port))
    worker, _ = desk.next()
    os.kill(psutil.Process(worker).ppid(), signal.SIGKILL)
    failure = running.heard.failure(stuck)
    assert failure.code == "WORKER_LOST"
    assert failure.is_system_failure
    wait_for_end(worker)
    (after,) = running.submit(task(add, 1))
    assert running.heard.value(after) == 1
    running.end()


def test_a_dead_workers_children_end_with_it(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask], desk: Any
) -> None:
    running = start_engine(PROCESSES)
    (victim,) = running.submit(task(report_child_and_wait, desk.port))
    child, _ = desk.next()
    os.kill(psutil.Process(child).ppid(), signal.SIGKILL)
    assert running.heard.failure(victim).is_system_failure
    wait_for_end(child)
    running.end()


def test_a_worker_is_replaced_after_its_share_of_tasks(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask]
) -> None:
    import os as os_on_the_worker

    running = start_engine({"type": "ProcessPoolEngine", "max_workers": 1, "max_tasks_per_child": 2})
    tasks = running.submit(*(task(os_on_the_worker.getpid) for _ in range(6)))
    pids = [running.heard.value(one) for one in tasks]
    assert pids[0] == pids[1]
    assert len(set(pids)) == 3
    running.end()


def test_workers_that_cannot_start_end_the_engine_with_a_reason(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask], tmp_path: Path
) -> None:
    for seat in range(3):
        (tmp_path / "ProcessPoolEngine" / f"worker_{seat}.log").mkdir(parents=True)  # where a worker's log belongs
    running = start_engine(PROCESSES, tmp_path)
    running.heard.wait(lambda: running.heard.deaths)
    assert str(tmp_path) in running.heard.deaths[0]
    running.end()


def test_a_killed_interchange_is_replaced(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask], desk: Any
) -> None:
    running = start_engine(PARSL)
    (stuck,) = running.submit(task(report_and_wait, desk.port))
    worker, _ = desk.next()
    running.engine._executor.interchange_proc.kill()
    failure = running.heard.failure(stuck)
    assert failure.code == "WORKER_LOST"
    assert failure.is_system_failure
    assert "SIGKILL" in failure.text
    wait_for_end(worker)
    (after,) = running.submit(task(add, 2))
    assert running.heard.value(after) == 2
    assert running.heard.deaths == []
    running.end()


def test_no_block_runs_before_there_is_work_and_one_starts_at_once_when_there_is(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask]
) -> None:
    running = start_engine(PARSL)  # its strategy looks only every ten minutes
    assert running.engine.capacity() > 0
    assert running.engine.status()["managers"] == 0
    running.engine.note_backlog(5)
    running.heard.wait(lambda: running.engine.status()["managers"] == 1)
    (one,) = running.submit(task(add, 3))
    assert running.heard.value(one) == 3
    running.end()


def test_blocks_that_fail_fail_tasks_with_the_jobs_own_words(
    start_engine: Callable[..., Any], task: Callable[..., EngineTask]
) -> None:
    provider = {**PARSL["provider"], "worker_init": "echo the module is not there >&2; exit 7"}
    running = start_engine({**PARSL, "provider": provider, "job_status_kwargs": {"strategy_period": 0.2}})
    (first,) = running.submit(task(add, 1))
    failure = running.heard.failure(first)
    assert "the module is not there" in failure.text
    assert "EXIT CODE: 7" in failure.text
    assert not failure.is_system_failure
    (later,) = running.submit(task(add, 1))
    assert "the module is not there" in running.heard.failure(later).text
    assert running.heard.deaths == []
    running.end()


def test_an_interchange_that_cannot_start_is_told_at_start(tmp_path: Path, recorder: Any) -> None:
    section = {**PARSL, "interchange_launch_cmd": [sys.executable, "-c", "import sys; sys.exit(3)"]}
    engine = build_engine(validate_engine(section), EngineContext(endpoint_dir=tmp_path))
    with pytest.raises(EngineStartFailed, match="interchange"):
        engine.start(recorder)
    engine.shutdown(0)


def die_at(number: int, fatal: int) -> int:
    import os
    import signal

    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_at(number: int, slow: int, port: int) -> int:
    import os
    import socket

    if number == slow:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(str(os.getpid()).encode())
            connection.recv(1)
    return number


@pytest.fixture(scope="module")
def bundler(start_engine: Callable[..., Any], task: Callable[..., EngineTask]) -> Any:
    """A running engine whose one worker is known to be quick at every function."""
    running = start_engine({**PARSL, "provider": {"type": "LocalProvider", "init_blocks": 1}})
    bundles: list[int] = []
    real = running.engine._executor.send
    running.bundles = bundles

    def send(packed: bytes, *rest: Any) -> int:
        bundles.append(len(pickle.loads(packed)[0]))
        return int(real(packed, *rest))

    running.engine._executor.send = send
    return running


def quick_at(running: Any, make: Callable[[int], EngineTask]) -> None:
    """Let the engine learn that the function is quick."""
    for number in range(5):
        (one,) = running.submit(make(number))
        assert running.heard.value(one) == number


def with_function(make: Callable[..., EngineTask], function_id: str) -> Callable[..., EngineTask]:
    return lambda *args: replace(make(*args), function_id=function_id)


def test_a_lost_bundle_costs_only_the_call_that_ran(bundler: Any, task: Callable[..., EngineTask]) -> None:
    make = with_function(task, "die_at")
    quick_at(bundler, lambda number: make(die_at, number, -1))
    bundler.bundles.clear()
    tasks = bundler.submit(*(make(die_at, number, 20) for number in range(40)))
    failure = bundler.heard.failure(tasks[20])
    assert failure.code == "WORKER_LOST"
    others = [one for number, one in enumerate(tasks) if number != 20]
    assert [bundler.heard.value(one) for one in others] == [number for number in range(40) if number != 20]
    assert max(bundler.bundles) > 1
    assert list((bundler.directory / "GlobusComputeEngine-HighThroughputExecutor" / "bundles").iterdir()) == []


def test_a_call_that_lasts_gives_the_rest_of_its_bundle_back(
    bundler: Any, task: Callable[..., EngineTask], desk: Any
) -> None:
    make = with_function(task, "wait_at")
    quick_at(bundler, lambda number: make(wait_at, number, -1, desk.port))
    tasks = bundler.submit(*(make(wait_at, number, 10, desk.port) for number in range(30)))
    _, connection = desk.next()
    before = [bundler.heard.value(one) for one in tasks[:10]]  # known although their bundle has not come back
    assert before == list(range(10))
    assert bundler.engine._flights.waiting or bundler.engine._flights.in_flight > 1
    connection.close()
    assert [bundler.heard.value(one) for one in tasks] == list(range(30))
    assert all(len(outcomes) == 1 for outcomes in bundler.heard.outcomes.values())


AGENT = """
import sys, threading
from pathlib import Path
from farcall.endpoint.engines.base import EngineContext, EngineTask
from farcall.endpoint.engines.build import build_engine
from farcall.endpoint.engines.config import validate_engine

class Deaf:
    def finished(self, task_id, packed_result): ...
    def failed(self, task_id, failure): print(failure, file=sys.stderr)
    def demand(self): ...
    def died(self, reason): print(reason, file=sys.stderr)

engine = build_engine(validate_engine({section!r}), EngineContext(endpoint_dir=Path({directory!r})))
engine.start(Deaf())
engine.submit([EngineTask(task_id={task.task_id!r}, function_id="", task_buffer={task.task_buffer!r})])
threading.Event().wait()
"""


@pytest.mark.parametrize("section", [PROCESSES, PARSL], ids=["processes", "parsl"])
def test_nothing_outlives_a_killed_agent(
    section: dict[str, Any], task: Callable[..., EngineTask], desk: Any, tmp_path: Path
) -> None:
    one = task(report_child_and_wait, desk.port)
    code = AGENT.format(section=section, directory=str(tmp_path), task=one)
    agent = subprocess.Popen([sys.executable, "-c", code])
    try:
        child, _ = desk.next()
        worker = psutil.Process(child).ppid()
        everything = {process.pid for process in psutil.Process(agent.pid).children(recursive=True)}
        ancestors = {process.pid for process in psutil.Process(worker).parents()} - {1, os.getpid(), agent.pid}
        ancestors -= {process.pid for process in psutil.Process().parents()}
        assert everything | ancestors
    finally:
        agent.kill()
        agent.wait()
    for pid in everything | ancestors | {worker, child}:
        wait_for_end(pid)
