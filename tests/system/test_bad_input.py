"""Bad input gets a clear error, the Executor stays usable, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from farcall import Client, Executor
from farcall.errors import (
    EndpointNotFound,
    FarcallError,
    FunctionNotFound,
    InvalidRequest,
    MaxResultSizeExceeded,
    PayloadTooLarge,
    SerializationError,
    ServiceUnreachable,
    TaskExecutionFailed,
    Unauthenticated,
    WorkerLost,
)
from farcall.testing.functions import by_value
from farcall.testing.processes import EndpointProcess, ProcessSystem

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"


@by_value
def double(x: Any) -> Any:
    return x * 2


def still_works(executor: Executor) -> bool:
    return bool(executor.submit(double, 21).result(timeout=60) == 42)


def test_an_unknown_endpoint_is_named(endpoint: EndpointProcess) -> None:
    stranger = str(uuid.uuid4())
    with Executor(endpoint_id=stranger) as ex:
        future = ex.submit(double, 1)
        with pytest.raises(EndpointNotFound, match=stranger):
            future.result(timeout=60)
        ex.endpoint_id = endpoint.id
        assert still_works(ex)


def test_an_unknown_function_is_named_and_spares_its_neighbours(executor: Executor) -> None:
    stranger = str(uuid.uuid4())
    good = executor.submit(double, 1)
    bad = executor.submit_to_registered_function(stranger, (1,))
    also_good = executor.submit(double, 2)
    with pytest.raises(FunctionNotFound, match=stranger):
        bad.result(timeout=60)
    assert (good.result(timeout=60), also_good.result(timeout=60)) == (2, 4)


def test_an_argument_that_cannot_be_pickled_is_named(executor: Executor) -> None:
    with pytest.raises(SerializationError, match="generator"):
        executor.submit(double, (n for n in range(3))).result(timeout=60)
    assert still_works(executor)


def test_arguments_over_the_limit_are_refused_with_their_size(executor: Executor) -> None:
    with pytest.raises(PayloadTooLarge, match="10"):
        executor.submit(double, os.urandom(11 * 1024 * 1024)).result(timeout=60)
    assert still_works(executor)


def test_a_result_over_the_limit_says_so(executor: Executor) -> None:
    @by_value
    def big() -> bytes:
        return bytes(11 * 1024 * 1024)

    with pytest.raises(MaxResultSizeExceeded):
        executor.submit(big).result(timeout=60)
    assert still_works(executor)


def test_a_result_that_cannot_be_pickled_says_so(executor: Executor) -> None:
    @by_value
    def generate() -> Any:
        return (n for n in range(3))

    with pytest.raises((SerializationError, TaskExecutionFailed), match="generator"):
        executor.submit(generate).result(timeout=60)
    assert still_works(executor)


def test_sys_exit_in_a_function_is_an_error_and_not_the_end_of_a_worker(executor: Executor) -> None:
    @by_value
    def leave() -> None:
        import sys

        sys.exit(3)

    with pytest.raises((TaskExecutionFailed, SystemExit)) as caught:
        executor.submit(leave).result(timeout=60)
    assert "SystemExit" in f"{type(caught.value).__name__} {caught.value}"
    assert still_works(executor)


def test_a_worker_killed_by_the_kernel_fails_its_call_with_the_signal(executor: Executor) -> None:
    @by_value
    def die() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerLost, match="SIGKILL|signal 9"):
        executor.submit(die).result(timeout=60)
    assert still_works(executor)


def test_an_exception_that_cannot_be_loaded_here_arrives_as_text(executor: Executor) -> None:
    @by_value
    def strange() -> None:
        class Strange(Exception):
            pass

        raise Strange("remote words", (n for n in range(3)))

    with pytest.raises(TaskExecutionFailed, match="remote words"):
        executor.submit(strange).result(timeout=60)


def test_an_endpoint_id_that_is_no_uuid_is_refused_at_once() -> None:
    with pytest.raises((ValueError, TypeError, FarcallError), match="94c7ce20"):
        Executor(endpoint_id="94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c")


def test_a_fixed_endpoint_takes_no_user_configuration(endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=endpoint.id, user_endpoint_config={"WORKERS": 5}) as ex:
        with pytest.raises(InvalidRequest, match="configuration"):
            ex.submit(double, 1).result(timeout=60)


def test_without_a_service_the_sdk_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FARCALL_SERVICE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FARCALL_TOKEN", "fc_nothing")
    with pytest.raises(ServiceUnreachable, match="127.0.0.1:9"):
        Client().get_endpoints()


def test_a_wrong_token_says_how_to_log_in(shared_system: ProcessSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARCALL_TOKEN", "fc_wrong")
    with pytest.raises(Unauthenticated, match="farcall login"):
        Client().get_endpoints()


def test_a_port_that_is_taken_is_named(shared_system: ProcessSystem, tmp_path: Path) -> None:
    port = str(shared_system.service.status["port"])
    done = shared_system.commands.run(
        "farcall-service", "start", "--port", port, "--amqp-port", "0", "--data-dir", str(tmp_path / "d"), status=None
    )
    assert done.returncode not in (0, 1)
    assert port in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_endpoint_cannot_be_started_twice(endpoint: EndpointProcess) -> None:
    done = endpoint.command("start", endpoint.name, status=73)
    assert str(endpoint.pid) in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("engine:\n  type: ProcessPoolEngine\n  max_wrokers: 2\n", ["max_wrokers", "max_workers", "3"]),
        ("engine:\n  type: NoSuchEngine\n", ["NoSuchEngine", "ProcessPoolEngine", "2"]),
        ("heartbeat_period: 1\n", ["heartbeat_period", "5"]),
        ("engine: [\n", ["config.yaml"]),
        ("allowed_functions:\n  - 94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c\n", ["94c7ce20", "allowed_functions"]),
        ("display_name: {{ NAME }}\n", ["{{", "1"]),
    ],
    ids=["unknown-key", "unknown-engine", "too-small", "no-yaml", "no-uuid", "placeholder"],
)
def test_a_bad_config_names_the_place_and_what_is_allowed(
    shared_system: ProcessSystem, request: pytest.FixtureRequest, text: str, words: list[str]
) -> None:
    bad = shared_system.endpoint(f"bad-{request.node.callspec.id}", text, start=False)
    done = bad.command("start", bad.name, status=78)
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    for word in words:
        assert word in output


def test_an_endpoint_waits_for_a_service_that_is_down(system: ProcessSystem) -> None:
    endpoint = system.endpoint("patient", PROCESSES, start=False)
    system.service.stop()
    waiting = subprocess.Popen(
        [str(Path(sys.executable).parent / "farcall-endpoint"), "-c", str(endpoint.directory.parent)]
        + ["start", "patient"],
        env=system.commands.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert waiting.stdout is not None
        first = waiting.stdout.readline()
        while system.service.url not in first:  # it says that it waits, and for whom
            first = waiting.stdout.readline()
            assert first, "the endpoint gave up"
        system.service.start()
        line = waiting.stdout.readline()
        while "registered ID" not in line:
            assert line, "the endpoint gave up"
            line = waiting.stdout.readline()
        with Executor(endpoint_id=endpoint.id) as ex:
            assert still_works(ex)
    finally:
        waiting.terminate()
        waiting.wait(timeout=60)
    assert waiting.returncode == 0
