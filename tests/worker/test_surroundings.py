from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farcall.worker.run import run_task
from farcall.worker.surroundings import Surroundings, current_task
from farcall.worker.task import WorkerTask

from .conftest import TASK_ID, make_task, opened

NAMES = ("GC_TASK_UUID", "FARCALL_TASK_UUID", "GC_TASK_SANDBOX_DIR", "FARCALL_TASK_SANDBOX_DIR")


def look_around() -> tuple[str, dict[str, str]]:
    import os

    return os.getcwd(), {name: os.environ[name] for name in NAMES if name in os.environ}


def leave_a_mess(where: str) -> None:
    import os

    os.chdir(where)


def test_a_task_finds_its_id_and_its_directory(value: Callable[..., Any], tmp_path: Path) -> None:
    where, variables = value(look_around)
    assert where == str(tmp_path)
    assert variables == {"GC_TASK_UUID": TASK_ID, "FARCALL_TASK_UUID": TASK_ID}


def test_a_sandboxed_task_has_a_directory_of_its_own(value: Callable[..., Any], tmp_path: Path) -> None:
    where, variables = value(look_around, options={"sandbox": True})
    assert where == str(tmp_path / TASK_ID)
    assert variables["GC_TASK_SANDBOX_DIR"] == variables["FARCALL_TASK_SANDBOX_DIR"] == where
    assert value(look_around, options={"sandbox": True})[0] == where  # again: a retry finds it made


@pytest.mark.parametrize("sandbox", [False, True])
def test_afterwards_all_is_as_it_was(run: Callable[..., Any], sandbox: bool) -> None:
    before = os.getcwd(), {name: os.environ.get(name) for name in NAMES}
    run(leave_a_mess, "/", options={"sandbox": sandbox})
    assert (os.getcwd(), {name: os.environ.get(name) for name in NAMES}) == before
    assert current_task() is None


def test_a_task_that_deletes_its_own_directory_does_not_harm_the_next(value: Callable[..., Any]) -> None:
    def destroy() -> None:
        import os
        import shutil

        shutil.rmtree(os.getcwd())

    value(destroy, options={"sandbox": True})
    assert value(look_around)[0]


def test_a_directory_that_cannot_be_made_fails_the_task(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    task = make_task(look_around, options={"working_dir": str(tmp_path / "file" / "below")})
    result = opened(run_task(task))
    assert result.error_details is not None
    assert result.error_details.user_message.startswith("NotADirectoryError")


def test_in_threads_each_task_knows_itself_and_nobody_changes_directory(tmp_path: Path) -> None:
    both_inside, seen = threading.Barrier(2, timeout=30), {}
    here = os.getcwd()

    def inside(task_id: str) -> None:
        task = WorkerTask(task_id, "", working_dir=str(tmp_path), sandbox=True)
        with Surroundings(task) as mine:
            both_inside.wait()
            seen[task_id] = (current_task() is mine, mine.current_directory, os.getcwd())
            both_inside.wait()

    threads = [threading.Thread(target=inside, args=(task_id,)) for task_id in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == {name: (True, str(tmp_path / name), here) for name in ("one", "two")}
    assert not [name for name in NAMES if name in os.environ]
