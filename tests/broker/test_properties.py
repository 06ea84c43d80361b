"""Property blocks: read and written as pamqp does it, and nothing malformed gets through."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.header import ContentHeader

from farcall.broker.properties import (
    NO_PROPERTIES,
    Properties,
    decode_properties,
    encode_properties,
    read_fields,
    short_string,
)

texts = st.text(min_size=1, max_size=30)  # pamqp cuts names at 128 bytes
moments = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(timezone.utc))
plain = st.one_of(  # what pamqp agrees on: it writes floats in 32 bits
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(max_size=80),
    moments.map(lambda moment: moment.replace(microsecond=0)),
)
scalars = plain | st.floats(allow_nan=False) | st.integers(-(2**31), 2**31 - 1).map(lambda n: Decimal(n).scaleb(-2))


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
    return st.dictionaries(texts, values, max_size=5)


properties = st.builds(
    Properties,
    content_type=st.none() | texts,
    headers=nested(scalars),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | texts,
    expiration=st.none() | texts,
    message_id=st.none() | texts,
    timestamp=st.none() | st.integers(0, 2**33),
    type=st.none() | texts,
    app_id=st.none() | texts,
)


@given(properties)
def test_what_is_written_is_read_again(value: Properties) -> None:
    assert decode_properties(encode_properties(value)) == value


@given(st.builds(Properties, headers=nested(plain), priority=st.none() | st.integers(0, 255), app_id=st.none() | texts))
def test_pamqp_reads_what_is_written(value: Properties) -> None:
    raw = encode_properties(value)
    data = b"\x02\x00\x01" + (12 + len(raw)).to_bytes(4, "big") + b"\x00\x3c\x00\x00" + bytes(8) + raw + b"\xce"
    _, _, header = frame.unmarshal(data)
    got = header.properties
    assert (got.headers or {}) == value.headers
    assert (got.priority, got.app_id) == (value.priority, value.app_id)


@given(nested(plain), st.sampled_from([None, 1, 2]), st.none() | texts)
def test_what_pamqp_writes_is_read(headers: dict[str, Any], delivery_mode: int | None, app_id: str | None) -> None:
    sent = commands.Basic.Properties(headers=headers, delivery_mode=delivery_mode, app_id=app_id)
    raw = frame.marshal(ContentHeader(body_size=1, properties=sent), 1)[7 + 12 : -1]
    got = decode_properties(raw)
    assert (dict(got.headers), got.delivery_mode, got.app_id) == (headers, delivery_mode, app_id)


@given(properties, st.data())
def test_a_truncated_block_is_refused(value: Properties, data: st.DataObject) -> None:
    raw = encode_properties(value)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(ValueError):
        read_fields(raw[:cut])


@given(properties, st.binary(min_size=1, max_size=4))
def test_bytes_after_the_block_are_refused(value: Properties, more: bytes) -> None:
    with pytest.raises(ValueError):
        read_fields(encode_properties(value) + more)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        read_fields(raw)
    except ValueError:
        pass


def test_tables_cannot_be_nested_without_end() -> None:
    value: Any = "x"
    for _ in range(5000):
        inner = b"\x01kF" + len(value).to_bytes(4, "big") + value if isinstance(value, bytes) else b"\x01kt\x01"
        value = inner
    with pytest.raises(ValueError, match="nested"):
        read_fields(b"\x20\x00" + len(value).to_bytes(4, "big") + value)


def test_nothing_set_is_two_bytes() -> None:
    assert encode_properties(NO_PROPERTIES) == b"\x00\x00"
    assert decode_properties(b"\x00\x00") == NO_PROPERTIES
    assert asdict(decode_properties(b"\x10\x00\x02"))["delivery_mode"] == 2


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": {1, 2}}])
def test_a_header_that_amqp_cannot_carry_is_a_type_error(bad: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        encode_properties(Properties(headers=bad))


@pytest.mark.parametrize(
    "bad",
    [
        Properties(headers={"x": 2**63}),
        Properties(headers={"k" * 256: 1}),
        Properties(app_id="é" * 128),
        Properties(timestamp=-1),
        Properties(priority=256),
        Properties(headers={"x": Decimal("NaN")}),
    ],
)
def test_a_value_too_large_for_its_field_is_a_value_error(bad: Properties) -> None:
    with pytest.raises(ValueError):
        encode_properties(bad)


def test_text_that_is_not_utf8_stays_bytes() -> None:
    raw = b"\x20\x00" + b"\x00\x00\x00\x09" + b"\x01kS\x00\x00\x00\x02\xff\xfe"
    assert read_fields(raw) == {"headers": {"k": b"\xff\xfe"}}


def test_a_moment_out_of_range_stays_a_number() -> None:
    raw = b"\x20\x00" + b"\x00\x00\x00\x0b" + b"\x01kT" + (2**60).to_bytes(8, "big")
    assert read_fields(raw) == {"headers": {"k": 2**60}}


def test_a_short_string_has_at_most_255_bytes() -> None:
    assert short_string("a" * 255)[0] == 255
    with pytest.raises(ValueError):
        short_string("a" * 256)
