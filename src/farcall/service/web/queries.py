"""Query parameters, read strictly, and the cursors of listings: where a page ended, as an opaque text."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from farcall.service.ids import canonical_uuid
from farcall.wire.errors import InvalidRequest

__all__ = [
    "choice_in",
    "choices_in",
    "uuid_in",
    "flag_in",
    "number_in",
    "time_in",
    "page_in",
    "text_in",
    "CURSOR",
    "boolean",
    "choices",
    "cursor_from_text",
    "cursor_text",
    "limit",
    "number",
    "one_of",
    "page_parameters",
    "text",
    "uuid",
    "whole",
]

CURSOR: Final = "cursor"
_CURSOR_LIMIT_CHARS: Final = 200
_TEXT_LIMIT_CHARS: Final = 200
_LARGEST: Final = 1e12

Query = Mapping[str, str]


def text(query: Query, name: str) -> str | None:
    """A text that is not empty; None if there is none. Raises InvalidRequest."""
    found = query.get(name)
    if found is not None and (len(found) > _TEXT_LIMIT_CHARS or "\0" in found):
        raise InvalidRequest(f"query parameter '{name}' may have at most {_TEXT_LIMIT_CHARS} characters, without NUL.")
    return found or None


def uuid(query: Query, name: str) -> str | None:
    """An id in canonical form. Raises InvalidRequest."""
    found = query.get(name)
    return canonical_uuid(found, f"query parameter '{name}'") if found else None


def number(query: Query, name: str) -> float | None:
    """A number, for times Unix seconds. Raises InvalidRequest."""
    found = query.get(name)
    if not found:
        return None
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not abs(value) < _LARGEST:
        raise InvalidRequest(f"query parameter '{name}' must be a number (times: Unix seconds), not {found[:40]!r}.")
    return value


def limit(query: Query, *, default: int, largest: int) -> int:
    """How many entries a page may have. Raises InvalidRequest."""
    return whole(query, "limit", default=default, least=1, most=largest)


def whole(query: Query, name: str, *, default: int, least: int = 0, most: int) -> int:
    """A whole number. Raises InvalidRequest."""
    found = query.get(name)
    if not found:
        return default
    if not (found.isascii() and found.isdigit() and len(found) < 19 and least <= int(found) <= most):
        raise InvalidRequest(
            f"query parameter '{name}' must be a whole number from {least} to {most}, not {found[:40]!r}."
        )
    return int(found)


def boolean(query: Query, name: str) -> bool | None:
    """`true` or `false`. Raises InvalidRequest."""
    found = query.get(name)
    if not found:
        return None
    if found not in ("true", "false"):
        raise InvalidRequest(f"query parameter '{name}' must be 'true' or 'false', not {found[:40]!r}.")
    return found == "true"


def one_of(query: Query, name: str, allowed: Sequence[str], default: str) -> str:
    """One of a few words. Raises InvalidRequest."""
    found = query.get(name) or default
    if found not in allowed:
        raise InvalidRequest(f"query parameter '{name}' must be one of {', '.join(allowed)}, not {found[:40]!r}.")
    return found


def choices(query: Query, name: str, allowed: Sequence[str]) -> list[str]:
    """Some of a few words, with commas between them, each once, in the order given. Raises InvalidRequest."""
    found = [each.strip() for each in query.get(name, "").split(",")]
    wanted = list(dict.fromkeys(each for each in found if each))
    unknown = [each for each in wanted if each not in allowed]
    if unknown:
        raise InvalidRequest(
            f"query parameter '{name}' may name {', '.join(allowed)} (several with commas), not {unknown[0][:40]!r}."
        )
    return wanted


def cursor_text(*position: Any) -> str:
    """A position as a text for clients, who should not look into it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def cursor_from_text(query: Query, *kinds: type) -> tuple[Any, ...] | None:
    """The position that a page ended at; None: the beginning.

    Args:
        kinds: of what `cursor_text` was given.

    Raises:
        InvalidRequest: that is no cursor of this listing.
    """
    found = query.get(CURSOR)
    if not found:
        return None
    try:
        if len(found) > _CURSOR_LIMIT_CHARS:
            raise ValueError("too long")
        padded = found + "=" * (-len(found) % 4)
        position: tuple[Any, ...] = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=tuple[kinds])  # type: ignore[valid-type]
    except (ValueError, binascii.Error, msgspec.MsgspecError, UnicodeError) as exc:
        raise InvalidRequest(
            "query parameter 'cursor' must be the 'next_cursor' of an answer to the same question."
        ) from exc
    if any(isinstance(each, (int, float)) and not abs(each) < 2**62 for each in position) or any(
        isinstance(each, str) and "\0" in each for each in position
    ):
        raise InvalidRequest("query parameter 'cursor' must be the 'next_cursor' of an answer to the same question.")
    return position


def page_parameters(largest: int, default: int) -> list[dict[str, Any]]:
    """The description of `limit` and `cursor`, for `openapi.described`."""
    return [
        {
            "name": "limit",
            "in": "query",
            "description": "entries in an answer, at most",
            "schema": {"type": "integer", "minimum": 1, "maximum": largest, "default": default},
        },
        {
            "name": CURSOR,
            "in": "query",
            "description": "`next_cursor` of the answer before; the end is where it is null, not where a page is short",
            "schema": {"type": "string"},
        },
    ]


T = TypeVar("T", bound=str)
_WORDS_LIMIT_CHARS: Final = 256
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_MOST_DIGITS: Final = 18


def text_in(request: Request, name: str) -> str | None:
    """A text to search for; None if it is absent or empty. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is not None and ("\0" in text or len(text) > _WORDS_LIMIT_CHARS):
        raise InvalidRequest(f"query parameter '{name}' must have at most {_WORDS_LIMIT_CHARS} characters, no NUL.")
    return text or None


def choice_in(request: Request, name: str, choices: Sequence[T]) -> T | None:
    """One of `choices`; None if it is absent. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return None
    for choice in choices:
        if text == choice:
            return choice
    raise InvalidRequest(f"query parameter '{name}' must be {' or '.join(map(repr, choices))}, not {text[:40]!r}.")


def choices_in(request: Request, name: str, choices: Sequence[str]) -> tuple[str, ...]:
    """Some of `choices`, with commas between them, each once, in the order given. Raises InvalidRequest."""
    found = [each.strip() for each in request.query_params.get(name, "").split(",")]
    wanted = tuple(dict.fromkeys(each for each in found if each))
    unknown = [each for each in wanted if each not in choices]
    if unknown:
        raise InvalidRequest(
            f"query parameter '{name}' may name {', '.join(choices)} (several with commas), not {unknown[0][:40]!r}."
        )
    return wanted


def uuid_in(request: Request, name: str) -> str | None:
    """An id in canonical form; None if it is absent or empty. Raises InvalidRequest."""
    text = request.query_params.get(name)
    return canonical_uuid(text, f"query parameter '{name}'") if text else None


def flag_in(request: Request, name: str) -> bool | None:
    """Yes or no; None if it is absent. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return None
    found = _FLAGS.get(text.lower())
    if found is None:
        raise InvalidRequest(f"query parameter '{name}' must be 'true' or 'false', not {text[:40]!r}.")
    return found


def number_in(request: Request, name: str, *, default: int, least: int = 0, most: int) -> int:
    """A whole number. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if not is_number or not least <= int(text) <= most:
        raise InvalidRequest(
            f"query parameter '{name}' must be a whole number from {least} to {most}, not {text[:40]!r}."
        )
    return int(text)


def time_in(request: Request, name: str) -> float | None:
    """A time in Unix seconds; None if it is absent. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        at = float(text)
    except ValueError:
        at = math.nan
    if not 0 <= at < 1e12:
        raise InvalidRequest(f"query parameter '{name}' must be a time in Unix seconds, not {text[:40]!r}.")
    return at


def page_in(request: Request, *, default: int, most: int) -> tuple[int, str | None]:
    """`limit` and `cursor` of a list that comes in pages. Raises InvalidRequest."""
    return number_in(request, "limit", default=default, least=1, most=most), text_in(request, "cursor")
