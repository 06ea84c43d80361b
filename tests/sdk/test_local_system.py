"""`farcall.testing.local_system`, and the SDK and the user's command against what it runs: nothing is faked here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, as_completed
from datetime import datetime, timezone
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from farcall import Client, Executor, ShellFunction
from farcall.cli.user import main
from farcall.client.rest import ApiClient
from farcall.client.tokens import StoredToken, TokenStore
from farcall.errors import EndpointNotFound, FunctionNotFound, TaskPending
from farcall.sdk.calls import function_registration
from farcall.serialize import ComputeSerializer, PureSourceTextInspect, StrategyLike
from farcall.testing import LocalSystem, local_system
from farcall.wire.rest import EndpointRegistration

WAIT_S = 60


@pytest.fixture(scope="module")
def system() -> Iterator[LocalSystem]:
    with local_system() as system:
        yield system


@pytest.fixture
def executor(system: LocalSystem) -> Iterator[Executor]:
    with system.executor() as executor:
        yield executor


@pytest.fixture
def client(system: LocalSystem) -> Client:
    return system.client()


def wait_at(gate: str) -> str:
    """Runs in a thread of this process, so a test can hold it."""
    from tests_gates import gates  # type: ignore[import-not-found]

    gates[gate].wait(60)
    return gate


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> dict[str, threading.Event]:
    import types

    module = types.ModuleType("tests_gates")
    module.gates = {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests_gates", module)
    return module.gates  # type: ignore[attr-defined]


def boom(text: str) -> None:
    raise ValueError(text, 42)


def test_calls_run_and_come_back(executor: Executor) -> None:
    futures = {executor.submit(pow, n, 2): n for n in range(100)}
    for future in as_completed(futures, timeout=WAIT_S):
        assert future.result() == futures[future] ** 2


def test_an_exception_is_raised_as_its_own_type_with_the_remote_traceback(executor: Executor) -> None:
    with pytest.raises(ValueError) as caught:
        executor.submit(boom, "words").result(WAIT_S)
    assert caught.value.args == ("words", 42)
    assert "in boom" in str(caught.value.__cause__)


def test_an_unknown_endpoint_or_function_is_named_and_the_executor_goes_on(
    system: LocalSystem, executor: Executor
) -> None:
    stranger = str(uuid4())
    executor.endpoint_id = stranger
    with pytest.raises(EndpointNotFound, match=stranger):
        executor.submit(abs, -1).result(WAIT_S)
    executor.endpoint_id = system.endpoint_id
    with pytest.raises(FunctionNotFound, match=stranger):
        executor.submit_to_registered_function(stranger).result(WAIT_S)
    assert executor.submit(abs, -1).result(WAIT_S) == 1


def test_a_call_is_cancelled_at_the_service(
    executor: Executor, client: Client, gates: dict[str, threading.Event]
) -> None:
    gates["c"] = threading.Event()
    future = executor.submit(wait_at, "c")
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    gates["c"].set()
    assert executor.submit(abs, -1).result(WAIT_S) == 1


def test_a_group_is_reloaded_with_what_has_ended_and_what_has_not(
    system: LocalSystem, gates: dict[str, threading.Event]
) -> None:
    group = str(uuid4())
    gates["r"] = threading.Event()
    with system.executor(task_group_id=group) as first:
        done = first.submit(abs, -7)
        assert done.result(WAIT_S) == 7
        waiting = first.submit(wait_at, "r")
        assert first.submit(abs, -8).result(WAIT_S) == 8  # so the one before has been accepted as well
        again = first.reload_tasks()
        assert again[0].result(WAIT_S) == 7
        gates["r"].set()
        assert waiting.result(WAIT_S) == again[1].result(WAIT_S) == "r"


def test_a_batch_without_a_queue_is_awaited_by_reloading(
    system: LocalSystem, client: Client, gates: dict[str, threading.Event]
) -> None:
    gates["b"] = threading.Event()
    function_id = client.register_function(wait_at)
    batch = client.create_batch()
    batch.add(function_id, ("b",))
    answer = client.batch_run(system.endpoint_id, batch)
    (task_id,) = answer["tasks"][function_id]
    with pytest.raises(TaskPending):
        client.get_result(task_id)
    with system.executor() as executor:
        (future,) = executor.reload_tasks(answer["task_group_id"])
        gates["b"].set()
        assert future.result(WAIT_S) == "b"
    assert client.get_result(task_id) == "b"
    assert client.get_task(task_id)["status"] == "success"


def test_the_client_sees_the_endpoint(system: LocalSystem, client: Client) -> None:
    assert system.endpoint_id in [entry["uuid"] for entry in client.get_endpoints()]
    assert client.get_endpoint_status(system.endpoint_id)["status"] == "online"
    assert client.get_endpoint_metadata(system.endpoint_id)["display_name"] == "Endpoint of a test"
    assert client.get_allowed_functions(system.endpoint_id)["restricted"] is False
    assert client.get_result_amqp_url()["connection_url"].startswith("amqp://")


def test_functions_can_be_looked_at_and_deleted(client: Client) -> None:
    function_id = client.register_function(boom, description="raises")
    assert client.get_function(function_id)["description"] == "raises"
    client.delete_function(function_id)
    with pytest.raises(FunctionNotFound):
        client.get_function(function_id)


def test_the_hardware_of_a_worker_is_reported(system: LocalSystem, executor: Executor) -> None:
    assert "Cores:" in executor.get_worker_hardware_details()


def test_a_forked_child_can_submit_and_leaves_the_parents_calls_alone(
    executor: Executor, gates: dict[str, threading.Event]
) -> None:
    gates["f"] = threading.Event()
    waiting = executor.submit(wait_at, "f")
    assert executor.submit(pow, 2, 3).result(WAIT_S) == 8
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if executor.submit(pow, 2, 4).result(WAIT_S) == 16 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gates["f"].set()
    assert waiting.result(WAIT_S) == "f"
    assert executor.submit(pow, 2, 5).result(WAIT_S) == 32


def test_two_systems_live_in_one_process(system: LocalSystem, tmp_path: Path) -> None:
    with local_system(directory=tmp_path) as other, other.executor() as there, system.executor() as here:
        assert there.submit(abs, -1).result(WAIT_S) == here.submit(abs, -1).result(WAIT_S) == 1
        assert other.url != system.url
    assert (tmp_path / "service" / "farcall.db").exists()


# --- the user's command


@pytest.fixture
def farcall(system: LocalSystem, monkeypatch: pytest.MonkeyPatch):
    for name, value in system.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(main, list(arguments), input=text)

    return run


def test_every_command_says_how_it_is_used(farcall) -> None:
    for name, command in main.commands.items():
        done = farcall(name, "--help")
        assert done.exit_code == 0
        assert f"farcall {name}" in done.output.split("Example", 1)[1]
        assert command.short_help is None


def test_endpoints_are_listed_with_their_state(farcall, system: LocalSystem) -> None:
    assert system.endpoint_id in farcall("endpoints").output
    (entry,) = json.loads(farcall("endpoints", "--json").output)
    assert (entry["uuid"], entry["status"], entry["name"]) == (system.endpoint_id, "online", "test")


def test_ids_are_whole_in_any_width(farcall, system: LocalSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("20", "50", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
        assert system.endpoint_id in farcall("endpoints").output
        monkeypatch.delenv("FORCE_COLOR")
        assert system.endpoint_id in farcall("endpoints").output
        assert system.endpoint_id in farcall("endpoint", "test").output


def test_an_endpoint_is_shown_by_name_or_id(farcall, system: LocalSystem) -> None:
    by_name, by_id = farcall("endpoint", "test"), farcall("endpoint", system.endpoint_id)
    assert by_name.output == by_id.output
    assert "online" in by_name.output
    assert json.loads(farcall("endpoint", "test", "--json").output)["name"] == "test"
    unknown = farcall("endpoint", "nowhere")
    assert unknown.exit_code == 65
    assert "'nowhere' is neither" in unknown.output


@pytest.fixture
def offline(system: LocalSystem) -> Iterator[str]:
    """The id of an endpoint that was registered and never started."""
    with ApiClient(system.url, system.token) as api:
        endpoint_id = api.register_endpoint(EndpointRegistration(endpoint_name="asleep", direct=True)).endpoint_id
        yield endpoint_id
        api.delete_endpoint(endpoint_id)


def test_a_manager_is_shown_as_one_and_without_tasks_of_its_own(farcall, system: LocalSystem) -> None:
    with ApiClient(system.url, system.token) as api:
        for name, is_privileged, kind in (("of-all", True, "multi-user"), ("of-one", False, "manager")):
            wish = EndpointRegistration(
                endpoint_name=name,
                multi_user=is_privileged,
                metadata={"user_config_template": "engine: {type: ThreadPoolEngine}"},
            )
            endpoint_id = api.register_endpoint(wish).endpoint_id
            rows = dict(line.split("  ", 1) for line in farcall("endpoint", name).output.splitlines())
            api.delete_endpoint(endpoint_id)
            assert rows["Kind"].strip().startswith(kind)
            assert not {"Workers", "Tasks"} & set(rows)
    assert "Kind" not in farcall("endpoint", "test").output


def test_an_offline_endpoint_shows_when_it_was_seen_instead_of_its_workers(farcall, offline: str) -> None:
    rows = dict(line.split("  ", 1) for line in farcall("endpoint", "asleep").output.splitlines())
    assert rows["Last seen"].strip() == "never"
    assert "Workers" not in rows
    rows = dict(line.split("  ", 1) for line in farcall("endpoint", "test").output.splitlines())
    assert rows["Workers"].strip()
    assert "Last seen" not in rows


def test_a_command_for_an_offline_endpoint_says_that_it_waits_and_ctrl_c_leaves_it(farcall, offline: str) -> None:
    command = [sys.executable, "-m", "farcall.cli.user", "run", "asleep", "echo", "x"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        first, second = waiting.stderr.readline(), waiting.stderr.readline()
        task_id = first.split(" task ")[1].split()[0]
        assert "asleep is offline" in first
        assert f"farcall result {task_id}" in second
        waiting.send_signal(signal.SIGINT)
        assert f"{task_id} stays at the service" in waiting.stderr.read()
        assert waiting.wait(WAIT_S) == 130
    assert farcall("result", task_id).exit_code == 75
    assert f"{task_id}: cancelled" in farcall("cancel", task_id).output


def test_a_command_runs_on_an_endpoint_with_its_own_status(farcall) -> None:
    done = farcall("run", "test", "echo out; echo {1..3} >&2; exit 3")
    assert done.exit_code == 3
    assert done.stdout == "out\n"
    assert done.stderr == "1 2 3\n"
    assert farcall("run", "test", "echo", "-n", "x").stdout == "x"


def test_a_task_is_shown_and_its_result_printed(farcall, executor: Executor) -> None:
    good, bad = executor.submit(abs, -42), executor.submit(boom, "words")
    assert good.result(WAIT_S) == 42
    assert bad.exception(WAIT_S) is not None
    shown = farcall("task", good.task_id)
    assert "success" in shown.output
    assert "execution-start" in shown.output
    assert farcall("result", good.task_id).stdout == "42\n"
    failed = farcall("result", bad.task_id)
    assert failed.exit_code == 1
    assert "ValueError" in failed.stderr
    assert "words" in farcall("task", bad.task_id).output
    shell = executor.submit(ShellFunction("echo out; echo err >&2; exit 4"))
    assert shell.result(WAIT_S).returncode == 4
    printed = farcall("result", shell.task_id)
    assert (printed.stdout, printed.stderr, printed.exit_code) == ("out\n", "err\n", 4)
    assert json.loads(farcall("task", bad.task_id, "--json").output)["status"] == "failed"


def test_tasks_are_listed_and_what_ran_is_told(farcall, executor: Executor, client: Client) -> None:
    begun = datetime.now(timezone.utc)
    good, bad = executor.submit(abs, -43), executor.submit(boom, "listed")
    assert good.result(WAIT_S) == 43
    assert bad.exception(WAIT_S) is not None
    listed = client.get_tasks(since=begun)
    assert {each["task_id"]: each["state"] for each in listed} == {good.task_id: "success", bad.task_id: "failed"}
    assert client.get_tasks(state=["failed"], limit=1) == [each for each in listed if each["state"] == "failed"]
    assert client.get_tasks(function_id=uuid4()) == []
    with pytest.raises(ValueError, match="zone"):
        client.get_tasks(since=begun.replace(tzinfo=None))
    details = client.get_task_details(bad.task_id)
    assert [step["by"] for step in details["timeline"]] == ["service", "worker", "worker", "service"]
    assert "ValueError: ('listed', 42)" in details["error"]["traceback"]
    shown = farcall("tasks", "--state", "failed", "--since", "1h", "--endpoint", "test")
    assert bad.task_id in shown.output
    assert good.task_id not in shown.output
    assert json.loads(farcall("tasks", "--limit", "1", "--json").output)[0]["task_id"] in (good.task_id, bad.task_id)
    assert farcall("tasks", "--group", str(uuid4())).output == "No such tasks.\n"
    assert farcall("tasks", "--since", "yesterday").exit_code == 65
    told = client.api.function_details(details["function_id"])
    assert told["source"] == "def boom(text: str) -> None:\n    raise ValueError(text, 42)\n"
    assert told["runs"] >= 1
    assert [each["function_id"] for each in client.api.functions(search="BOOM", limit=1)["functions"]]
    (row,) = client.api.usage()["rows"]
    assert row["tasks"] >= 2


def test_the_text_of_what_is_protected_or_written_as_source_is_not_sent_beside_it() -> None:
    def meta(strategy: StrategyLike | None = None, **more: Any) -> Mapping[str, Any]:
        serializer = ComputeSerializer() if strategy is None else ComputeSerializer(strategy_code=strategy)
        return function_registration(serializer, boom, **more).meta or {}

    assert meta()["source"].startswith("def boom")
    assert "source" not in meta(ha_endpoint_id=str(uuid4()))
    assert "source" not in meta(PureSourceTextInspect())
    assert meta(metadata={"source": "mine"})["source"] == "mine"
    assert (function_registration(ComputeSerializer(), ShellFunction("echo {x}")).meta or {})["source"] == "echo {x}"
    assert "source" not in (function_registration(ComputeSerializer(), len).meta or {})


def test_a_task_is_cancelled_once(farcall, executor: Executor, gates: dict[str, threading.Event]) -> None:
    gates["k"] = threading.Event()
    done = executor.submit(abs, -1)
    assert done.result(WAIT_S) == 1
    future = executor.submit(wait_at, "k")
    accepted = executor.submit(abs, -2)
    assert accepted.result(WAIT_S) == 2  # so the one before has been accepted as well
    pending = farcall("result", future.task_id)
    assert pending.exit_code == 75
    answer = farcall("cancel", future.task_id, done.task_id)
    assert f"{future.task_id}: cancelled" in answer.output
    assert f"{done.task_id}: has ended before (success)" in answer.output
    assert farcall("task", future.task_id).output.count("was cancelled") == 1
    assert farcall("cancel", done.task_id, "nonsense").stdout == ""
    gates["k"].set()
    assert "cancelled" in str(future.exception(WAIT_S))
    assert not future.cancelled()


@pytest.mark.parametrize(("arguments", "status"), [(("task", "nonsense"), 65), (("task", str(uuid4())), 65)])
def test_bad_ids_end_with_the_status_for_bad_data(farcall, arguments: tuple[str, ...], status: int) -> None:
    done = farcall(*arguments)
    assert done.exit_code == status
    assert arguments[1] in done.output
    assert "Traceback" not in done.output


def test_version_and_identity_are_told(farcall, system: LocalSystem) -> None:
    assert f"at {system.url}" in farcall("version").output
    assert json.loads(farcall("version", "--json").output)["service"] == system.url
    assert farcall("whoami").output.startswith("tester@localhost (")
    assert json.loads(farcall("whoami", "--json").output)["is_admin"] is True


def test_without_a_service_there_is_a_sentence_and_the_status_for_unavailable(farcall, monkeypatch) -> None:
    monkeypatch.setenv("FARCALL_SERVICE_URL", "http://127.0.0.1:9")
    done = farcall("endpoints")
    assert done.exit_code == 69
    assert "127.0.0.1:9" in done.output
    assert "Traceback" not in done.output
    assert "127.0.0.1:9" in farcall("version").output


def test_login_checks_the_token_and_remembers_service_and_token(
    farcall, system: LocalSystem, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    monkeypatch.delenv("FARCALL_TOKEN")
    monkeypatch.delenv("FARCALL_SERVICE_URL")
    wrong = farcall("login", system.url, text="fc_wrong\n")
    assert wrong.exit_code == 77
    assert not (tmp_path / "tokens.json").exists()
    assert farcall("login", system.url, text="\n").exit_code == 77
    done = farcall("login", system.url, text=system.token + "\n")
    assert done.exit_code == 0, done.output
    assert system.token not in done.output
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert system.url in farcall("whoami").output  # it is the default now
    assert Client().get_endpoints()


def test_a_token_that_is_kept_and_good_makes_its_service_the_default(
    farcall, system: LocalSystem, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    monkeypatch.delenv("FARCALL_TOKEN")
    monkeypatch.delenv("FARCALL_SERVICE_URL")
    store = TokenStore()
    store.put(system.url, StoredToken(access_token=system.token, identity_id="x", username="tester@localhost"))
    done = farcall("login", system.url, text="")
    assert done.exit_code == 0, done.output
    assert "Already logged in as tester@localhost" in done.output
    assert store.default_url == system.url
    assert farcall("login", system.url, text="fc_wrong\n").exit_code == 77, "what is piped in goes first"
    store.put(system.url, StoredToken(access_token="fc_revoked", identity_id="x", username="y"))
    assert "No token was given" in farcall("login", system.url, text="").output
    monkeypatch.setenv("FARCALL_SERVICE_URL", "http://localhost:1")
    assert "FARCALL_SERVICE_URL is set" in farcall("login", system.url, text=system.token).stderr


def test_what_is_no_service_is_told_with_the_status_for_unavailable(farcall, monkeypatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("FARCALL_SERVICE_URL", f"http://127.0.0.1:{server.server_port}")
        for command in ("whoami", "endpoints"):
            done = farcall(command)
            assert done.exit_code == 69
            assert "not a Farcall service" in done.output
        server.shutdown()


def test_logout_revokes_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_system(directory=tmp_path) as own:
        for name, value in own.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("FARCALL_TOKEN")
        runner = CliRunner()
        assert "No token" in runner.invoke(main, ["logout"]).output
        assert runner.invoke(main, ["login", own.url], input=own.token).exit_code == 0
        assert runner.invoke(main, ["logout"]).exit_code == 0
        assert runner.invoke(main, ["whoami"]).exit_code == 77
        again = runner.invoke(main, ["login", own.url], input=own.token)
        assert again.exit_code == 77, "the service does not take it any more"


def test_the_example_of_the_deck_runs(system: LocalSystem) -> None:
    program = Path(__file__).parents[2] / "examples" / "jittery_multiply.py"
    for unset in ("", "FARCALL_ENDPOINT_ID"):
        environment = {**os.environ, **system.environment()}
        environment.pop(unset, None)
        done = subprocess.run(
            [sys.executable, str(program), "1", "2", "6.283"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, done.stderr
        values = sorted(float(line) for line in done.stdout.split())
        for value, exact in zip(values, (0.0, 2.0, 12.566), strict=True):
            assert abs(value - exact) <= 1.0
