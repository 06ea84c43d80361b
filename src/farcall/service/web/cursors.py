"""Cursors of listings: where a page ended, as a text that clients pass on and do not look into."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec

from farcall.wire.errors import InvalidRequest

__all__ = ["cursor_text", "page_parameters", "position_of"]

_LIMIT_CHARS: Final = 200
_LARGEST: Final = 2**62
_REFUSED: Final = "query parameter 'cursor' must be the 'next_cursor' of an answer to the same question."


def cursor_text(*position: Any) -> str:
    """A position as a text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def position_of(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The position that `cursor_text` made a cursor of; None: the beginning.

    Args:
        kinds: of the position's members.

    Raises:
        InvalidRequest: that is no cursor of this listing.
    """
    if not cursor:
        return None
    try:
        if len(cursor) > _LIMIT_CHARS:
            raise ValueError("too long")
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        shape: Any = tuple[kinds]  # type: ignore[valid-type]  # a type that is made here
        position: tuple[Any, ...] = msgspec.json.decode(text, type=shape)
    except (ValueError, binascii.Error, msgspec.MsgspecError, UnicodeError) as exc:
        raise InvalidRequest(_REFUSED) from exc
    for each in position:
        if "\0" in each if isinstance(each, str) else not abs(each) < _LARGEST:
            raise InvalidRequest(_REFUSED)
    return position


def page_parameters(*, default: int, most: int) -> list[dict[str, Any]]:
    """The description of `limit` and `cursor`, for `openapi.described`."""
    return [
        {
            "name": "limit",
            "in": "query",
            "description": "entries in an answer, at most",
            "schema": {"type": "integer", "minimum": 1, "maximum": most, "default": default},
        },
        {
            "name": "cursor",
            "in": "query",
            "description": "`next_cursor` of the answer before; the end is where it is null, not where a page is short",
            "schema": {"type": "string"},
        },
    ]
