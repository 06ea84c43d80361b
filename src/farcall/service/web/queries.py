"""Query parameters, read strictly: what cannot be meant is refused with its name. Absent and empty are the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from farcall.service.ids import canonical_uuid
from farcall.wire.errors import InvalidRequest

__all__ = ["CURSOR", "boolean", "choices", "limit", "one_of", "text", "time", "uuid", "whole"]

CURSOR: Final = "cursor"
_TEXT_LIMIT_CHARS: Final = 256
_LATEST: Final = 1e12
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}

Query = Mapping[str, str]
T = TypeVar("T", bound=str)


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


def time(query: Query, name: str) -> float | None:
    """A time in Unix seconds; None if there is none. Raises InvalidRequest."""
    found = query.get(name)
    if not found:
        return None
    try:
        at = float(found)
    except ValueError:
        at = math.nan
    if not 0 <= at < _LATEST:
        raise InvalidRequest(f"query parameter '{name}' must be a time in Unix seconds, not {found[:40]!r}.")
    return at


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
    flag = _FLAGS.get(found.lower())
    if flag is None:
        raise InvalidRequest(f"query parameter '{name}' must be 'true' or 'false', not {found[:40]!r}.")
    return flag


def one_of(query: Query, name: str, allowed: Sequence[T], default: T) -> T:
    """One of a few words. Raises InvalidRequest."""
    found = query.get(name) or default
    for each in allowed:
        if each == found:
            return each
    raise InvalidRequest(f"query parameter '{name}' must be one of {', '.join(allowed)}, not {found[:40]!r}.")


def choices(query: Query, name: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Some of a few words, with commas between them, each once, in the order given. Raises InvalidRequest."""
    found = [each.strip() for each in query.get(name, "").split(",")]
    wanted = tuple(dict.fromkeys(each for each in found if each))
    unknown = [each for each in wanted if each not in allowed]
    if unknown:
        raise InvalidRequest(
            f"query parameter '{name}' may name {', '.join(allowed)} (several with commas), not {unknown[0][:40]!r}."
        )
    return wanted
