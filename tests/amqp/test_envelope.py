"""Our encoding of publishes is what pika reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from farcall.amqp.envelope import Envelopes, OutMessage, frames_of

FRAME_MAX = 4096


def decode(stream: bytes) -> list[frame.Frame]:
    frames = []
    while stream:
        consumed, decoded = frame.decode_frame(stream)
        assert consumed, "an incomplete frame"
        frames.append(decoded)
        stream = stream[consumed:]
    return frames


def read(pieces: list[bytes], channel: int) -> list[tuple[spec.Basic.Publish, spec.BasicProperties, bytes]]:
    """The messages in these pieces; each piece must hold whole frames."""
    messages: list[tuple[spec.Basic.Publish, spec.BasicProperties, bytes]] = []
    size = 0
    for each in [decoded for piece in pieces for decoded in decode(piece)]:
        assert each.channel_number == channel
        if isinstance(each, frame.Method):
            messages.append((each.method, spec.BasicProperties(), b""))
        elif isinstance(each, frame.Header):
            size = each.body_size
            messages[-1] = (messages[-1][0], each.properties, b"")
        else:
            assert isinstance(each, frame.Body)
            assert 0 < len(each.fragment) <= FRAME_MAX - 8
            messages[-1] = (*messages[-1][:2], messages[-1][2] + each.fragment)
        assert not isinstance(each, frame.Body) or len(messages[-1][2]) <= size
    return messages


SIZES = [0, 1, 4087, 4088, 4089, 8176, 8177, 70_000]


@given(st.lists(st.sampled_from(SIZES), max_size=12), st.integers(1, 65535))
def test_messages_of_any_size_come_out_as_they_went_in(sizes: list[int], channel: int) -> None:
    envelope = Envelopes().of({"exchange": "results", "routing_key": "e.results", "mandatory": True})
    bodies = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    pieces = frames_of(channel, [OutMessage(body, envelope, None) for body in bodies], frame_max_bytes=FRAME_MAX)
    messages = read(pieces, channel)
    assert [body for _, _, body in messages] == bodies
    for method, _, _ in messages:
        assert (method.exchange, method.routing_key, method.mandatory) == ("results", "e.results", True)


def test_properties_pass_verbatim() -> None:
    properties = {"delivery_mode": 2, "timestamp": 1_700_000_000, "headers": {"a": [1, "x"], "b": True}}
    envelope = Envelopes().of({"exchange": "x", "routing_key": "k", "properties": properties})
    ((method, read_back, _),) = read(frames_of(1, [OutMessage(b"b", envelope, None)], frame_max_bytes=FRAME_MAX), 1)
    assert method.mandatory is False
    assert {k: v for k, v in vars(read_back).items() if v is not None} == properties


def test_many_small_messages_leave_in_few_pieces() -> None:
    envelope = Envelopes().of({"exchange": "x", "routing_key": "k"})
    pieces = frames_of(1, [OutMessage(b"b" * 300, envelope, None)] * 1000, frame_max_bytes=131072)
    assert len(pieces) < 10


def test_equal_arguments_share_an_envelope_and_changed_ones_do_not() -> None:
    envelopes = Envelopes()
    kwargs = {"exchange": "x", "routing_key": "k", "mandatory": True, "properties": {"delivery_mode": 2}}
    first = envelopes.of(kwargs)
    assert envelopes.of(dict(kwargs)) is first
    assert envelopes.of({**kwargs, "mandatory": False}).mandatory is False
    kwargs["properties"] = {"delivery_mode": 1}
    assert envelopes.of(kwargs).properties == {"delivery_mode": 1}
    for number in range(1000):
        assert envelopes.of({**kwargs, "routing_key": str(number)}).routing_key == str(number)


def test_a_table_of_headers_is_encoded_anew_each_time() -> None:
    envelopes, headers = Envelopes(), {"n": 1}
    kwargs = {"exchange": "x", "routing_key": "k", "properties": {"headers": headers}}
    first = envelopes.of(kwargs).properties_bytes
    headers["n"] = 2
    assert envelopes.of(kwargs).properties_bytes != first


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"mandatory": "yes"}, "mandatory"),
        ({"routing_key": None}, "routing_key"),
        ({"properties": [1]}, "properties"),
        ({"properties": {"priority": "high"}}, "properties"),
        ({"exchange": "x" * 256}, "255 bytes"),
        ({"exchanges": "x"}, "'exchanges'.*allowed are exchange, mandatory"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, object], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        Envelopes().of({"exchange": "x", "routing_key": "k", **kwargs})
