"""The other ecosystem's packages read our results and run our tasks. See tests/serialize/test_official.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from farcall import ShellFunction
from farcall.serialize import AllCodeStrategies, ComputeSerializer, JSONData, PureSourceTextInspect
from farcall.wire.messages import Task, pack_message
from farcall.worker.run import run_task
from official import official_python

from .conftest import TASK_ID, make_task, opened

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def official() -> str:
    """An interpreter with the packages."""
    return str(official_python())


READ = """
import json, sys
from globus_compute_common import messagepack
from globus_compute_sdk.serialize import ComputeSerializer
read = []
for text in json.load(sys.stdin):
    message = messagepack.unpack(text.encode())
    error = message.error_details
    value = ComputeSerializer().deserialize(message.data) if error is None else None
    shown = getattr(value, "stdout", value)
    read.append([str(message.task_id), shown, error and error.code, len(message.task_statuses)])
print(json.dumps(read))
"""

RUN = """
import json, sys, uuid
try:
    from globus_compute_endpoint.engines.helper import execute_task
except ImportError:
    print("null"); sys.exit()
tid = uuid.UUID(int=7)
print(json.dumps([execute_task(text.encode(), tid, run_dir=sys.argv[1]).decode() for text in json.load(sys.stdin)]))
"""


def ask(official: str, script: str, texts: list[str], directory: Path) -> Any:
    done = subprocess.run(
        [official, "-c", script, str(directory)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def triple(n: int) -> int:
    return 3 * n


def fail() -> None:
    raise ValueError("no")


def test_our_results_are_read_there(official: str, tmp_path: Path) -> None:
    tasks = [make_task(len, "abc"), make_task(divmod, 1, 0), make_task(ShellFunction("echo hi"))]
    messages = [run_task(task._replace(working_dir=str(tmp_path))).decode() for task in tasks]
    assert ask(official, READ, messages, tmp_path) == [
        [TASK_ID, 3, None, 2],
        [TASK_ID, None, "RemoteExecutionError", 2],
        [TASK_ID, "hi\n", None, 2],
    ]


def test_our_tasks_are_run_there(official: str, tmp_path: Path) -> None:
    source = ComputeSerializer(PureSourceTextInspect, JSONData)
    tasks = [
        make_task(len, "abc"),
        make_task(triple, 7, options={"serializer": source}),
        make_task(triple, 7, options={"serializer": ComputeSerializer(AllCodeStrategies)}),
        make_task(ShellFunction("echo {x}"), x=5),
        make_task(fail, options={"serializer": source}),
    ]
    messages = [pack_message(Task(task_id=TASK_ID, task_buffer=task.task_buffer)).decode() for task in tasks]
    answers = ask(official, RUN, messages, tmp_path)
    if answers is None:
        pytest.skip("that interpreter has no globus-compute-endpoint")
    results = [opened(answer.encode()) for answer in answers]
    assert [result.is_error for result in results] == [False, False, False, False, True]
    values = [ComputeSerializer().deserialize(result.data) for result in results[:4]]
    assert values[:3] == [3, 21, 21]
    assert values[3].stdout == "5\n"
    assert "ValueError: no" in results[4].data
