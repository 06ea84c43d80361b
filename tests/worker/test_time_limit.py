from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farcall.serialize.exceptions import load_exception
from farcall.worker.run import run_task
from farcall.worker.time_limit import TaskTimedOut, TimeLimit, limit_from_environment

from .conftest import make_task, opened


def wait_for_ever() -> None:
    import threading

    while True:
        try:
            threading.Event().wait()
        except Exception:
            continue  # a time-out is not to be swallowed like this


def count_for_ever() -> None:
    while True:
        pass


@pytest.mark.parametrize("name", ["GC_TASK_TIMEOUT", "FARCALL_TASK_TIMEOUT"])
def test_a_task_is_stopped_when_the_sites_time_is_up(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "0.2")
    before = signal.getsignal(signal.SIGALRM)
    result = run(wait_for_ever)
    assert "0.2 s" in result.data
    assert "GC_TASK_TIMEOUT" in result.data
    assert "in wait_for_ever" in result.data
    assert type(load_exception(result.details, result.data)) is TimeoutError
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_task_in_time_is_left_alone(value: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", "60")
    armed = signal.getitimer(signal.ITIMER_REAL)[0] > 0  # by the test runner
    assert value(len, "abc") == 3
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == armed


def test_somebody_elses_timer_goes_on_afterwards() -> None:
    fired = threading.Event()
    former_handler = signal.signal(signal.SIGALRM, lambda *_: fired.set())
    former_timer = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with TimeLimit(60):
            pass
        assert fired.wait(30)
    finally:
        signal.signal(signal.SIGALRM, former_handler)
        signal.setitimer(signal.ITIMER_REAL, *former_timer)


def test_in_other_threads_python_code_is_stopped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", "0.2")
    results = []
    thread = threading.Thread(target=lambda: results.append(run_task(make_task(count_for_ever))))
    thread.start()
    thread.join(60)
    assert "0.2 s" in opened(results[0]).data


def test_in_other_threads_nothing_is_raised_once_the_task_is_over() -> None:
    outcomes: list[str] = []

    def often() -> None:
        for spin in range(60):  # the time is up now before, now after, and now just at the end of the body
            try:
                with TimeLimit(0.001):
                    sum(range(spin * 1000))
                    outcome = "done"
            except TaskTimedOut:
                outcome = "timed out"
            sum(map(abs, range(2000)))  # where a late exception would strike
            outcomes.append(outcome)

    thread = threading.Thread(target=often)
    thread.start()
    thread.join(60)
    assert len(outcomes) == 60


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", ""])
def test_a_limit_that_makes_no_sense_is_ignored_and_logged(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", text)
    with caplog.at_level(logging.WARNING):
        assert limit_from_environment() is None
    assert bool(caplog.records) is bool(text)
