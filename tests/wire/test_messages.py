import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.wire.errors import MessageError
from farcall.wire.messages import (
    EndpointStatusReport,
    ErrorDetails,
    Result,
    Task,
    TaskCancel,
    TaskTransition,
    is_uuid_text,
    pack_message,
    unpack_message,
)

VECTORS = Path(__file__).parents[2] / "conformance" / "messages" / "official.json"
OFFICIAL = json.loads(VECTORS.read_text())["vectors"]
TASK_ID = "11111111-2222-4333-8444-555555555555"


def without_empty(data: dict[str, Any]) -> dict[str, Any]:
    """Null, [] and absent mean the same for an optional member; which one is written is each family's habit."""
    return {key: value for key, value in data.items() if value not in (None, [], {})}


@pytest.mark.parametrize("vector", OFFICIAL, ids=lambda v: f"{v['type']}-{len(v['bytes'])}")
def test_a_message_of_the_official_package_means_the_same_to_us(vector: dict[str, Any]) -> None:
    message = unpack_message(vector["bytes"].encode("latin-1"))
    assert message.message_type == vector["type"]
    assert without_empty(message.to_data()) == without_empty(vector["data"])


@pytest.mark.parametrize("vector", [v for v in OFFICIAL if v["type"] in ("task", "task_cancel", "ep_status_report")])
def test_our_bytes_of_the_same_message_are_the_official_bytes(vector: dict[str, Any]) -> None:
    official = vector["bytes"].encode("latin-1")
    assert pack_message(unpack_message(official)) == official


texts = st.text(max_size=200)
uuids = st.uuids().map(str)
transitions = st.builds(
    TaskTransition, timestamp=st.integers(0, 2**62), state=st.sampled_from(["running", "success"]), actor=texts
)
messages = st.one_of(
    st.builds(Task, task_id=uuids, task_buffer=texts),
    st.builds(
        Result,
        task_id=uuids,
        data=texts,
        details=st.none() | st.dictionaries(texts, texts | st.integers(), max_size=3),
        error_details=st.none() | st.builds(ErrorDetails, code=texts, user_message=texts),
        task_statuses=st.lists(transitions, max_size=3).map(tuple),
    ),
    st.builds(
        EndpointStatusReport,
        endpoint_id=uuids,
        global_state=st.dictionaries(texts, st.floats(allow_nan=False) | st.booleans(), max_size=3),
        task_statuses=st.dictionaries(uuids, st.lists(transitions, max_size=2).map(tuple), max_size=2),
    ),
    st.builds(TaskCancel, task_id=uuids),
)


@given(messages)
def test_what_is_packed_is_read_back_equal_and_stays_on_one_line(message: Any) -> None:
    packed = pack_message(message)
    assert b"\n" not in packed
    assert unpack_message(packed) == message


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else_is_raised(body: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_message(body)


def test_a_text_with_a_lone_surrogate_travels() -> None:
    task = Task(task_id=TASK_ID, task_buffer="name \udcff of a file")
    assert unpack_message(pack_message(task)) == task


def test_members_we_do_not_know_are_ignored() -> None:
    body = b'\x01{"message_type":"task_cancel","extra":1,"data":{"task_id":"%s","new":[1]}}' % TASK_ID.encode()
    assert unpack_message(body) == TaskCancel(task_id=TASK_ID)


@pytest.mark.parametrize(
    ("data", "member"),
    [
        ({"task_id": "no uuid", "data": ""}, "task_id"),
        ({"task_id": TASK_ID}, "data"),
        ({"task_id": TASK_ID, "data": "", "error_details": "text"}, "error_details"),
        ({"task_id": TASK_ID, "data": "", "details": [1]}, "details"),
        (
            {"task_id": TASK_ID, "data": "", "task_statuses": [{"timestamp": 1.5, "state": "", "actor": ""}]},
            "timestamp",
        ),
        (
            {"task_id": TASK_ID, "data": "", "task_statuses": [{"timestamp": True, "state": "", "actor": ""}]},
            "timestamp",
        ),
    ],
)
def test_a_wrong_member_is_named(data: dict[str, Any], member: str) -> None:
    body = b"\x01" + json.dumps({"message_type": "result", "data": data}).encode()
    with pytest.raises(MessageError, match=member):
        unpack_message(body)


def test_only_canonical_uuids_count() -> None:
    assert is_uuid_text(TASK_ID)
    assert not is_uuid_text(TASK_ID.replace("-", "") + "----")
    assert not is_uuid_text("94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c")  # 13 digits at the end, as on a slide
