"""Our bytes in the other ecosystem's package and its bytes in ours, live. See tests/official.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from farcall import MPIFunction, ShellFunction, ShellResult
from farcall.serialize import ComputeSerializer
from official import official_python

SCRIPT = Path(__file__).parents[2] / "conformance" / "strategies" / "vectors.py"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def official() -> str:
    """An interpreter with the packages."""
    return str(official_python())


def run(python: str, *args: object, stdin: str = "") -> str:
    done = subprocess.run(
        [python, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("file", sorted(SCRIPT.parent.glob("*.json")), ids=lambda file: file.stem)
def test_recorded_vectors_are_understood_there(official: str, file: Path) -> None:
    assert run(official, SCRIPT, "check", "globus_compute_sdk", file) == "ok\n"


def test_what_we_write_now_is_understood_there(official: str, tmp_path: Path) -> None:
    run(sys.executable, SCRIPT, "write", "farcall", tmp_path / "ours.json")
    assert run(official, SCRIPT, "check", "globus_compute_sdk", tmp_path / "ours.json") == "ok\n"


def test_what_they_write_now_is_understood_here(official: str, tmp_path: Path) -> None:
    run(official, SCRIPT, "write", "globus_compute_sdk", tmp_path / "theirs.json")
    assert run(sys.executable, SCRIPT, "check", "farcall", tmp_path / "theirs.json") == "ok\n"


CALL_THERE = """
import json, os, sys
from globus_compute_sdk.serialize import ComputeSerializer
s = ComputeSerializer()
os.environ["GC_TASK_UUID"] = "t"
print(json.dumps([s.serialize(s.deserialize(text)(x="there")) for text in json.load(sys.stdin)]))
"""


def test_our_shell_functions_run_there_and_their_results_come_back_as_ours(official: str, tmp_path: Path) -> None:
    serializer = ComputeSerializer()
    functions = [
        ShellFunction("echo {x}; exit 3"),
        MPIFunction("echo {x}"),
        ShellFunction("echo {x}", return_dict=True),
    ]
    texts = json.dumps([serializer.serialize(function) for function in functions])
    done = subprocess.run(
        [official, "-c", CALL_THERE], input=texts, capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    shell, mpi, plain = [serializer.deserialize(text) for text in json.loads(done.stdout)]
    assert (type(shell), shell.stdout, shell.returncode) == (ShellResult, "there\n", 3)
    assert (type(mpi), mpi.cmd) == (ShellResult, "$PARSL_MPI_PREFIX echo there")
    assert plain["stdout"] == "there\n"
