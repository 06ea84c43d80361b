"""A whole system on a real PostgreSQL: the server and the service are killed while tasks flow, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, as_completed, wait
from pathlib import Path
from typing import Any

import psycopg
import pytest

from farcall import Executor
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, process_system
from postgres_server import PostgresServer, postgres_server

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"
TIMEOUT_S = 150


@by_value
def note_and_return(log: str, number: int, seconds: float) -> int:
    import os
    import time

    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % number)
    os.close(fd)
    time.sleep(seconds)
    return number


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture
def store(server: PostgresServer) -> str:
    return server.database()


@pytest.fixture
def system(store: str, tmp_path: Path) -> Iterator[ProcessSystem]:
    with process_system(tmp_path / "system", {"FARCALL_STORE": store}) as own:
        yield own


def first_done(futures: Iterable[Future[Any]], count: int) -> None:
    for done, _ in enumerate(as_completed(futures, timeout=TIMEOUT_S), 1):
        if done >= count:
            return


def check_all(futures: dict[int, Future[int]], log: Path, store: str) -> None:
    """Each call has returned its number and was executed once, and the store says the same."""
    _, silent = wait(futures.values(), timeout=TIMEOUT_S)
    assert not silent, f"{len(silent)} of {len(futures)} tasks never ended"
    assert {number: future.result() for number, future in futures.items()} == {number: number for number in futures}
    executions = Counter(int(line) for line in log.read_text().split())
    assert executions == dict.fromkeys(futures, 1), "a task was lost or ran twice although no agent and no worker died"
    with psycopg.connect(store) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())
        (results,) = connection.execute("SELECT count(*) FROM task_results").fetchone() or (0,)
    assert (states, results) == ({"success": len(futures)}, len(futures))


def test_a_restart_of_the_server_while_tasks_flow_loses_nothing(
    system: ProcessSystem, server: PostgresServer, store: str, tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:
        futures = {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150)}
        first_done(futures.values(), 20)
        server.stop("immediate")
        futures |= {n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(150, 300)}
        server.start()
        check_all(futures, log, store)
    assert server.password not in system.service.log.read_text()


def test_kills_of_the_server_and_of_the_service_lose_nothing(
    system: ProcessSystem, server: PostgresServer, store: str, tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    endpoint = system.endpoint(config=PROCESSES)
    futures: dict[int, Future[int]] = {}
    with Executor(endpoint_id=endpoint.id, batch_size=8) as ex:

        def more(count: int) -> None:
            start = len(futures)
            futures.update({n: ex.submit(note_and_return, str(log), n, 0.01) for n in range(start, start + count)})

        more(150)
        first_done(futures.values(), 20)
        server.kill()
        more(100)
        server.start()
        first_done(futures.values(), 100)
        system.service.kill()
        more(100)
        server.kill()
        server.start()
        system.service.start()
        more(50)
        check_all(futures, log, store)


def test_a_service_that_was_killed_starts_again_at_once_on_its_database(system: ProcessSystem) -> None:
    system.service.kill()
    system.service.start()
    assert system.service.status["tasks"] == {}
