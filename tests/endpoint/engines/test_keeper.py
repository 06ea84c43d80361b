from __future__ import annotations

from typing import Any

import pytest

from farcall.endpoint.engines.config import JobStatusConfig
from farcall.endpoint.engines.parsl.executor import InterchangeGone
from farcall.endpoint.engines.parsl.keeper import Keeper


class Executor:
    """An executor that starts, or whose interchange ends at once."""

    label = "double"

    def __init__(self, *, is_killed: bool) -> None:
        self.is_killed = is_killed
        self.is_closed = False

    def start(self) -> None:
        if self.is_killed:
            raise InterchangeGone("it was killed")

    def close(self) -> None:
        self.is_closed = True


class Owner:
    """Notes which executor is ready."""

    def __init__(self) -> None:
        self.ready: list[Any] = []

    def load(self) -> int:
        return 0

    def executor_ready(self, executor: Any) -> None:
        self.ready.append(executor)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def keeper_of(executors: list[Executor], owner: Owner) -> Keeper:
    waiting = iter(executors)
    return Keeper(
        make_executor=lambda: next(waiting),
        owner=owner,
        strategy="none",
        job_status=JobStatusConfig(strategy_period=3600),
        log_dir="",
        scripts_dir="",
        marker=None,
    )


def test_an_interchange_that_is_killed_while_it_starts_is_started_again() -> None:
    owner, executors = Owner(), [Executor(is_killed=True), Executor(is_killed=False)]
    keeper = keeper_of(executors, owner)
    try:
        keeper.start()
        assert owner.ready == executors[1:]
        assert executors[0].is_closed
    finally:
        keeper.stop()


def test_an_interchange_that_ends_twice_at_the_start_is_taken_for_a_fault_of_the_configuration() -> None:
    executors = [Executor(is_killed=True), Executor(is_killed=True)]
    with pytest.raises(InterchangeGone):
        keeper_of(executors, Owner()).start()
    assert all(executor.is_closed for executor in executors)
