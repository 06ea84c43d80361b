"""The source text of a function, as far as it can be had without unpickling anything. Decides only.

Some serialization strategies carry source as plain text in a frame; pickles stay closed, whatever is in them. Of those
there may be what the registrant told beside them: a claim, and marked as one. Source: wire protocol, payloads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from farcall.wire.errors import FramingError
from farcall.wire.framing import unpack_buffers

__all__ = ["SOURCE_MEMBER", "Source", "Versions", "source_of", "versions_of"]

SOURCE_MEMBER: Final = "source"
"""Ours: the member of a registration's `meta` in which our clients send the text of what they pickle."""

_AS_TEXT: Final = ("st\n", "sd\n")
_PICKLED: Final = ("01\n", "02\n", "03\n", "04\n")
_LIMIT_CHARS: Final = 256 * 1024
_VERSION_LIMIT_CHARS: Final = 100
_RUNS: Final = "This text is what runs."
_ONE_OF: Final = "One of several forms in which the function was registered; a worker runs the first that it can read."
_CLOSED: Final = (
    "The code is pickled, and this service opens no pickles; the client that registered it did not send its text along."
)
_TOLD: Final = "As the client that registered it told. What runs is pickled, and this service opens no pickles."
_CUT: Final = " Only its beginning is shown."


@dataclass(frozen=True, slots=True)
class Source:
    """A function's text, if it can be had, and what to know about it."""

    text: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Versions:
    """What a function was registered with, as its client told."""

    python: str | None
    sdk: str | None
    dill: str | None


def source_of(code: str, metadata: Mapping[str, Any], *, is_protected: bool) -> Source:
    """The text of a function.

    Args:
        code: as it is stored: one framed buffer.
        metadata: what was told with it.
        is_protected: it is one for high assurance, whose contents are shown to nobody here.
    """
    if is_protected:
        return Source(None, "This function is for high assurance; what it contains is not shown.")
    chunks = list(_chunks(code))
    for chunk in chunks:
        if chunk.startswith(_AS_TEXT):
            return _shown(chunk[3:].partition(":")[2], _RUNS if len(chunks) == 1 else _ONE_OF)
    told = metadata.get(SOURCE_MEMBER)
    if isinstance(told, str) and told:
        return _shown(told, _TOLD)
    return Source(None, _CLOSED if chunks else "The code is in a form that this service does not know.")


def versions_of(metadata: Mapping[str, Any]) -> Versions:
    """The versions that a registration names."""

    def told(name: str) -> str | None:
        value = metadata.get(name)
        return value[:_VERSION_LIMIT_CHARS] if isinstance(value, str) else None

    return Versions(told("python_version"), told("sdk_version"), told("dill_version"))


def _shown(text: str, note: str) -> Source:
    return Source(text[:_LIMIT_CHARS], note + _CUT) if len(text) > _LIMIT_CHARS else Source(text, note)


def _chunks(code: str) -> Iterator[str]:
    """The values in a function's buffer, of combinations each part; what has no known shape is left out."""
    try:
        for buffer in unpack_buffers(code):
            if buffer.startswith("12\n"):
                yield from unpack_buffers(buffer[3:])
            elif buffer.startswith("10\n"):
                yield from _old_combination(buffer[3:])
            elif buffer.startswith((*_AS_TEXT, *_PICKLED)):
                yield buffer
    except FramingError:
        return


def _old_combination(body: str) -> Iterator[str]:
    """Identifier, colon, text, colon, … Base64 has no colon, source may: what is source comes last."""
    while len(body) > 4:
        head, body = body[:3], body[4:]
        if head in _AS_TEXT:
            end = body.find("\n:st\n:")
            text, body = (body, "") if end < 0 else (body[: end + 1], body[end + 2 :])
        else:
            text, _, body = body.partition(":")
        yield head + text
