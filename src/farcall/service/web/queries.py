"""Query parameters, read strictly: what cannot be understood is refused, and the message names the parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeVar

from starlette.requests import Request

from farcall.service.ids import canonical_uuid
from farcall.wire.errors import InvalidRequest

__all__ = ["choice_in", "choices_in", "flag_in", "number_in", "page_in", "text_in", "time_in", "uuid_in"]

T = TypeVar("T", bound=str)
_TEXT_LIMIT_CHARS: Final = 256
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_MOST_DIGITS: Final = 18


def text_in(request: Request, name: str) -> str | None:
    """A text to search for; None if it is absent or empty. Raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is not None and ("\0" in text or len(text) > _TEXT_LIMIT_CHARS):
        raise InvalidRequest(f"query parameter '{name}' must have at most {_TEXT_LIMIT_CHARS} characters, without NUL.")
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
