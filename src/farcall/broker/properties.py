"""Properties of a message (AMQP basic class): the value, and its form on the wire.

Every property block that comes from a client is decoded here once, before anybody else sees it, so a block that
reaches a consumer is well-formed. Hand-written because it is on the way of each message: pamqp takes 5 µs for two
headers, this half of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Final

__all__ = ["NO_PROPERTIES", "Properties", "decode_properties", "encode_properties", "read_fields", "short_string"]

_MAX_DEPTH: Final = 32
"""Nesting of tables in tables. Nobody means more, and a recursion must end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Properties:
    """Properties of one message; None means absent.

    Attributes:
        delivery_mode: 2 persistent (kept for the consumer's eyes; this broker keeps everything in memory).
        expiration: milliseconds as decimal text; the message is dropped if it reaches the head of a queue later.
        timestamp: seconds since 1970, UTC.
        user_id: if given by a client, must be its login name.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


NO_PROPERTIES: Final = Properties()

_HEADERS: Final = 0x2000
# In the order in which they lie on the wire: flag, name, kind (s: short string, t: table, o: octet, q: 64 bits).
_FIELDS: Final = (
    (0x8000, "content_type", "s"),
    (0x4000, "content_encoding", "s"),
    (_HEADERS, "headers", "t"),
    (0x1000, "delivery_mode", "o"),
    (0x0800, "priority", "o"),
    (0x0400, "correlation_id", "s"),
    (0x0200, "reply_to", "s"),
    (0x0100, "expiration", "s"),
    (0x0080, "message_id", "s"),
    (0x0040, "timestamp", "q"),
    (0x0020, "type", "s"),
    (0x0010, "user_id", "s"),
    (0x0008, "app_id", "s"),
    (0x0004, "cluster_id", "s"),
)
_DELIVERY_MODE_ONLY: Final = {
    b"\x10\x00\x01": Properties(delivery_mode=1),
    b"\x10\x00\x02": Properties(delivery_mode=2),
}

_FIELDS_OF_DELIVERY_MODE: Final[Mapping[bytes, Mapping[str, Any]]] = {
    b"\x00\x00": {},
    b"\x10\x00\x01": {"delivery_mode": 1},
    b"\x10\x00\x02": {"delivery_mode": 2},
}

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_FIXED: Final = {  # table value kind → layout
    ord("b"): struct.Struct(">b"),
    ord("B"): struct.Struct(">B"),
    ord("s"): struct.Struct(">h"),
    ord("U"): struct.Struct(">h"),
    ord("u"): struct.Struct(">H"),
    ord("I"): struct.Struct(">i"),
    ord("i"): struct.Struct(">I"),
    ord("l"): struct.Struct(">q"),
    ord("L"): struct.Struct(">q"),
    ord("f"): struct.Struct(">f"),
    ord("d"): struct.Struct(">d"),
}


def decode_properties(raw: bytes) -> Properties:
    """Read a property block: flags, then the values that they announce. Raises ValueError as `read_fields`."""
    if not raw:
        return NO_PROPERTIES
    return _DELIVERY_MODE_ONLY.get(raw) or Properties(**read_fields(raw))


def read_fields(raw: bytes) -> Mapping[str, Any]:
    """As `decode_properties`, but only those that are there, by name: a third of the time.

    Raises:
        ValueError: truncated, too long, or not what the flags say.
    """
    known = _FIELDS_OF_DELIVERY_MODE.get(raw)
    if known is not None:
        return known
    try:
        (flags,) = _U16.unpack_from(raw, 0)
        values, at = _decode_fields(flags, raw)
    except (struct.error, IndexError) as exc:
        raise ValueError("property block is truncated") from exc
    if flags & 0x0003 or at != len(raw):
        raise ValueError("property block does not match its flags")
    return values


def encode_properties(properties: Properties) -> bytes:
    """The wire form of `properties`.

    Raises:
        TypeError: a header value of a type that AMQP cannot carry.
        ValueError: a text or number too long for its field.
    """
    flags = 0
    parts = [b""]
    for flag, name, kind in _FIELDS:
        value = getattr(properties, name)
        if value is None or (flag == _HEADERS and not value):
            continue
        flags |= flag
        if kind == "s":
            parts.append(short_string(value))
        elif kind == "t":
            parts.append(_encode_table(value))
        elif kind == "o":
            parts.append(bytes((value,)))
        else:
            parts.append(_pack(_U64, value))
    parts[0] = _U16.pack(flags)
    return b"".join(parts)


def short_string(text: str) -> bytes:
    """Length octet and UTF-8.

    Raises:
        ValueError: more than 255 bytes.
    """
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"text of {len(data)} bytes where AMQP allows 255: {text[:40]!r}…")
    return bytes((len(data),)) + data


def _decode_fields(flags: int, raw: bytes) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    at = 2
    for flag, name, kind in _FIELDS:
        if not flags & flag:
            continue
        if kind == "s":
            end = at + 1 + raw[at]
            values[name] = _text(raw, at + 1, end)
            at = end
        elif kind == "t":
            values[name], at = _decode_table(raw, at, 0)
        elif kind == "o":
            values[name] = raw[at]
            at += 1
        else:
            (values[name],) = _U64.unpack_from(raw, at)
            at += 8
    return values, at


def _text(raw: bytes, start: int, end: int) -> str:
    if end > len(raw):
        raise ValueError("text runs past the end of its block")
    return raw[start:end].decode()


def _decode_table(raw: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    (size,) = _U32.unpack_from(raw, at)
    at += 4
    end = at + size
    if end > len(raw) or depth > _MAX_DEPTH:
        raise ValueError("table is truncated or nested too deeply")
    table: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + raw[at]
        name = _text(raw, start, at)
        if raw[at] == 83:  # "S", by far the most frequent
            (length,) = _U32.unpack_from(raw, at + 1)
            start = at + 5
            at = start + length
            if at > end:
                raise ValueError("text runs past the end of its table")
            table[name] = _long_text(raw[start:at])
        else:
            table[name], at = _decode_value(raw, at, depth)
    if at != end:
        raise ValueError("table does not end where it says")
    return table, end


def _long_text(data: bytes) -> str | bytes:
    """A long string is any bytes; what is not UTF-8 stays bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _decode_value(raw: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = raw[at]
    at += 1
    layout = _FIXED.get(kind)
    if layout is not None:
        return layout.unpack_from(raw, at)[0], at + layout.size
    if kind == 0x46:  # F
        return _decode_table(raw, at, depth + 1)
    if kind == 0x41:  # A
        return _decode_array(raw, at, depth + 1)
    if kind == 0x74:  # t
        return raw[at] != 0, at + 1
    if kind == 0x56:  # V
        return None, at
    if kind == 0x54:  # T
        return _moment(_U64.unpack_from(raw, at)[0]), at + 8
    if kind == 0x44:  # D
        scale, (number,) = raw[at], struct.unpack_from(">i", raw, at + 1)
        return Decimal(number).scaleb(-scale), at + 5
    if kind in (0x53, 0x78):  # S (inside an array), x
        (length,) = _U32.unpack_from(raw, at)
        end = at + 4 + length
        if end > len(raw):
            raise ValueError("text runs past the end of its block")
        data = raw[at + 4 : end]
        return (_long_text(data) if kind == 0x53 else data), end
    raise ValueError(f"unknown kind of table value: {kind:#x}")


def _moment(seconds: int) -> datetime | int:
    """Some send milliseconds; what is no date of this era stays a number."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return seconds


def _decode_array(raw: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    (size,) = _U32.unpack_from(raw, at)
    at += 4
    end = at + size
    if end > len(raw) or depth > _MAX_DEPTH:
        raise ValueError("array is truncated or nested too deeply")
    values = []
    while at < end:
        value, at = _decode_value(raw, at, depth)
        values.append(value)
    if at != end:
        raise ValueError("array does not end where it says")
    return values, end


def _encode_table(table: Mapping[str, Any]) -> bytes:
    parts = [b""]
    for name, value in table.items():
        parts.append(short_string(name))
        parts.append(_encode_value(value))
    body = b"".join(parts)
    return _U32.pack(len(body)) + body


def _encode_value(value: Any) -> bytes:  # Any: what a header may hold is decided by these very branches
    if isinstance(value, str):
        data = value.encode()
        return b"S" + _U32.pack(len(data)) + data
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return (
            b"l" + _pack(_FIXED[ord("l")], value) if not -(2**31) <= value < 2**31 else b"I" + struct.pack(">i", value)
        )
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    if value is None:
        return b"V"
    if isinstance(value, Mapping):
        return b"F" + _encode_table(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"x" + _U32.pack(len(value)) + bytes(value)
    if isinstance(value, datetime):
        return b"T" + _U64.pack(int(value.timestamp()))
    if isinstance(value, Decimal):
        return _encode_decimal(value)
    if isinstance(value, Sequence):
        body = b"".join(map(_encode_value, value))
        return b"A" + _U32.pack(len(body)) + body
    raise TypeError(f"AMQP cannot carry a header of type {type(value).__name__}")


def _encode_decimal(value: Decimal) -> bytes:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"AMQP cannot carry {value} as a decimal")
    scale = max(0, -exponent)
    if scale > 255:
        raise ValueError(f"AMQP cannot carry {value} as a decimal")
    return b"D" + bytes((scale,)) + _pack(struct.Struct(">i"), int(value.scaleb(scale)))


def _pack(layout: struct.Struct, number: int) -> bytes:
    try:
        return layout.pack(number)
    except struct.error as exc:
        raise ValueError(f"number out of range: {number}") from exc
