"""A whole system on a real PostgreSQL: the server and the service are killed while tasks flow, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import psycopg
import pytest
from counted import check_all, first_done, note_and_return

from farcall import Executor
from farcall.testing.processes import ProcessSystem, process_system
from postgres_server import PostgresServer, postgres_server

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"


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


def check_stored(futures: dict[int, Future[int]], log: Path, store: str) -> None:
    """Each call has returned its number and was executed once, and the store says the same."""
    check_all(futures, log)
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
        check_stored(futures, log, store)
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
        check_stored(futures, log, store)


def test_a_service_that_was_killed_starts_again_at_once_on_its_database(system: ProcessSystem) -> None:
    system.service.kill()
    system.service.start()
    assert system.service.status["tasks"] == {}
