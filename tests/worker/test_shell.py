from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farcall import MPIFunction, ShellFunction, ShellResult
from farcall.serialize import ComputeSerializer
from farcall.wire.messages import Result
from farcall.worker.run import run_task

from .conftest import TASK_ID, is_running, make_task, opened

Value = Callable[..., Any]


def test_called_at_home_it_runs_here_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ShellFunction("pwd; echo {word} >&2")(word="oops")
    assert result == ShellResult("pwd; echo oops >&2", f"{tmp_path}\n", "oops\n", 0, None)
    assert list(tmp_path.iterdir()) == []


def test_as_a_task_it_writes_files_named_after_the_task(value: Value, tmp_path: Path) -> None:
    result = value(ShellFunction("echo {x}; echo {x} >&2"), x="é")
    assert (result.stdout, result.stderr, result.returncode) == ("é\n", "é\n", 0)
    assert {path.name for path in tmp_path.iterdir()} == {f"{TASK_ID}.stdout", f"{TASK_ID}.stderr"}


def test_a_second_command_of_a_task_has_files_of_its_own(value: Value, tmp_path: Path) -> None:
    for _ in range(2):
        assert value(ShellFunction("echo once")).stdout == "once\n"
    assert len(list(tmp_path.glob("*.stdout"))) == 2


def test_in_a_sandbox_it_runs_and_writes_there(value: Value, tmp_path: Path) -> None:
    result = value(ShellFunction("pwd; echo $GC_TASK_SANDBOX_DIR; touch made"), options={"sandbox": True})
    sandbox = tmp_path / TASK_ID
    assert result.stdout == f"{sandbox}\n{sandbox}\n"
    assert (sandbox / "made").exists()


def test_named_files_are_appended_to_and_only_what_is_new_comes_back(value: Value, tmp_path: Path) -> None:
    function = ShellFunction("echo {x}", stdout="logs/out.txt", stderr=tmp_path / "both.txt")
    assert [value(function, x=x).stdout for x in ("one", "two")] == ["one\n", "two\n"]
    assert (tmp_path / "logs" / "out.txt").read_text() == "one\ntwo\n"


def test_both_streams_may_go_to_one_file_or_nowhere(value: Value, tmp_path: Path) -> None:
    result = value(ShellFunction("echo a; echo b >&2", stdout="one", stderr="one"))
    assert (tmp_path / "one").read_text() == "a\nb\n"
    assert result.stdout == "a\nb\n"
    assert value(ShellFunction("echo a", stdout="/dev/null")).stdout == ""


@pytest.mark.parametrize(("lines", "kept"), [(3, "9\n10\ntail"), (0, ""), (100, None)])
def test_only_the_last_lines_come_back(value: Value, tmp_path: Path, lines: int, kept: str | None) -> None:
    result = value(ShellFunction("seq 10; printf tail", snippet_lines=lines, stdout="all"))
    assert result.stdout == (kept if kept is not None else (tmp_path / "all").read_text())


def test_gigantic_output_still_fits_into_a_result(run: Callable[..., Result]) -> None:
    command = "head -c 30000000 /dev/zero | tr '\\0' 'x'"
    result = run(ShellFunction(f"{command}; {command} >&2"))
    assert not result.is_error
    assert ComputeSerializer().deserialize(result.data).stdout.endswith("xxx")


@pytest.mark.parametrize(
    ("command", "returncode", "name"),
    [
        ("exit 3", 3, "subprocess.CalledProcessError"),
        ("no_such_command", 127, "subprocess.CalledProcessError"),
        ("kill -TERM $$", -15, "subprocess.CalledProcessError"),
        ("true", 0, None),
    ],
)
def test_a_failing_command_is_a_result(command: str, returncode: int, name: str | None) -> None:
    result = ShellFunction(command)()
    assert (result.returncode, result.exception_name) == (returncode, name)


def test_walltime_ends_the_command_and_what_it_started(value: Value, tmp_path: Path) -> None:
    function = ShellFunction("echo begun; (sleep 600; echo late >> late) & echo $! > pid; sleep 600", walltime=1.5)
    result = value(function)
    assert (result.stdout, result.returncode, result.exception_name) == ("begun\n", 124, "subprocess.TimeoutExpired")
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_the_sites_time_limit_ends_the_command_too(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", "1.5")
    result = run(ShellFunction("echo $$ > pid; exec sleep 600"))
    assert "GC_TASK_TIMEOUT" in result.data
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_the_sites_time_limit_ends_the_command_in_other_threads_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", "1.5")
    task = make_task(ShellFunction("echo $$ > pid; exec sleep 600"), options={"working_dir": str(tmp_path)})
    thread = threading.Thread(target=run_task, args=(task,))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_standard_input_is_empty() -> None:
    assert ShellFunction("cat | wc -c")().stdout.strip() == "0"


def test_a_dict_comes_back_if_asked_for(run: Callable[..., Result]) -> None:
    options = {"result_serializers": ("farcall.serialize.JSONData",)}
    result = run(ShellFunction("echo {x}", return_dict=True), x=1, options=options)
    expected = {"cmd": "echo 1", "stdout": "1\n", "stderr": "", "returncode": 0, "exception_name": None}
    assert ComputeSerializer().deserialize(result.data) == expected


def test_a_command_with_braces_of_all_kinds_runs() -> None:
    command = """echo '{"a": {"b": {x}}}' | awk '{print $2, "}"}' | tr -d '\\n'; echo ${HOME:+{}}; echo {a,b}"""
    assert ShellFunction(command)(x=7).stdout == '{"b": }{}\na b\n'


def test_wrong_arguments_are_said_at_the_caller(run: Callable[..., Result]) -> None:
    with pytest.raises(TypeError, match="keyword arguments only"):
        ShellFunction("echo {x}")(1)
    result = run(ShellFunction("echo {message}"), mesage="hi")
    assert result.error_details is not None
    assert "mesage" in result.error_details.user_message
    strict = ShellFunction("echo {message}")
    strict.missing = "error"
    assert run(strict).is_error  # the attribute travels


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"cmd": 3}, TypeError),
        ({"walltime": -1}, ValueError),
        ({"walltime": float("nan")}, ValueError),
        ({"walltime": "1"}, TypeError),
        ({"walltime": True}, TypeError),
        ({"snippet_lines": -1}, ValueError),
        ({"snippet_lines": "x"}, ValueError),
        ({"name": "a b"}, ValueError),
        ({"name": "x-y"}, ValueError),
        ({"stdout": 5}, TypeError),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(arguments: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        ShellFunction(**{"cmd": "true", **arguments})


def test_it_has_a_name_like_a_function() -> None:
    assert ShellFunction("ls").__name__ == "ShellFunction"
    assert MPIFunction("ls", name="job").__name__ == "job"
    assert "'ls'" in repr(ShellFunction("ls"))


def test_a_result_is_readable() -> None:
    shown = str(ShellResult("ls /x", "", "no such file\n", 2, "subprocess.CalledProcessError"))
    assert shown == "$ ls /x\nexit code 2 (subprocess.CalledProcessError)\n--- stderr ---\nno such file"


def test_in_threads_each_command_is_in_its_own_sandbox(tmp_path: Path) -> None:
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
    function, results = ShellFunction("echo $GC_TASK_UUID; pwd"), {}

    def run_one(task_id: str) -> None:
        options = {"task_id": task_id, "working_dir": str(tmp_path), "sandbox": True}
        results[task_id] = opened(run_task(make_task(function, options=options)))

    threads = [threading.Thread(target=run_one, args=(task_id,)) for task_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for task_id in ids:
        assert ComputeSerializer().deserialize(results[task_id].data).stdout == f"{task_id}\n{tmp_path / task_id}\n"


def test_an_mpi_function_stands_behind_the_engines_launcher(value: Value, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSL_MPI_PREFIX", "echo mpiexec -n 4")
    result = value(MPIFunction("./program --size {n}"), n=5)
    assert result.cmd == "$PARSL_MPI_PREFIX ./program --size 5"
    assert result.stdout == "mpiexec -n 4 ./program --size 5\n"


def test_an_mpi_function_at_home_runs_without_a_launcher() -> None:
    assert MPIFunction("echo {n}")(n=5).stdout == "5\n"
