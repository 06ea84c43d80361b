"""What is said on a line comes out as it went in; what makes no sense harms nobody who reads it."""

from __future__ import annotations

import json

import pytest

from farcall.endpoint.manager.allowance import AUDIT_LINES_PER_S, BURST_S, MESSAGES_PER_S, Allowance
from farcall.endpoint.manager.line import (
    FRAME_LIMIT_BYTES,
    USER_FRAME_LIMIT_BYTES,
    AuditLine,
    Begin,
    CredentialRefused,
    Failed,
    Frames,
    LineFault,
    Message,
    Order,
    Rendered,
    State,
    pack,
    unpack,
)
from farcall.endpoint.templates.pieces import OUTPUT_LIMIT

MESSAGES: list[Message] = [
    Order(name="uep.x", user_endpoint_id="x", manager_name="m", local_user=None, template="a: {{ b }}", schema=[1]),
    Begin(user_endpoint_id="x", queues={"a": {"b": 1}}, allowed_functions=("f",), amqp_port=443),
    Failed(step="home", text="Grüße", status=86, detail="/root"),
    State(phase="online", running=3, idle_until_unix=1.5),
    CredentialRefused(reason="no"),
]


def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
    data, frames = b"".join(map(pack, MESSAGES)), Frames()
    assert [each for byte in data for each in frames.take(bytes([byte]))] == MESSAGES
    assert list(Frames().take(data)) == MESSAGES


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"kind": ["state"]}',
        b'{"kind": "order of the day"}',
        b'{"kind": "state"}',
        b'{"kind": "state", "phase": null}',
        b'{"kind": "state", "phase": "on\\u001b[2Jline"}',
        b'{"kind": "state", "phase": ["online"]}',
        b'{"kind": "state", "phase": "online", "running": "3"}',
        b'{"kind": "state", "phase": "online", "running": true}',
        b'{"kind": "state", "phase": "online", "running": 1e300}',
        b'{"kind": "state", "phase": "online", "idle_until_unix": 1e999}',
        b'{"kind": "state", "phase": "online", "idle_until_unix": NaN}',
        b'{"kind": "audit_line", "text": {}}',
        b'{"kind": "begin", "user_endpoint_id": "x", "queues": []}',
        b'{"kind": "begin", "user_endpoint_id": "x", "queues": {}, "allowed_functions": "abc"}',
    ],
)
def test_what_makes_no_sense_is_a_fault_and_nothing_else(body: bytes) -> None:
    with pytest.raises(LineFault):
        unpack(body)


def test_what_no_log_can_write_is_replaced_and_what_is_not_known_is_left_out() -> None:
    body = json.dumps({"kind": "audit_line", "text": "a\ud800b", "later": 1}).encode()
    assert unpack(body) == AuditLine(text="a?b")


def test_what_people_read_is_cut_to_a_length_that_they_can() -> None:
    long = "x" * 100_000
    body = {"kind": "failed", "step": long, "text": long, "status": 1, "detail": long}
    found = unpack(json.dumps(body).encode())
    assert isinstance(found, Failed)
    assert (len(found.step), len(found.text), len(found.detail)) == (64, 8_192, 16_384)
    assert unpack(pack(AuditLine(text=long))[4:]) == AuditLine(text="x" * 512)
    assert unpack(pack(CredentialRefused(reason=long))[4:]) == CredentialRefused(reason="x" * 1_024)


def test_a_users_frames_are_short_but_hold_the_longest_configuration_that_a_template_makes() -> None:
    longest = pack(Rendered(config="\U0001f600" * OUTPUT_LIMIT))
    frames = Frames(limit_bytes=USER_FRAME_LIMIT_BYTES)
    (found,) = frames.take(longest)
    assert isinstance(found, Rendered)
    assert len(found.config) == OUTPUT_LIMIT
    with pytest.raises(LineFault, match="limit"):
        list(frames.take((USER_FRAME_LIMIT_BYTES + 1).to_bytes(4, "big")))


def test_who_says_more_than_an_agent_can_is_at_fault_and_who_says_as_much_is_not() -> None:
    for message, per_s in ((AuditLine(text=""), AUDIT_LINES_PER_S), (State(phase="online"), MESSAGES_PER_S)):
        allowance, at_once = Allowance(), int(per_s * BURST_S)
        for _ in range(at_once):
            allowance.take(message, 7.0)
        with pytest.raises(LineFault):
            allowance.take(message, 7.0)
        for n in range(at_once):
            allowance.take(message, 8.0 + n * 1.01 / per_s)


def test_what_is_no_json_is_not_sent() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(LineFault):
        pack(Order(name="x", user_endpoint_id="x", manager_name="m", local_user=None, template="", schema=deep))


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(LineFault):
        list(Frames().take((FRAME_LIMIT_BYTES + 1).to_bytes(4, "big")))
    with pytest.raises(LineFault):
        pack(AuditLine(text="x" * FRAME_LIMIT_BYTES))
