from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.service.relay.results import (
    MALFORMED_RESULT,
    Accepted,
    Dropped,
    ParsedResult,
    Reason,
    TaskRef,
    Unreadable,
    decide,
    failure_result,
    parse_result,
    result_message,
)
from farcall.wire.messages import ErrorDetails, Result, TaskTransition, pack_message, unpack_message
from farcall.wire.states import TaskState

TASK = "11111111-2222-4333-8444-555555555555"
ENDPOINT = "99999999-2222-4333-8444-555555555555"
SENDER = f"{ENDPOINT}.results"
TRANSITIONS = (
    TaskTransition(timestamp=1_500_000_000, state="execution-start", actor="worker"),
    TaskTransition(timestamp=2_250_000_000, state="execution-end", actor="worker"),
)


def raw(**members: object) -> bytes:
    document = {"task_id": TASK, "data": "x", **members}
    return b"\x01" + json.dumps({"message_type": "result", "data": document}).encode()


def ref(state: TaskState = TaskState.RECEIVED, task_id: str = TASK, seq: int = 1) -> TaskRef:
    return TaskRef(seq, task_id, "group", "owner", ENDPOINT, state)


def test_a_success_keeps_its_value_and_its_body_as_they_came() -> None:
    body = pack_message(Result(task_id=TASK, data="00\nabc\n", details={"os": "Linux"}, task_statuses=TRANSITIONS))
    parsed = parse_result(body, SENDER)
    assert isinstance(parsed, ParsedResult)
    assert (parsed.state, parsed.data, parsed.body) == (TaskState.SUCCESS, "00\nabc\n", body)
    assert json.loads(parsed.details_json or "") == {"os": "Linux"}
    assert json.loads(parsed.transitions_json or "") == {"execution-start": 1.5, "execution-end": 2.25}


def test_a_failure_has_its_code_and_text() -> None:
    body = pack_message(Result(task_id=TASK, data="trace", error_details=ErrorDetails(code="E", user_message="why")))
    parsed = parse_result(body, SENDER)
    assert isinstance(parsed, ParsedResult)
    assert (parsed.state, parsed.data, parsed.error_code, parsed.error_message) == (
        TaskState.FAILED,
        "trace",
        "E",
        "why",
    )


@pytest.mark.parametrize(
    "body",
    [
        raw(data=5),
        raw(details="text"),
        raw(error_details={"code": "E"}),
        raw(task_statuses=[{"timestamp": 1.5, "state": "s", "actor": "worker"}]),
        raw(data="a\0b"),
        raw(data="a\udc80b"),
        raw()[:-2].replace(b'"data": "x"', b'"data": "\xff"') + b"}}",
    ],
    ids=["data", "details", "error", "float-timestamp", "nul", "surrogate", "no-utf8"],
)
def test_a_result_that_cannot_be_read_ends_its_task_as_failed(body: bytes) -> None:
    parsed = parse_result(body, SENDER)
    assert isinstance(parsed, ParsedResult)
    assert parsed.task_id == TASK
    assert parsed.error_code == MALFORMED_RESULT
    assert parsed.sender == SENDER
    forwarded = unpack_message(parsed.body)
    assert isinstance(forwarded, Result)
    assert forwarded.is_error


@pytest.mark.parametrize(
    "body",
    [b"", b"\x02{}", b"\x01", b"\x01[]", b'\x01{"message_type":"result"}', raw(task_id="no"), raw(task_id=None)],
)
def test_a_message_without_a_task_is_unreadable(body: bytes) -> None:
    assert isinstance(parse_result(body, SENDER), Unreadable)


def test_another_type_of_message_is_unreadable() -> None:
    body = b"\x01" + json.dumps({"message_type": "task", "data": {"task_id": TASK, "data": "x"}}).encode()
    assert isinstance(parse_result(body, SENDER), Unreadable)


def test_the_traceback_of_a_path_that_is_not_utf8_is_stored_readably() -> None:
    parsed = parse_result(raw(data="no file \udcff\0", error_details={"code": "E", "user_message": "m"}), SENDER)
    assert isinstance(parsed, ParsedResult)
    assert parsed.error_code == "E"
    assert parsed.data == "no file ?\u2400"


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_raise(noise: bytes) -> None:
    parse_result(noise, SENDER)
    parse_result(b"\x01" + noise, SENDER)


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    nested = b"[" * 50_000
    assert parse_result(b'\x01{"message_type":"result","data":' + nested, SENDER)


def result(task_id: str = TASK, sender: str | None = SENDER) -> ParsedResult:
    return ParsedResult(sender=sender, body=b"", task_id=task_id, data="x")


def test_the_first_result_of_a_task_is_accepted_and_the_second_dropped() -> None:
    first, second = decide([result(), result()], {TASK: ref()})
    assert isinstance(first, Accepted)
    assert second == Dropped(result(), Reason.DUPLICATE, ref())


@pytest.mark.parametrize("state", [TaskState.SUCCESS, TaskState.FAILED, TaskState.CANCELLED])
def test_a_result_of_a_task_that_has_ended_is_dropped(state: TaskState) -> None:
    assert decide([result()], {TASK: ref(state)}) == [Dropped(result(), Reason.DUPLICATE, ref(state))]


def test_only_the_tasks_own_endpoint_may_end_it() -> None:
    stranger = result(sender="88888888-2222-4333-8444-555555555555.results")
    assert decide([stranger], {TASK: ref()}) == [Dropped(stranger, Reason.FOREIGN)]


def test_a_strangers_result_does_not_keep_the_true_one_out() -> None:
    stranger = result(sender="88888888-2222-4333-8444-555555555555.results")
    assert isinstance(decide([stranger, result()], {TASK: ref()})[1], Accepted)


def test_a_result_of_an_unknown_task_is_dropped() -> None:
    assert decide([result()], {}) == [Dropped(result(), Reason.UNKNOWN)]


def test_the_service_itself_may_end_any_task() -> None:
    verdicts = decide([failure_result(TASK, "TASK_EXPIRED", "too old")], {TASK: ref()})
    assert isinstance(verdicts[0], Accepted)


def test_a_message_made_again_says_what_the_first_one_said() -> None:
    again = unpack_message(result_message(TASK, "trace", "E", "why", '{"os":"Linux"}'))
    assert again == Result(
        task_id=TASK, data="trace", details={"os": "Linux"}, error_details=ErrorDetails(code="E", user_message="why")
    )
    assert unpack_message(result_message(TASK, "v", None, None, None)) == Result(task_id=TASK, data="v")


@pytest.mark.parametrize(
    "body",
    [
        b'\x01{"message_type":[],"data":{"task_id":"%s","data":"x"}}' % TASK.encode(),
        raw(task_id=TASK, data="x", task_statuses=5),
        raw(task_id=TASK, data="x", task_statuses=[{"timestamp": 10**400, "state": "running", "actor": "worker"}]),
        raw(task_id=TASK, data="x").replace(b'"data":"x"', b'"data":"x","details":{"a":"\xff"}'),
        b'\x01{"message_type":"result","data":{"task_id":{},"data":"x"}}',
        b"\x01[1]",
    ],
    ids=["type", "statuses", "timestamp", "bytes", "task-id", "list"],
)
def test_whatever_an_endpoint_sends_is_a_verdict_and_never_an_exception(body: bytes) -> None:
    parsed = parse_result(body, "x.results")
    assert isinstance(parsed, (ParsedResult, Unreadable))


@pytest.mark.parametrize("details", [b'{"a":1e999}', b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":Infinity}'])
def test_details_that_are_stored_can_be_read_again(details: bytes) -> None:
    body = raw(task_id=TASK, data="x").replace(b'"data":"x"', b'"data":"x","details":' + details)
    parsed = parse_result(body, "x.results")
    assert isinstance(parsed, ParsedResult)
    if parsed.details_json is not None:
        json.loads(parsed.details_json, parse_constant=pytest.fail)


def test_a_result_over_the_limit_ends_its_task_as_failed() -> None:
    parsed = parse_result(raw(task_id=TASK, data="00\n" + "A" * (11 * 1024 * 1024)), "x.results")
    assert isinstance(parsed, ParsedResult)
    assert parsed.error_code == "MaxResultSizeExceeded"
    assert parsed.sender == "x.results"
