"""`farcall-globus-shim`: scripts of the other ecosystem run on our implementation, and never beside the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farcall.testing.processes import EndpointProcess, ProcessSystem
from official import FAMILY, answers_of, programs, value_of

SHIM = Path(__file__).parents[2] / "shims" / "src"
NAMES = """
from globus_compute_sdk import Client, Executor, MPIFunction, ShellFunction, ShellResult
from globus_compute_sdk.errors import ComputeError, MaxResultSizeExceeded, SerdeError, TaskExecutionFailed, TaskPending
from globus_compute_sdk.errors.error_types import DeserializationError, SerializationError, VersionMismatch
from globus_compute_sdk.sdk.batch import Batch
from globus_compute_sdk.sdk.client import Client
from globus_compute_sdk.sdk.executor import ComputeFuture, Executor
from globus_compute_sdk.sdk.mpi_function import MPIFunction
from globus_compute_sdk.sdk.shell_function import ShellFunction, ShellResult
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, SerializationStrategy
from globus_compute_sdk.serialize.concretes import DillDataBase64, JSONData
from globus_compute_sdk.serialize.facade import ComputeSerializer
import farcall
assert Executor is farcall.Executor
"""


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(SHIM), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **(env or {}), "PYTHONPATH": path}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


def test_the_names_of_the_other_ecosystem_are_there() -> None:
    done = run(sys.executable, "-c", NAMES)
    assert done.returncode == 0, done.stderr


def test_a_script_runs_unchanged(shared_system: ProcessSystem, endpoint: EndpointProcess) -> None:
    names = ("submit", "registered_function", "client_calls", "exceptions", "shell", "strategies", "look")
    calls = [(name, {"endpoint": endpoint.id}) for name in names]
    answers = answers_of(run(sys.executable, *programs(FAMILY, calls), env=shared_system.commands.env))
    assert [each["name"] for each in answers if value_of(each)] == list(names)


def test_the_commands_are_ours(shared_system: ProcessSystem) -> None:
    for name in ("endpoint", "diagnostic"):
        call = f"import sys; sys.argv[0] = 'gce'; from farcall_globus_shim import commands; commands.{name}()"
        done = run(sys.executable, "-c", call, "--help", env=shared_system.commands.env)
        assert done.returncode == 0, done.stderr
        assert "endpoints" in done.stdout


@pytest.mark.parametrize("name", ["globus-compute-sdk", "globus-compute-endpoint"])
def test_it_refuses_to_be_beside_the_real_packages_and_says_why(tmp_path: Path, name: str) -> None:
    installed = tmp_path / f"{name.replace('-', '_')}-4.19.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.19.0\n")
    path = os.pathsep.join([str(SHIM), str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for call in ("import globus_compute_sdk", "from farcall_globus_shim.commands import endpoint as e; e()"):
        done = subprocess.run(
            [sys.executable, "-c", call], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert f"beside {name}" in done.stderr


def test_pip_refuses_to_build_it_for_an_environment_that_has_them(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling, which builds it, is not installed")
    assert build
    hook = SHIM.parent / "hatch_build.py"
    (tmp_path / "globus_compute_sdk-4.19.0.dist-info").mkdir()
    (tmp_path / "globus_compute_sdk-4.19.0.dist-info" / "METADATA").write_text("Name: globus-compute-sdk\n")
    call = (
        "import runpy, sysconfig\n"
        f"sysconfig.get_paths = lambda: dict.fromkeys(('purelib', 'platlib'), {str(tmp_path)!r})\n"
        f"hook = runpy.run_path({str(hook)!r})['Refusal']\n"
        "hook.initialize(None, 'standard', {})\n"
    )
    done = run(sys.executable, "-c", call)
    assert done.returncode == 1
    assert "beside globus-compute-sdk" in done.stderr
