"""A message's publish arguments, checked once and encoded as AMQP frames.

pika encodes each message anew, in three pieces that it sends one by one. The arguments of one publisher are nearly
always the same, so here their bytes are made once; a batch of messages then leaves in one write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Envelope", "Envelopes", "OutMessage", "frames_of"]

_MEMBERS = frozenset({"exchange", "routing_key", "mandatory", "properties"})
# AMQP 0-9-1, 4.2.3: type, channel, size, payload, end. Types of frames, and the class of basic content.
_FRAME = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_OVERHEAD_BYTES = _FRAME.size + 1
_CONTENT = struct.Struct(">HHQ")
_BASIC = 60
_WRITE_BYTES = 64 * 1024
"""Small messages are joined up to about this size for one write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """Where a message goes, and with which properties.

    Attributes:
        method: the encoded `basic.publish`, without a frame around it.
        properties_bytes: the encoded properties of the content header.
    """

    exchange: str
    routing_key: str
    mandatory: bool
    properties: Mapping[str, Any]
    method: bytes = field(repr=False)
    properties_bytes: bytes = field(repr=False)


class OutMessage:
    """One message to be sent; `on_done` is kept for the publisher."""

    __slots__ = ("body", "envelope", "on_done")

    def __init__(self, body: bytes, envelope: Envelope, on_done: Any) -> None:
        self.body = body
        self.envelope = envelope
        self.on_done = on_done


class Envelopes:
    """Envelopes by publish arguments; the recent ones are kept."""

    _LIMIT = 64

    def __init__(self) -> None:
        self._known: dict[object, Envelope] = {}

    def of(self, kwargs: Mapping[str, Any]) -> Envelope:
        """The envelope for `queue_publish_kwargs`. Threads may call this at the same time.

        Raises:
            TypeError, ValueError: a member is missing, unknown or of the wrong type; names it.
        """
        properties = kwargs.get("properties") or {}
        key = (
            kwargs.get("exchange", ""),
            kwargs.get("routing_key", ""),
            kwargs.get("mandatory", False),
            tuple(properties.items()) if isinstance(properties, Mapping) else None,
            len(kwargs),
        )
        try:
            known = self._known.get(key)
        except TypeError:  # headers are a table, which is not hashable
            return _envelope(kwargs)
        if known is None:
            known = _envelope(kwargs)
            if len(self._known) >= self._LIMIT:
                self._known.clear()
            self._known[key] = known
        return known


def _envelope(kwargs: Mapping[str, Any]) -> Envelope:
    unknown = sorted(set(kwargs) - _MEMBERS)
    if unknown:
        raise ValueError(f"Unknown publish argument {unknown[0]!r}; allowed are {', '.join(sorted(_MEMBERS))}.")
    exchange, routing_key = kwargs.get("exchange", ""), kwargs.get("routing_key", "")
    mandatory = kwargs.get("mandatory", False)
    properties = kwargs.get("properties") or {}
    for name, value, kind in (
        ("exchange", exchange, str),
        ("routing_key", routing_key, str),
        ("mandatory", mandatory, bool),
        ("properties", properties, Mapping),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"Publish argument {name!r} must be {kind.__name__}, got {type(value).__name__}.")
    return Envelope(
        exchange=exchange,
        routing_key=routing_key,
        mandatory=mandatory,
        properties=dict(properties),
        method=_method_bytes(exchange, routing_key, mandatory),
        properties_bytes=_property_bytes(properties),
    )


# pika is imported when it is needed: it takes a tenth of a second, which `import farcall` need not pay.


def _method_bytes(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    from pika import exceptions, spec

    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    try:
        return struct.pack(">I", method.INDEX) + b"".join(method.encode())
    except exceptions.ShortStringTooLong as exc:
        raise ValueError("Publish arguments 'exchange' and 'routing_key' are limited to 255 bytes each.") from exc


def _property_bytes(properties: Mapping[str, Any]) -> bytes:
    from pika import spec

    try:
        return b"".join(spec.BasicProperties(**properties).encode())
    except Exception as exc:  # pika raises whatever the wrong value happens to cause, assertions included
        raise ValueError(f"Publish argument 'properties' cannot be sent as AMQP basic properties: {exc!r}") from exc


def frames_of(channel_number: int, messages: Iterable[OutMessage], *, frame_max_bytes: int) -> list[bytes]:
    """Encode messages as frames, small ones joined.

    Args:
        channel_number: of the channel that sends them.
        messages: in order.
        frame_max_bytes: negotiated limit of one frame.

    Returns:
        Pieces of the byte stream, in order; each is a whole number of frames.
    """
    body_limit = frame_max_bytes - _OVERHEAD_BYTES
    pieces: list[bytes] = []
    joined: list[bytes | memoryview] = []
    joined_bytes = 0
    pack, pack_content = _FRAME.pack, _CONTENT.pack
    for message in messages:
        envelope, body = message.envelope, message.body
        size = len(body)
        method, properties = envelope.method, envelope.properties_bytes
        joined += (
            pack(_METHOD, channel_number, len(method)),
            method,
            _END,
            pack(_HEADER, channel_number, _CONTENT.size + len(properties)),
            pack_content(_BASIC, 0, size),
            properties,
            _END,
        )
        if 0 < size <= body_limit and size <= _WRITE_BYTES:
            joined += (pack(_BODY, channel_number, size), body, _END)
        elif size:
            view = memoryview(body)
            for start in range(0, size, body_limit):
                part = view[start : start + body_limit]
                joined += (pack(_BODY, channel_number, len(part)), part, _END)
                pieces.append(b"".join(joined))
                joined.clear()
            joined_bytes = 0
            continue
        joined_bytes += size + 100
        if joined_bytes >= _WRITE_BYTES:
            pieces.append(b"".join(joined))
            joined.clear()
            joined_bytes = 0
    if joined:
        pieces.append(b"".join(joined))
    return pieces
