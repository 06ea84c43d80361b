"""What the agent reads from its task queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farcall.endpoint.agent.intake import CancelWish, Incoming, Unreadable, read_delivery, read_task
from farcall.wire.errors import MessageError
from farcall.wire.messages import Result, Task, TaskCancel, pack_message
from farcall.wire.topology import task_headers

TASK = "11111111-2222-4333-8444-555555555555"
FUNCTION = "aaaaaaaa-2222-4333-8444-555555555555"


def body(buffer: str = "6\n11\n[7]", task_id: str = TASK) -> bytes:
    return pack_message(Task(task_id=task_id, task_buffer=buffer))


def headers(**extra: Any) -> dict[str, Any]:
    return {**task_headers(task_id=TASK, function_id=FUNCTION), **extra}


def test_a_task_is_read_with_everything_in_its_headers_and_again_from_what_is_kept() -> None:
    sent = task_headers(
        task_id=TASK,
        function_id=FUNCTION,
        resource_specification={"num_nodes": 2},
        result_serializers=["a.B", "c.D"],
        python_version="3.11",
    )
    item = read_delivery({**sent, "x-other": object()}, body(), "token")
    assert isinstance(item, Incoming)
    task = item.task
    assert (task.task_id, task.function_id, task.task_buffer) == (TASK, FUNCTION, "6\n11\n[7]")
    assert task.resource_specification == {"num_nodes": 2}
    assert task.result_serializers == ("a.B", "c.D")
    assert task.python_version == "3.11"
    assert item.token == "token"
    assert read_task(item.headers, item.body) == task


def test_absent_optional_headers_mean_nothing_special() -> None:
    item = read_delivery(headers(resource_specification="null", result_serializers=None), body())
    assert isinstance(item, Incoming)
    assert item.task.resource_specification == {}
    assert item.task.result_serializers == ()
    assert item.task.python_version is None


def test_text_that_has_no_utf8_form_is_kept() -> None:
    item = read_delivery(headers(), body("\udcff lone"))
    assert isinstance(item, Incoming)
    assert read_task(item.headers, item.body).task_buffer == "\udcff lone"


def test_a_wish_to_cancel_needs_no_headers() -> None:
    assert read_delivery({}, pack_message(TaskCancel(task_id=TASK)), 1) == CancelWish(task_id=TASK, token=1)


@pytest.mark.parametrize(
    ("given", "message", "task_id", "part"),
    [
        ({}, b"", None, "version byte"),
        (headers(), b"\x02{}", TASK, "version byte"),
        (headers(), b"\x01{", TASK, "not JSON"),
        (headers(), b'\x01{"message_type":"x","data":{}}', TASK, "unknown message type"),
        (headers(), pack_message(Result(task_id=TASK, data="")), TASK, "is no task"),
        ({"function_uuid": FUNCTION}, body(), TASK, "task_uuid"),
        ({"task_uuid": TASK}, body(), TASK, "function_uuid"),
        ({"task_uuid": "no-uuid", "function_uuid": FUNCTION}, body(), TASK, "task_uuid"),
        (headers(task_uuid=FUNCTION), body(), TASK, "the message says"),
        (headers(resource_specification="{"), body(), TASK, "resource_specification"),
        (headers(resource_specification="[1]"), body(), TASK, "resource_specification"),
        (headers(result_serializers="a.B"), body(), TASK, "result_serializers"),
        (headers(result_serializers=[1]), body(), TASK, "result_serializers"),
    ],
)
def test_what_is_no_task_says_why_and_of_which_task_if_that_can_be_read(
    given: dict[str, Any], message: bytes, task_id: str | None, part: str
) -> None:
    item = read_delivery(given, message, "token")
    assert isinstance(item, Unreadable)
    assert item.task_id == task_id
    assert part in item.reason
    assert item.token == "token"


@pytest.mark.parametrize("kept", ["", "[]", "{", json.dumps({"task_uuid": TASK})])
def test_what_was_kept_and_is_damaged_raises(kept: str) -> None:
    with pytest.raises(MessageError):
        read_task(kept, body())
