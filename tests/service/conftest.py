"""Fixtures of the service's tests. What they are made of is in `service_world`, for tests to import."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
sys.path.insert(1, str(Path(__file__).parents[1]))

from relay_scene import Broker, Scene
from service_world import Play, ServiceThread, Story, opened

from farcall.service.db.engine import make_engine
from farcall.service.settings import ServiceSettings
from postgres_server import PostgresServer, postgres_server
from rabbitmq_server import RabbitServer, rabbitmq_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the tests that break nothing."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for a test that stops or kills it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitServer]:
    """One server for the tests that break nothing."""
    with rabbitmq_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind in turn. FARCALL_TEST_POSTGRES_URL names a database to be emptied, of a server
    that runs already.
    """
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    given = os.environ.get("FARCALL_TEST_POSTGRES_URL")
    if given is None:
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.database()
    engine = make_engine(given)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return given


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs a story: an async function that gets a `Site`. Keyword arguments are settings."""

    def run(story: Story, **settings: Any) -> None:
        async def whole() -> None:
            async with opened(tmp_path / "data", **settings) as site:
                await story(site)

        asyncio.run(whole())

    return run


@pytest.fixture
def service_thread(tmp_path: Path) -> Iterator[Callable[..., ServiceThread]]:
    """Starts services; keyword arguments are settings. All use the same data directory."""
    started: list[ServiceThread] = []

    def start(**settings: Any) -> ServiceThread:
        thread = ServiceThread(ServiceSettings(data_dir=tmp_path / "data", port=0, amqp_port=0, **settings))
        thread.start()
        started.append(thread)
        return thread

    yield start
    for thread in started:
        if thread._thread.is_alive():
            thread.stop()


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each kind of broker in turn."""
    if request.param == "embedded":
        return Broker()
    server: RabbitServer = request.getfixturevalue("rabbitmq")
    server.clear()
    return Broker(server)


@pytest.fixture
def scene(service_thread: Callable[..., ServiceThread], broker: Broker) -> Iterator[Callable[..., Scene]]:
    """Makes scenes; keyword arguments are settings."""
    made: list[Scene] = []

    def make(**settings: Any) -> Scene:
        made.append(Scene(service_thread, broker, **settings))
        return made[-1]

    yield make
    for each in made:
        for link in each.links:
            link.close()
