"""Length framing of serialized values: how several texts become one and come apart again.

Owns the frame only; what the texts mean is `farcall.serialize`'s. Source: wire protocol, payloads, framing.
"""

from __future__ import annotations

from collections.abc import Iterable

from farcall.wire.errors import FramingError

__all__ = ["pack_buffers", "unpack_buffers"]

_MAX_LENGTH_DIGITS = 12


def pack_buffers(buffers: Iterable[str]) -> str:
    """Join texts as `<length>\\n<text>` each, nothing in between.

    The length counts characters (code points), not bytes: the official clients do so too.
    """
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def unpack_buffers(text: str) -> list[str]:
    """Undo `pack_buffers`.

    Raises:
        FramingError: a length is missing, negative or no number, or the text ends early.
    """
    buffers: list[str] = []
    at, end = 0, len(text)
    while at < end:
        newline = text.find("\n", at, at + _MAX_LENGTH_DIGITS + 1)
        digits = text[at:newline] if newline >= 0 else ""
        if not (digits.isascii() and digits.isdigit()):
            raise FramingError(f"no frame length at character {at} of a buffer of {end} characters")
        start = newline + 1
        at = start + int(digits)
        if at > end:
            raise FramingError(f"a frame of {digits} characters starts at {start}, but the buffer has only {end}")
        buffers.append(text[start:at])
    return buffers
