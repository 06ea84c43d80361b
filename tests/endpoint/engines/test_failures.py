"""What errors of Parsl mean for a task, and what users read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from parsl.app.errors import RemoteExceptionWrapper
from parsl.executors.high_throughput.errors import ManagerLost, VersionMismatch, WorkerLost
from parsl.launchers import SingleNodeLauncher, SrunLauncher
from parsl.providers import LocalProvider, SlurmProvider
from parsl.serialize import serialize

from farcall.endpoint.engines.parsl.failures import blocks_failed, failure_of, load_exception
from farcall.endpoint.engines.parsl.launch import is_on_this_machine, own_addresses
from farcall.endpoint.engines.parsl.nodes import read_nodes
from farcall.endpoint.engines.texts import describe_exit


def sent(exc: BaseException) -> BaseException:
    """The exception, as it arrives from Parsl."""
    try:
        raise exc
    except BaseException:
        return load_exception(serialize(RemoteExceptionWrapper(*sys.exc_info())))


@pytest.mark.parametrize("exc", [WorkerLost(3, "node7"), ManagerLost(b"abc", "node7")])
def test_a_lost_worker_or_node_is_a_system_failure_that_names_the_node(exc: Exception) -> None:
    failure = failure_of(sent(exc), "/logs")
    assert failure.code == "WORKER_LOST"
    assert failure.is_system_failure
    assert "node7" in failure.text
    assert "/logs" in failure.text


def test_a_worker_without_farcall_says_what_to_install() -> None:
    failure = failure_of(sent(ModuleNotFoundError("No module named 'farcall'", name="farcall")), "/logs")
    assert not failure.is_system_failure
    assert not failure.may_have_run
    assert "worker_init" in failure.text


def test_any_other_error_is_shown_in_a_frame() -> None:
    failure = failure_of(sent(ValueError("odd")), "/logs")
    assert not failure.is_system_failure
    assert "ValueError: odd" in failure.text
    assert "+" * 68 in failure.text


def test_what_cannot_be_read_is_an_error_too() -> None:
    assert isinstance(load_exception(b"no such serializer\nx"), Exception)


def test_failed_blocks_are_told_in_the_jobs_own_words() -> None:
    assert "module: command not found" in blocks_failed(RuntimeError("module: command not found"), "/scripts")
    assert "/scripts" in blocks_failed(RuntimeError("x"), "/scripts")
    assert "py3.9" in blocks_failed(VersionMismatch("py3.11", "py3.9"), "/scripts")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_an_end_by_signal_names_it_with_a_hint(number: signal.Signals) -> None:
    process = subprocess.Popen(["sleep", "60"])
    os.kill(process.pid, number)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -number
    text = describe_exit(status)
    assert number.name in text
    assert ";" in text


def test_an_end_by_exit_code_names_it() -> None:
    assert "exit code 3" in describe_exit(3 << 8)


@pytest.mark.parametrize(
    ("provider", "container", "expected"),
    [
        (LocalProvider(), None, True),
        (LocalProvider(), "docker", False),
        (LocalProvider(launcher=SrunLauncher()), None, False),
        (LocalProvider(launcher=SingleNodeLauncher(), nodes_per_block=2), None, False),
        (SlurmProvider(), None, False),
    ],
)
def test_only_workers_of_this_very_machine_count_as_here(provider: Any, container: str | None, expected: bool) -> None:
    assert is_on_this_machine(SimpleNamespace(container_type=container), provider) is expected  # type: ignore[arg-type]


def test_addresses_for_nodes_are_found_without_asking_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    monkeypatch.setattr(requests, "get", lambda *a, **k: pytest.fail("asked a server"))
    assert "127.0.0.1" in own_addresses()


def test_nodes_are_counted_and_listed_by_job() -> None:
    manager = {
        "manager": "m1", "block_id": "0", "worker_count": 4, "tasks": 1, "idle_duration": 0.0, "active": True,
        "draining": False, "parsl_version": "p", "python_version": "3.11.7",
    }  # fmt: skip
    nodes = read_nodes([manager, {**manager, "manager": "m2", "active": False, "tasks": 5}], {"m1": "9.9"})
    assert (nodes.count, nodes.active, nodes.workers, nodes.idle_workers, nodes.tasks) == (2, 1, 4, 3, 6)
    info = nodes.info({"0": "job17"})
    assert list(info) == ["job17"]
    assert info["job17"][0]["endpoint_version"] == "9.9"
    assert info["job17"][0]["worker_count"] == 4
