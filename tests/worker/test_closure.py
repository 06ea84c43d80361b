"""What a compute node loads: nothing of other people's but dill, nothing of ours but what runs the task."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROBE = "import {}, sys, json; print(json.dumps(sorted(sys.modules)))"


def loaded_by(imports: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(imports)], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


BARE = loaded_by("json")  # the probe itself loads json, and so does the wire
TASK = """
from farcall.serialize import ComputeSerializer
s = ComputeSerializer()
from farcall.worker.run import run_task
from farcall.worker.task import WorkerTask
def f(x): return x
run_task(WorkerTask("00000000-0000-4000-8000-000000000007",
                    s.pack_buffers([s.serialize(f), s.serialize((1,)), s.serialize({})])))
import json"""


@pytest.mark.parametrize("imports", ["farcall.worker.run", "farcall.worker.shell, farcall.worker.mpi"])
def test_a_worker_loads_the_standard_library_and_dill_and_three_parts_of_ours(
    imports: str, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded, dill = loaded_by(imports) - BARE, loaded_by("dill") - BARE
    strangers = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"farcall", "dill"}
    assert {name for name in strangers if not name.startswith("__")} == set()
    ours = {name.split(".")[1] for name in loaded if name.startswith("farcall.")}
    assert ours <= {"wire", "serialize", "worker"}
    beside = {name for name in loaded - dill if not name.startswith("farcall")}
    with capsys.disabled():
        print(f"\n{imports}: {len(loaded)} modules; dill alone: {len(dill)}; of the standard library beside: {beside}")


def test_what_is_dear_waits_until_it_is_needed() -> None:
    loaded = loaded_by("farcall.worker.run, farcall.worker.shell")
    assert not {"dill", "subprocess", "asyncio", "inspect_", "platform", "ctypes", "tempfile", "httpx"} & loaded


def test_running_a_task_adds_only_dill() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TASK + ", sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    strangers = {name.partition(".")[0] for name in json.loads(done.stdout)} - set(sys.stdlib_module_names)
    site = {name.partition(".")[0] for name in BARE}
    assert strangers - site <= {"farcall", "dill", "__mp_main__"}
