"""What stands beside the value in a worker's result: read and added to without reading the value. Pure.

A result is packed by the worker and passes through the agent as bytes, up to many megabytes of them. Its member
`details` is free for additions; ours here is `attempts`, which only the agent knows. Source: wire protocol, result.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Place", "place_of", "with_attempts"]

# As `wire.messages` packs it. A quotation mark within a text is preceded by a backslash, so no value contains this.
_DETAILS: Final = b'"details":{'
_NO_WORD: Final = re.compile(r"[^\w.:-]", re.ASCII)
_WORD_LIMIT_CHARS: Final = 64
_DETAILS_LIMIT_BYTES: Final = 256 * 1024  # an exception may be among them


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a task ran, as its worker says: number of the block, id of the batch job. "": it does not say."""

    block: str = ""
    job: str = ""


def with_attempts(packed: bytes, attempts: int) -> bytes:
    """The same result, with the number of times that its execution began; as it is if it has no details."""
    at = packed.rfind(_DETAILS)
    if at < 0:
        return packed
    at += len(_DETAILS)
    comma = b"" if packed[at : at + 1] == b"}" else b","
    return b"".join((packed[:at], b'"attempts":%d' % attempts, comma, packed[at:]))


def place_of(packed: bytes) -> Place:
    """Never raises: a user's process has written this. What does not fit into a word is replaced."""
    at = packed.rfind(_DETAILS)
    if at < 0:
        return Place()
    start = at + len(_DETAILS) - 1
    text = packed[start : start + _DETAILS_LIMIT_BYTES].decode(errors="replace")
    try:
        details: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return Place()
    return Place(block=_word(details.get("block")), job=_word(details.get("job")))


def _word(value: Any) -> str:
    return _NO_WORD.sub("_", value[:_WORD_LIMIT_CHARS]) if isinstance(value, str) else ""
