"""Fixtures of the service's tests. What they are made of is in `service_world`, for tests to import."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out

from service_world import Play, ServiceThread, Story, opened

from farcall.service.settings import ServiceSettings


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
