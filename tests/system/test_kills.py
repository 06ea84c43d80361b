"""SIGKILL of any process at any moment: every accepted task ends, and executions are as the policy says.

Each call appends its number to a file before it does anything, so executions are counted where they happen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from counted import TIMEOUT_S, first_done, note_and_return

from farcall import Executor
from farcall.errors import EndpointLost, TaskExecutionFailed, WorkerLost
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, kill_and_wait

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"
PARSL = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
  max_retries_on_system_failure: {retries}
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
"""


def executions(log: Path) -> Counter[int]:
    return Counter(int(line) for line in log.read_text().split()) if log.exists() else Counter()


def outcomes(futures: dict[int, Future[Any]]) -> tuple[list[int], list[BaseException]]:
    """Values and errors of all; fails when one is silent."""
    _, silent = wait(futures.values(), timeout=TIMEOUT_S)
    assert not silent, f"{len(silent)} of {len(futures)} tasks never ended"
    errors = [error for f in futures.values() if (error := f.exception()) is not None]
    values = [n for n, f in futures.items() if f.exception() is None and f.result() == n]
    return values, errors


def test_tasks_survive_a_kill_of_the_service_while_they_run(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(300)}
        first_done(futures.values(), 30)
        system.service.kill()
        system.service.start()
        values, errors = outcomes(futures)
    assert errors == []
    assert len(values) == 300
    assert set(executions(log).values()) == {1}, "a task ran twice although no agent and no worker died"


@pytest.mark.on_servers
def test_submissions_survive_a_kill_of_the_service(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures: dict[int, Future[Any]] = {0: ex.submit(note_and_return, str(log), 0, 0)}
        futures[0].result(timeout=TIMEOUT_S)

        def break_it() -> None:
            system.service.kill()
            system.service.start()

        killer = threading.Thread(target=break_it)
        killer.start()
        for n in range(1, 400):
            futures[n] = ex.submit(note_and_return, str(log), n, 0)
        killer.join()
        values, errors = outcomes(futures)
    assert errors == []
    assert len(values) == 400
    assert set(executions(log).values()) == {1}, "a repeated submission ran twice"


@pytest.mark.on_servers
def test_a_killed_agent_loses_no_task_and_runs_none_twice(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.02) for n in range(200)}
        first_done(futures.values(), 20)
        endpoint.kill()
        endpoint.start()
        values, errors = outcomes(futures)
    assert all(isinstance(e, EndpointLost) for e in errors), errors
    assert len(errors) <= 4, "more tasks were lost than two workers could hold"
    assert all("max_retries_on_system_failure" in str(e) for e in errors), "the error says what to do"
    assert len(values) + len(errors) == 200
    assert max(executions(log).values()) == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_a_killed_parsl_agent_follows_the_retry_policy(system: ProcessSystem, tmp_path: Path, retries: int) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PARSL.format(retries=retries))
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.05) for n in range(120)}
        first_done(futures.values(), 20)
        endpoint.kill()
        endpoint.start()
        values, errors = outcomes(futures)
    assert len(values) + len(errors) == 120
    if retries:
        assert errors == []
    assert all(isinstance(e, EndpointLost) for e in errors)
    assert max(executions(log).values()) <= 1 + retries


@pytest.mark.on_servers
def test_tasks_survive_a_kill_of_service_and_agent_together(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.02) for n in range(200)}
        first_done(futures.values(), 20)
        endpoint.kill()
        system.service.kill()
        system.service.start()
        endpoint.start()
        values, errors = outcomes(futures)
    assert all(isinstance(e, EndpointLost) for e in errors), errors
    assert len(values) + len(errors) == 200
    assert max(executions(log).values()) == 1


def descendants(pid: int, *words: str) -> list[psutil.Process]:
    """Live processes below `pid` whose command line has all the words."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if all(word in line for word in words):
            found.append(process)
    return found


@by_value
def worker_pid() -> int:
    import os

    return os.getpid()


@pytest.mark.parametrize("config", [PROCESSES, PARSL.format(retries=0)], ids=["processes", "parsl"])
def test_a_killed_worker_fails_at_most_its_own_call(system: ProcessSystem, tmp_path: Path, config: str) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=config)
    with Executor(endpoint_id=endpoint.id) as ex:
        victim = ex.submit(worker_pid).result(timeout=TIMEOUT_S)
        futures = {n: ex.submit(note_and_return, str(log), n, 0.05) for n in range(100)}
        first_done(futures.values(), 10)
        os.kill(victim, signal.SIGKILL)
        values, errors = outcomes(futures)
    assert all(isinstance(e, (WorkerLost, TaskExecutionFailed)) for e in errors), errors
    assert len(errors) <= 1, [str(e) for e in errors]
    assert len(values) + len(errors) == 100
    assert max(executions(log).values()) == 1


def test_a_killed_interchange_is_replaced(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PARSL.format(retries=1))
    with Executor(endpoint_id=endpoint.id) as ex:
        ex.submit(note_and_return, str(log), -1, 0).result(timeout=TIMEOUT_S)
        futures = {n: ex.submit(note_and_return, str(log), n, 0.05) for n in range(60)}
        first_done(futures.values(), 10)
        (interchange, *_) = descendants(endpoint.pid, "interchange")
        kill_and_wait(interchange.pid)
        values, errors = outcomes(futures)
    assert errors == [], [str(e) for e in errors]
    assert len(values) == 60
    assert max(executions(log).values()) <= 2


@pytest.mark.parametrize("config", [PROCESSES, PARSL.format(retries=0)], ids=["processes", "parsl"])
def test_no_process_outlives_a_killed_agent(system: ProcessSystem, config: str) -> None:
    endpoint = system.endpoint(config=config)
    with Executor(endpoint_id=endpoint.id) as ex:
        ex.submit(worker_pid).result(timeout=TIMEOUT_S)
        family = psutil.Process(endpoint.pid).children(recursive=True)
        assert family
        endpoint.kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == [], [p.cmdline() for p in alive]


@pytest.mark.on_servers
def test_a_killed_client_finds_its_results_later(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    group = str(uuid.uuid4())
    program = tmp_path / "client.py"
    program.write_text(
        "import sys\n"
        "from farcall import Executor\n"
        "def note(log, n):\n"
        "    import os, time\n"
        "    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(fd, b'%d\\n' % n); os.close(fd)\n"
        "    time.sleep(0.02); return n\n"
        "ex = Executor(endpoint_id=sys.argv[1], task_group_id=sys.argv[2])\n"
        "futures = [ex.submit(note, sys.argv[3], n) for n in range(50)]\n"
        "futures[0].result()\n"
        "while any(f.task_id is None for f in futures): futures[-1].result()\n"
        "print('accepted', flush=True)\n"
        "futures[-1].result(); import threading; threading.Event().wait()\n"
    )
    client = subprocess.Popen(
        [sys.executable, str(program), endpoint.id, group, str(log)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "accepted\n"
    client.kill()
    client.wait()
    with Executor(endpoint_id=endpoint.id, task_group_id=group) as ex:
        futures = ex.reload_tasks()
        assert sorted(f.result(timeout=TIMEOUT_S) for f in futures) == list(range(50))
    assert set(executions(log).values()) == {1}


@pytest.mark.on_servers
def test_tasks_wait_for_an_endpoint_that_is_away(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    endpoint.stop()
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0) for n in range(40)}
        system.service.kill()
        system.service.start()
        endpoint.start()
        values, errors = outcomes(futures)
    assert errors == []
    assert len(values) == 40
    assert set(executions(log).values()) == {1}


@pytest.mark.on_servers
def test_an_orderly_stop_loses_nothing(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.02) for n in range(150)}
        first_done(futures.values(), 20)
        endpoint.stop()
        endpoint.start()
        values, errors = outcomes(futures)
    assert errors == []
    assert len(values) == 150
    assert set(executions(log).values()) == {1}
