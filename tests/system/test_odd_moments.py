"""Odd moments: things stand still, come twice, go away in the middle, or come back older than they were."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from concurrent.futures import wait
from pathlib import Path

import psutil
import pytest

from farcall import Client, Executor
from farcall.errors import EndpointNotFound, FarcallError
from farcall.testing.functions import by_value
from farcall.testing.processes import EndpointProcess, ProcessSystem

TIMEOUT_S = 120
PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"
THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 4\n"
SHORT_PERIOD = "heartbeat_period: 5\n" + PROCESSES


@by_value
def note_and_return(log: str, n: int, pause_s: float) -> int:
    import os
    import time

    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % n)
    os.close(fd)
    time.sleep(pause_s)
    return n


@by_value
def double(x: int) -> int:
    return 2 * x


@by_value
def say_and_hold(started: str, hold: str) -> None:
    with open(started, "w"):
        pass
    with open(hold):
        pass


def executions(log: Path) -> Counter[int]:
    return Counter(int(line) for line in log.read_text().split())


def sleep_without_us(seconds: float) -> None:
    threading.Event().wait(seconds)  # nothing can tell us that nothing happened


def test_twenty_executors_in_one_process(endpoint: EndpointProcess) -> None:
    executors = [Executor(endpoint_id=endpoint.id) for _ in range(20)]
    futures = [(n, ex.submit(double, n)) for n in range(10) for ex in executors]
    assert all(future.result(timeout=TIMEOUT_S) == 2 * n for n, future in futures)
    for ex in executors:
        ex.shutdown()


def test_two_processes_share_a_task_group(endpoint: EndpointProcess) -> None:
    group = str(uuid.uuid4())
    program = (
        "import sys\n"
        "from farcall import Executor\n"
        "def square(x):\n    return x * x\n"
        "with Executor(endpoint_id=sys.argv[1], task_group_id=sys.argv[2]) as ex:\n"
        "    futures = [ex.submit(square, n) for n in range(100)]\n"
        "    print(sum(f.result(timeout=100) for f in futures))\n"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program, endpoint.id, group], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    with Executor(endpoint_id=endpoint.id, task_group_id=group) as ex:
        futures = [ex.submit(double, n) for n in range(100)]
        assert [f.result(timeout=TIMEOUT_S) for f in futures] == [2 * n for n in range(100)]
    for other in others:
        out, _ = other.communicate(timeout=TIMEOUT_S)
        assert out.strip() == str(sum(n * n for n in range(100)))


def test_a_fork_beside_an_open_executor_harms_neither(endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=endpoint.id) as ex:
        assert ex.submit(double, 1).result(timeout=TIMEOUT_S) == 2
        child = os.fork()
        if child == 0:  # ends without our exit handlers, as a forked worker does
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        futures = [ex.submit(double, n) for n in range(50)]
        assert [f.result(timeout=TIMEOUT_S) for f in futures] == [2 * n for n in range(50)]


def _in_child(endpoint_id: str, answers: multiprocessing.SimpleQueue[int]) -> None:
    with Executor(endpoint_id=endpoint_id) as ex:
        answers.put(ex.submit(double, 21).result(timeout=TIMEOUT_S))


def test_a_forked_child_may_open_its_own_executor(endpoint: EndpointProcess) -> None:
    context = multiprocessing.get_context("fork")
    with Executor(endpoint_id=endpoint.id) as ex:
        assert ex.submit(double, 1).result(timeout=TIMEOUT_S) == 2
        answers = context.SimpleQueue()
        child = context.Process(target=_in_child, args=(endpoint.id, answers))
        child.start()
        child.join(TIMEOUT_S)
        assert child.exitcode == 0
        assert answers.get() == 42
        assert ex.submit(double, 2).result(timeout=TIMEOUT_S) == 4


@pytest.mark.on_servers
def test_a_deleted_endpoint_ends_all_its_futures(system: ProcessSystem, tmp_path: Path) -> None:
    endpoint = system.endpoint(config=PROCESSES)
    started, hold = str(tmp_path / "started"), str(tmp_path / "hold")
    os.mkfifo(started)
    os.mkfifo(hold)
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = [ex.submit(say_and_hold, started, hold)]
        with open(started):
            futures += [ex.submit(double, n) for n in range(3000)]
            futures[0].add_done_callback(lambda _: None)
            while not futures[-1].task_id:  # accepted, and surely not all are done: one worker is held
                wait(futures[-1:], timeout=0.05)
            Client().delete_endpoint(endpoint.id)
        done, waiting = wait(futures, timeout=TIMEOUT_S)
        assert not waiting
        errors = [future.exception() for future in done if future.exception() is not None]
        assert errors, "the held task cannot have succeeded"
        assert all(isinstance(error, FarcallError) and "deleted" in str(error) for error in errors)
        with pytest.raises(EndpointNotFound, match=endpoint.id):
            ex.submit(double, 1).result(timeout=TIMEOUT_S)
    with open(hold, "w"):
        pass


@pytest.mark.on_servers
def test_tasks_of_a_function_that_was_deleted_still_run(system: ProcessSystem) -> None:
    endpoint = system.endpoint(config=PROCESSES)
    client = Client()
    function = client.register_function(double)
    endpoint.stop()
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = [ex.submit_to_registered_function(function, (n,)) for n in range(30)]
        while not all(f.task_id for f in futures):
            wait(futures, timeout=0.05)
        client.delete_function(function)
        system.service.kill()  # and its memory of the code is gone
        system.service.start()
        endpoint.start()
        assert [f.result(timeout=TIMEOUT_S) for f in futures] == [2 * n for n in range(30)]
        with pytest.raises(FarcallError, match=function):
            ex.submit_to_registered_function(function, (1,)).result(timeout=TIMEOUT_S)


def test_a_service_that_stood_still_goes_on(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = [ex.submit(note_and_return, str(log), n, 0.02) for n in range(300)]
        futures[5].result(timeout=TIMEOUT_S)
        os.kill(system.service.pid, signal.SIGSTOP)
        try:
            futures += [ex.submit(note_and_return, str(log), n, 0.02) for n in range(300, 350)]
            sleep_without_us(40)
        finally:
            os.kill(system.service.pid, signal.SIGCONT)
        assert [f.result(timeout=TIMEOUT_S) for f in futures] == list(range(350))
    assert set(executions(log).values()) == {1}


def test_an_agent_that_stood_still_goes_on(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=SHORT_PERIOD)
    family = [psutil.Process(endpoint.pid)]
    with Executor(endpoint_id=endpoint.id) as ex:
        futures = [ex.submit(note_and_return, str(log), n, 0.05) for n in range(200)]
        futures[5].result(timeout=TIMEOUT_S)
        family += family[0].children(recursive=True)
        for process in family:
            process.suspend()
        try:
            sleep_without_us(20)
            assert Client().get_endpoint_status(endpoint.id)["status"] == "offline"
            sleep_without_us(55)  # beyond two AMQP heartbeats: the service has cut the connection
        finally:
            for process in family:
                process.resume()
        assert [f.result(timeout=TIMEOUT_S) for f in futures] == list(range(200))
    assert set(executions(log).values()) == {1}


@pytest.mark.on_servers
def test_a_copied_endpoint_directory_replaces_and_does_not_double(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    first = system.endpoint("first", PROCESSES)
    second = system.endpoint("second", PROCESSES, start=False)
    with Executor(endpoint_id=first.id) as ex:
        futures = [ex.submit(note_and_return, str(log), n, 0.03) for n in range(150)]
        futures[5].result(timeout=TIMEOUT_S)
        shutil.copy(first.directory / "endpoint.json", second.directory / "endpoint.json")
        agent = psutil.Process(first.pid)
        second.start()
        assert second.id == first.id
        agent.wait(timeout=TIMEOUT_S)  # the older instance ends by itself and says why
        assert "registered again" in first.log.read_text() or "another" in first.log.read_text()
        assert [f.result(timeout=TIMEOUT_S) for f in futures] == list(range(150))
    assert executions(log).keys() == set(range(150))


def test_a_service_restored_from_an_older_copy_takes_new_tasks(system: ProcessSystem, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id) as ex:
        assert ex.submit(double, 1).result(timeout=TIMEOUT_S) == 2
    system.service.stop()
    copy = tmp_path / "copy"
    shutil.copytree(system.service.data_dir, copy)
    system.service.start()
    ex = Executor(endpoint_id=endpoint.id)
    unknown_later = [ex.submit(note_and_return, str(log), n, 0.05) for n in range(20)]
    unknown_later[3].result(timeout=TIMEOUT_S)
    ex.shutdown(wait=False, cancel_futures=True)
    system.service.kill()
    shutil.rmtree(system.service.data_dir)
    shutil.copytree(copy, system.service.data_dir)
    system.service.start()
    with Executor(endpoint_id=endpoint.id) as other:  # results of tasks it does not know come in before and after
        assert [other.submit(double, n).result(timeout=TIMEOUT_S) for n in range(5)] == [0, 2, 4, 6, 8]
