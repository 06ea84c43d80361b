"""A command's time limit ends all that it started, and nothing that holds its output makes us wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farcall.worker import process
from farcall.worker.process import run_in_session
from farcall.worker.time_limit import TaskTimedOut, TimeLimit

from .conftest import is_running

WALLTIME_S = 1.5  # long enough for bash to get going on a busy machine

Start = Callable[..., "int | None"]


@pytest.fixture(params=[True, False], ids=["with pidfd", "without"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    if not request.param:
        monkeypatch.setattr(process, "_has_process_events", lambda: False)
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)

    def start_it(script: str, walltime_s: float | None = None, grace_s: float = 5.0) -> int | None:
        return run_in_session(
            ["/bin/bash", "-c", script],
            stdout=out,
            stderr=out,
            cwd=str(tmp_path),
            env=None,
            walltime_s=walltime_s,
            grace_s=grace_s,
        )

    yield start_it
    os.close(out)


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


@pytest.mark.parametrize("walltime_s", [None, 30.0, float("inf"), 1e12])
def test_the_return_code_is_the_commands(start: Start, walltime_s: float | None) -> None:
    assert start("exit 3", walltime_s) == 3
    assert start("kill -9 $$", walltime_s) == -signal.SIGKILL


def test_on_time_out_children_and_grandchildren_end(start: Start, tmp_path: Path) -> None:
    script = "echo $$ >> pids; (echo $BASHPID >> pids; sleep 600 & echo $! >> pids; wait) & "
    script += "sleep 600 & echo $! >> pids; wait"
    assert start(script, WALLTIME_S) is None
    assert len(pids(tmp_path / "pids")) == 4
    assert not [pid for pid in pids(tmp_path / "pids") if is_running(pid)]


def test_who_ignores_the_polite_signal_gets_the_other_after_the_grace(start: Start, tmp_path: Path) -> None:
    script = (
        "trap '' TERM; (echo $BASHPID >> pids; while :; do sleep 1; done) & echo $$ >> pids; while :; do sleep 1; done"
    )
    assert start(script, WALLTIME_S, grace_s=0.2) is None
    assert len(pids(tmp_path / "pids")) == 2
    assert not [pid for pid in pids(tmp_path / "pids") if is_running(pid)]


def test_a_process_that_made_a_group_of_its_own_ends_too(start: Start, tmp_path: Path) -> None:
    script = "set -m; sleep 600 & echo $! >> pids; echo $$ >> pids; wait"
    assert start(script, WALLTIME_S) is None
    assert not [pid for pid in pids(tmp_path / "pids") if is_running(pid)]


def test_there_is_time_to_clean_up(start: Start, tmp_path: Path) -> None:
    script = "trap 'echo cleaned > cleaned; exit 0' TERM; echo ready; sleep 600 & wait"
    assert start(script, WALLTIME_S) is None
    assert (tmp_path / "cleaned").read_text() == "cleaned\n"


def test_a_process_left_in_the_background_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    assert start("sleep 600 & echo $! >> pids", 60) == 0
    (pid,) = pids(tmp_path / "pids")
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


def test_interrupting_the_wait_ends_the_command(start: Start, tmp_path: Path) -> None:
    with pytest.raises(TaskTimedOut), TimeLimit(WALLTIME_S):
        start("echo $$ >> pids; sleep 600 & echo $! >> pids; wait")
    assert len(pids(tmp_path / "pids")) == 2
    assert not [pid for pid in pids(tmp_path / "pids") if is_running(pid)]


def test_several_threads_wait_for_several_commands(start: Start) -> None:
    codes: dict[int, int | None] = {}
    threads = [threading.Thread(target=lambda n=n: codes.update({n: start(f"exit {n}", 30)})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == {n: n for n in range(8)}


def test_what_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_in_session([str(tmp_path / "no")], stdout=1, stderr=2, cwd=None, env=None, walltime_s=None)
