"""The command `farcall-service`, as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farcall.client.tokens import TokenStore
from farcall.service import statefile


class Commands:
    """Runs the command with files in a temporary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.env = {
            **os.environ,
            "FARCALL_USER_DIR": str(root / "user"),
            "FARCALL_DATA_DIR": str(self.data_dir),
            "COLUMNS": "200",
        }
        for name in ("FARCALL_TOKEN", "FARCALL_SERVICE_URL"):
            self.env.pop(name, None)

    def run(self, *args: str, status: int = 0) -> str:
        """Standard output and error; the exit status must be `status`."""
        command = [sys.executable, "-m", "farcall.cli.service", *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *args: str, status: int = 0) -> str:
        return self.run("start", "--detach", "--port", "0", "--amqp-port", "0", *args, status=status)

    def state(self) -> Any:
        return json.loads(self.run("status", "--json"))

    def stop(self) -> None:
        self.run("stop")

    def token(self) -> str:
        stored = TokenStore(self.root / "user" / "tokens.json").get(self.state()["url"])
        assert stored is not None
        return stored.access_token


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """For tests that start and stop services."""
    made = Commands(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """One service for all tests that only look at it."""
    made = Commands(tmp_path_factory.mktemp("running"))
    made.start()
    yield made
    made.stop()


def whoami(state: Any, token: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{state['port']}/v3/whoami")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_service_starts_in_the_background_answers_and_stops(commands: Commands) -> None:
    banner = commands.start()
    state = commands.state()
    assert state["running"]
    assert state["url"] in banner
    assert str(state["amqp_port"]) in banner
    assert str(commands.data_dir) in banner
    assert "farcall-service stop" in banner
    assert (state["tasks"], state["endpoints_online"]) == ({}, [])
    assert "Endpoints online" in commands.run("status")
    assert "Stopped" in commands.run("stop")
    assert statefile.process_start(state["pid"]) in (None, state["process_start"])
    assert not json.loads(commands.run("status", "--json", status=3))["running"]
    assert not (commands.data_dir / "service.json").exists()


def test_who_starts_the_service_is_its_administrator_and_logged_in(running: Commands) -> None:
    state = running.state()
    me = whoami(state, running.token())
    assert me["is_admin"]
    assert me["username"].endswith("@localhost")
    tokens = running.root / "user" / "tokens.json"
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600


def test_a_token_that_is_still_good_is_kept(commands: Commands) -> None:
    commands.start()
    token, port = commands.token(), str(commands.state()["port"])
    commands.stop()
    commands.run("start", "--detach", "--port", port, "--amqp-port", "0")
    assert commands.token() == token


def test_the_data_directory_is_private(running: Commands) -> None:
    assert stat.S_IMODE(running.data_dir.stat().st_mode) == 0o700
    assert [path.name for path in running.data_dir.iterdir() if path.stat().st_mode & 0o077] == []


def test_two_services_cannot_share_a_data_directory(running: Commands) -> None:
    state = running.state()
    for detach in ([], ["--detach"]):
        message = running.run("start", *detach, "--port", "0", "--amqp-port", "0", status=73)
        assert str(state["pid"]) in message
        assert str(running.data_dir) in message


@pytest.mark.parametrize(
    ("taken", "option", "detach"), [("port", "--port", []), ("amqp_port", "--amqp-port", ["--detach"])]
)
def test_a_port_that_is_taken_is_named_with_its_holder_and_the_way_out(
    running: Commands, taken: str, option: str, detach: list[str]
) -> None:
    state = running.state()
    ports = {"--port": "0", "--amqp-port": "0", option: str(state[taken])}
    args = [word for pair in ports.items() for word in pair]
    message = running.run("start", *detach, *args, "--data-dir", str(running.root / "other"), status=69)
    assert f"port {state[taken]}" in message
    assert f"process {state['pid']}" in message
    assert f"{option} 0" in message
    assert not (running.root / "other" / "service.json").exists()


def test_after_a_failed_start_in_the_background_the_data_directory_is_free(running: Commands) -> None:
    other = running.root / "failed"
    args = ["--port", "0", "--amqp-port", str(running.state()["amqp_port"]), "--data-dir", str(other)]
    running.run("start", "--detach", *args, status=69)
    lock = statefile.DataDirLock(other)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_an_address_of_another_machine_is_told_with_the_option_for_addresses(
    commands: Commands, detach: list[str]
) -> None:
    args = ["--port", "0", "--amqp-port", "0"]
    message = commands.run("start", *detach, "--host", "203.0.113.9", *args, status=69)
    assert "203.0.113.9" in message
    assert "not an address of this machine" in message
    assert "--host" in message
    assert "--port" not in message


def test_ctrl_c_while_it_starts_in_the_background_leaves_no_service(commands: Commands) -> None:
    tokens = commands.root / "user" / "tokens.json"
    tokens.parent.mkdir()
    os.mkfifo(tokens)
    command = [sys.executable, "-m", "farcall.cli.service", "start", "--detach", "--port", "0", "--amqp-port", "0"]
    with subprocess.Popen(command, env=commands.env, stderr=subprocess.PIPE, text=True) as launcher:
        held = os.open(tokens, os.O_WRONLY)  # returns when the new service reads its user's tokens
        tokens.unlink()
        launcher.send_signal(signal.SIGINT)
        os.close(held)
        assert launcher.stderr is not None
        message = launcher.stderr.read()
        assert launcher.wait(30) == 130
    assert "Interrupted; the service was stopped again" in message
    assert "No service runs" in commands.run("stop")


def test_a_service_where_clients_do_not_look_says_how_they_find_it(commands: Commands) -> None:
    banner = commands.start()
    url = commands.state()["url"]
    assert "just work" not in banner
    assert f"export FARCALL_SERVICE_URL={url}" in banner.replace("\n  ", "\n").splitlines()
    assert f"farcall login {url}" in banner
    commands.stop()
    commands.env["FARCALL_SERVICE_URL"] = url.replace("localhost", "127.0.0.1")
    banner = commands.run("start", "--detach", "--port", url.rpartition(":")[2], "--amqp-port", "0")
    assert "just work" in banner
    assert "export" not in banner


def test_what_a_killed_service_left_behind_does_not_hinder_the_next(commands: Commands) -> None:
    commands.start()
    state = commands.state()
    fd = os.pidfd_open(state["pid"])
    os.kill(state["pid"], signal.SIGKILL)
    os.close(fd)
    assert statefile.wait_for_end(state["pid"], 30)
    assert (commands.data_dir / "service.json").exists()
    commands.run("status", status=3)
    assert "No service runs" in commands.run("stop")
    commands.start()
    assert commands.state()["pid"] != state["pid"]


def test_a_process_that_has_the_number_of_a_dead_service_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        lock = statefile.DataDirLock(tmp_path)
        lock.acquire()
        members = {"url": "u", "host": "h", "port": 1, "amqp_port": 2, "started_at": 0.0, "version": "v", "log": "l"}
        state = statefile.ServiceState(pid=other.pid, process_start=1, **members)  # type: ignore[arg-type]
        statefile.write_state(tmp_path, state)
        assert statefile.running_state(tmp_path) is None
        other.kill()


def test_in_the_foreground_a_signal_ends_it_in_order(commands: Commands) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "-m", "farcall.cli.service", "start", "--port", "0", "--amqp-port", "0"]
        with subprocess.Popen(command, env=commands.env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Stop with" in line:
                    break
            assert re.search(r"Stop with\s+Ctrl-C", lines[-1])
            process.send_signal(number)
            assert process.wait(30) == 0
        assert not (commands.data_dir / "service.json").exists()


def test_the_log_tells_of_start_and_stop_and_no_secrets(commands: Commands) -> None:
    commands.start()
    token = commands.token()
    whoami(commands.state(), token)
    commands.stop()
    log = (commands.data_dir / "service.log").read_text()
    assert "event=service.started" in log
    assert "event=service.stopped" in log
    assert token not in log


def test_a_database_that_is_none_is_told_in_one_line(commands: Commands) -> None:
    commands.data_dir.mkdir()
    (commands.data_dir / "farcall.db").write_text("this is no database" * 100)
    for detach in ([], ["--detach"]):
        message = commands.run("start", *detach, "--port", "0", "--amqp-port", "0", status=70)
        assert "not a database" in message


def test_another_user_than_the_administrator_sees_only_that_it_runs(commands: Commands) -> None:
    commands.start()
    (commands.root / "user" / "tokens.json").unlink()
    state = commands.state()
    assert state["running"]
    assert "401" in state["error"]


def test_listening_to_the_world_without_tls_must_be_wanted(commands: Commands) -> None:
    refusal = commands.start("--host", "0.0.0.0", status=78)
    assert "--tls-cert FILE" in refusal
    assert "--insecure" in refusal
    assert "without TLS" in commands.start("--host", "0.0.0.0", "--insecure")


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys; from farcall.cli.service import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('fastapi', 'sqlalchemy', 'uvicorn', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "start --detach" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
