"""The command `farcall-endpoint`: what it prints, what it returns, against a real service where one is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farcall import Executor
from farcall.cli.endpoint import main
from farcall.endpoint.config import parse_config
from farcall.endpoint.pidfile import running_process
from farcall.testing.functions import by_value
from farcall.testing.processes import EndpointProcess, ProcessSystem, kill_and_wait, process_system

ENGINE = "engine: {type: ThreadPoolEngine, max_workers: 2}\n"
COMMAND = str(Path(sys.executable).parent / "farcall-endpoint")


def invoke(base: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config-dir", str(base), *arguments], env={"COLUMNS": "120"})


# Without a service ------------------------------------------------------------------------------------------------


def test_configure_says_where_the_file_is_and_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    result = CliRunner().invoke(main, ["configure", "my-first-endpoint"])
    path = tmp_path / "my-first-endpoint" / "config.yaml"
    assert result.stdout == (
        "Created profile for endpoint named <my-first-endpoint>\n\n"
        f"Configuration file: {path}\n\n"
        "Use the `start` subcommand to run it:\n\n"
        "    $ farcall-endpoint start my-first-endpoint\n"
    )
    assert result.exit_code == 0
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_default_configuration_is_valid_and_for_this_machine(tmp_path: Path) -> None:
    assert invoke(tmp_path, "configure").exit_code == 0
    loaded = parse_config((tmp_path / "default" / "config.yaml").read_text())
    assert loaded.notices == []
    assert loaded.engine.type == "GlobusComputeEngine"
    provider = loaded.engine.provider  # type: ignore[union-attr]
    assert (provider.type, provider.init_blocks, provider.max_blocks) == ("LocalProvider", 1, 1)


def test_a_display_name_with_quotes_is_kept(tmp_path: Path) -> None:
    name = 'The "big" one: 8 nodes # and more'
    invoke(tmp_path, "configure", "x", "--display-name", name)
    assert parse_config((tmp_path / "x" / "config.yaml").read_text()).config.display_name == name


def test_configure_refuses_an_existing_name_and_a_bad_one(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    (tmp_path / "x" / "config.yaml").write_text("mine")
    result = invoke(tmp_path, "configure", "x")
    assert result.exit_code == 73
    assert "exists already" in result.output
    assert (tmp_path / "x" / "config.yaml").read_text() == "mine"
    for name in ("a b", "../x", ".hidden", "54460200-b652-4f43-a918-02882fa6114a", "-x"):
        assert invoke(tmp_path, "configure", "--", name).exit_code == 2


def test_a_name_that_leads_elsewhere_is_refused_by_every_command(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    for command in ("start", "stop", "restart", "delete"):
        assert invoke(tmp_path / "below", command, "../x").exit_code == 2
    assert (tmp_path / "x" / "config.yaml").exists()


def test_commands_for_an_unknown_endpoint_say_which_ones_there_are(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "known")
    for arguments in (["start", "x"], ["stop", "x"], ["restart", "x"], ["delete", "x", "--yes"], ["status", "x"]):
        result = invoke(tmp_path, *arguments)
        assert result.exit_code == 78
        assert "there: known" in result.output
        assert ("configure x" in result.output) is (arguments[0] in ("start", "restart"))


@pytest.mark.parametrize("flags", [[], ["--detach"]], ids=["foreground", "background"])
def test_a_wrong_configuration_is_shown_with_its_line(tmp_path: Path, flags: list[str]) -> None:
    invoke(tmp_path, "configure", "x")
    (tmp_path / "x" / "config.yaml").write_text("debug: true\nengine:\n  type: ThreadPoolEngin\n")
    done = subprocess.run(
        [COMMAND, "-c", str(tmp_path), "start", "x", *flags], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 78
    assert "line 3: engine.type" in done.stderr
    assert "ThreadPoolEngine" in done.stderr


def test_stopping_what_does_not_run_is_no_error(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    result = invoke(tmp_path, "stop", "x")
    assert (result.exit_code, result.output) == (0, "Endpoint <x> is not running.\n")


def test_list_shows_nothing_and_initialized_endpoints(tmp_path: Path) -> None:
    assert "configure" in invoke(tmp_path, "list").output
    invoke(tmp_path, "configure", "x")
    (tmp_path / "not-an-endpoint").mkdir()
    assert json.loads(invoke(tmp_path, "list", "--json").output) == [{"id": None, "status": "Initialized", "name": "x"}]
    shown = invoke(tmp_path, "list").output
    assert "Initialized" in shown
    assert "x" in shown


def test_the_status_of_an_endpoint_that_never_ran_says_so(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    shown = invoke(tmp_path, "status", "x")
    assert shown.exit_code == 0
    assert shown.output.splitlines() == [
        "Endpoint: x",
        "Status:   Initialized",
        "ID:       none: never registered",
        f"Log:      {tmp_path / 'x' / 'endpoint.log'}",
    ]


def test_ctrl_c_while_the_endpoint_is_only_loading_ends_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / "config.yaml")
    process = subprocess.Popen([COMMAND, "-c", str(tmp_path), "start", "x"], stderr=subprocess.PIPE, text=True)
    with (tmp_path / "x" / "config.yaml").open("w"):  # opens when it reads its configuration; there is none to read
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "Interrupted; nothing is left running."


def test_an_endpoint_that_was_never_registered_is_deleted_without_a_service(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    assert invoke(tmp_path, "delete", "x", "--yes").exit_code == 0
    assert not (tmp_path / "x").exists()


def test_every_command_explains_itself() -> None:
    for name in main.commands:
        result = CliRunner().invoke(main, [name, "-h"])
        assert result.exit_code == 0
        assert "Show this message" in result.output


def test_the_command_imports_little(tmp_path: Path) -> None:
    program = "import sys, farcall.cli.endpoint; print(sorted({m.split('.')[0] for m in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("parsl", "pydantic", "pika", "httpx", "dill", "rich", "yaml"):
        assert f"'{heavy}'" not in shown


# With one ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    with process_system(tmp_path_factory.mktemp("cli")) as system:
        yield system


def statuses(endpoint: EndpointProcess) -> Any:
    rows = json.loads(endpoint.command("list", "--json").stdout)
    return {row["name"]: row["status"] for row in rows}


def foreground(system: ProcessSystem, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *arguments],
        env=system.commands.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_an_endpoint_is_started_seen_refused_twice_restarted_and_stopped(system: ProcessSystem) -> None:
    endpoint = system.endpoint("life", ENGINE, start=False)
    started = endpoint.command("start", "life", "--detach")
    assert started.stdout.startswith(f"Starting endpoint; registered ID: {endpoint.id}\n")
    assert statuses(endpoint)["life"] == "Running"
    second = endpoint.command("start", "life", status=73)
    assert f"process {endpoint.pid}" in second.stderr
    second = endpoint.command("start", "life", "--detach", status=73)
    assert f"process {endpoint.pid}" in second.stderr
    before = endpoint.pid
    assert endpoint.id in endpoint.command("restart", "life", "--detach").stdout
    assert endpoint.pid != before
    endpoint.command("delete", "life", "--yes", status=69)
    assert "is stopped" in endpoint.command("stop", "life").stdout
    assert statuses(endpoint)["life"] == "Stopped"
    assert not (endpoint.directory / "daemon.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_an_endpoint_in_the_foreground_ends_in_order_by_each_signal(
    system: ProcessSystem, number: signal.Signals
) -> None:
    endpoint = system.endpoint(f"front-{number.name}", ENGINE, start=False)
    process = foreground(system, "-c", str(endpoint.directory.parent), "start", endpoint.name)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("Starting endpoint; registered ID: ")
    assert "Tasks can come" in process.stderr.readline()
    process.send_signal(number)
    status, _, err = wait_end(process)
    assert status == 0, err
    assert "Traceback" not in err


ENGINES = {
    "threads": ENGINE,
    "processes": "engine: {type: ProcessPoolEngine, max_workers: 1}\n",
    "parsl": "engine:\n  max_workers_per_node: 1\n  provider: {type: LocalProvider, min_blocks: 1}\n",
}


@by_value
def tell_and_go_on(fifo: str) -> str:
    """Tells the test that it runs, then runs on for a moment."""
    import pathlib
    import time

    pathlib.Path(fifo).write_text("running")
    time.sleep(1.0)
    return "finished"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_running_task_survives_ctrl_c_in_the_endpoints_terminal(
    system: ProcessSystem, tmp_path: Path, engine: str
) -> None:
    endpoint = system.endpoint(f"terminal-{engine}", ENGINES[engine], start=False)
    process = foreground(system, "-c", str(endpoint.directory.parent), "start", endpoint.name)
    assert process.stderr is not None
    assert "Tasks can come" in process.stderr.readline()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Executor(endpoint_id=endpoint.id) as executor:
        future = executor.submit(tell_and_go_on, str(fifo))
        assert fifo.read_text() == "running"  # blocks until the task writes
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything the endpoint has started
        assert future.result(timeout=60) == "finished"
    status, _, err = wait_end(process)
    assert status == 0
    assert "Ctrl-C again" in err
    assert "Traceback" not in err


def test_an_endpoint_that_was_killed_shows_as_disconnected_and_starts_again(system: ProcessSystem) -> None:
    endpoint = system.endpoint("killed", ENGINE)
    kill_and_wait(endpoint.pid)
    assert statuses(endpoint)["killed"] == "Disconnected"
    endpoint.start()
    assert statuses(endpoint)["killed"] == "Running"


def test_force_kills_and_leaves_nothing_that_blocks(system: ProcessSystem) -> None:
    endpoint = system.endpoint("forced", ENGINE)
    assert "is stopped" in endpoint.command("stop", "forced", "--force").stdout
    endpoint.start()


def test_a_remote_stop_ends_an_instance_elsewhere(system: ProcessSystem, tmp_path: Path) -> None:
    endpoint = system.endpoint("remote", ENGINE, start=False)
    process = foreground(system, "-c", str(endpoint.directory.parent), "start", "remote")
    assert process.stderr is not None
    process.stderr.readline()
    # The same endpoint, seen from a machine that does not share the directory.
    shutil.copytree(endpoint.directory, tmp_path / "remote", ignore=shutil.ignore_patterns("daemon.pid", "journal*"))
    env = system.commands.env
    done = subprocess.run(
        [COMMAND, "-c", str(tmp_path), "stop", "remote", "--remote"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    status, _, err = wait_end(process)
    assert status == 69
    assert "stopped remotely" in err


def test_a_newer_instance_elsewhere_ends_the_older_one(system: ProcessSystem, tmp_path: Path) -> None:
    endpoint = system.endpoint("twice", ENGINE, start=False)
    older = foreground(system, "-c", str(endpoint.directory.parent), "start", "twice")
    assert older.stderr is not None
    older.stderr.readline()
    shutil.copytree(endpoint.directory, tmp_path / "twice", ignore=shutil.ignore_patterns("daemon.pid", "journal*"))
    newer = foreground(system, "-c", str(tmp_path), "start", "twice")
    status, _, err = wait_end(older)
    assert status == 69
    assert "newer instance" in err
    newer.send_signal(signal.SIGINT)
    assert wait_end(newer)[0] == 0


def test_a_service_that_is_down_is_waited_for_and_ctrl_c_works(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    (tmp_path / "x" / "config.yaml").write_text(ENGINE)
    env = {**os.environ, "FARCALL_SERVICE_URL": "http://127.0.0.1:9", "FARCALL_USER_DIR": str(tmp_path)}
    for flags in ([], ["--detach"]):
        process = subprocess.Popen(
            [COMMAND, "-c", str(tmp_path), "start", "x", *flags],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "No answer from the Farcall service at http://127.0.0.1:9" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        status, _, err = wait_end(process)
        assert status == (130 if flags else 0), err
        assert "Traceback" not in err


def test_a_start_in_the_background_gives_up_when_told_to_and_leaves_nothing(tmp_path: Path) -> None:
    invoke(tmp_path, "configure", "x")
    (tmp_path / "x" / "config.yaml").write_text(ENGINE)
    env = {**os.environ, "FARCALL_SERVICE_URL": "http://127.0.0.1:9", "FARCALL_USER_DIR": str(tmp_path)}
    done = subprocess.run(
        [COMMAND, "-c", str(tmp_path), "start", "x", "--detach", "--wait", "0"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 75, done.stderr
    assert "did not answer; the endpoint was not started, and nothing is left running" in done.stderr
    assert running_process(tmp_path / "x" / "daemon.pid") is None
    assert not (tmp_path / "x" / "daemon.pid").exists()


def test_the_status_of_a_running_endpoint_names_process_and_tasks(system: ProcessSystem) -> None:
    endpoint = system.endpoint("watched", ENGINE)
    shown = json.loads(endpoint.command("status", "watched", "--json").stdout)
    assert (shown["id"], shown["status"], shown["pid"]) == (endpoint.id, "Running", endpoint.pid)
    assert shown["service_url"] == system.service.url
    assert shown["log"] == str(endpoint.log)
    assert shown["started_s"] <= endpoint.log.stat().st_mtime + 1
    text = endpoint.command("status", "watched").stdout
    assert f"Process:  {endpoint.pid} on " in text
    endpoint.stop()
    shown = json.loads(endpoint.command("status", "watched", "--json").stdout)
    assert (shown["status"], shown["pid"]) == ("Stopped", None)
    assert shown["tasks"] == {"queued": 0, "running": 0, "unconfirmed": 0, "source": "journal"}


def test_an_endpoint_whose_directory_is_gone_is_deleted_by_its_id(system: ProcessSystem) -> None:
    endpoint = system.endpoint("lost", ENGINE)
    endpoint_id = endpoint.id
    endpoint.stop()
    shutil.rmtree(endpoint.directory)
    refused = endpoint.command("delete", endpoint_id, status=1)  # nobody answers the question
    assert f"Delete endpoint <lost> ({endpoint_id}) at {system.service.url}?" in refused.stdout
    deleted = endpoint.command("delete", endpoint_id.upper(), "--yes")
    assert "this id; it is deleted at the service only" in deleted.stderr
    assert f"Endpoint <lost> ({endpoint_id}) has been deleted" in deleted.stdout
    again = endpoint.command("delete", endpoint_id, "--yes", status=69)
    assert endpoint_id in again.stderr


def test_an_endpoint_is_deleted_here_and_at_the_service_by_name_or_id(system: ProcessSystem) -> None:
    endpoint = system.endpoint("gone", ENGINE)
    endpoint_id = endpoint.id
    endpoint.stop()
    copy = endpoint.directory.parent / "gone-copy"
    shutil.copytree(endpoint.directory, copy)
    shutil.rmtree(endpoint.directory)
    deleted = endpoint.command("delete", endpoint_id, "--yes")
    assert "<gone-copy> has been deleted" in deleted.stdout
    assert not copy.exists()
    again = system.endpoint("gone", ENGINE, start=False)
    refused = again.command("start", "gone", "--endpoint-uuid", endpoint_id, status=69)
    assert "Endpoint registration blocked." in refused.stderr


def test_whoami_and_login_know_the_user_who_started_the_service(system: ProcessSystem) -> None:
    endpoint = system.endpoint("who", ENGINE, start=False)
    assert system.service.url in endpoint.command("whoami").stdout
    assert "Already logged in as" in endpoint.command("login").stdout
    refused = subprocess.run(
        [COMMAND, "login", "--force"],
        env=system.commands.env,
        input="no-such-token\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 77
