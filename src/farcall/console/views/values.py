"""Members of documents, taken as what they should be: some of them are what agents reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["mapping", "mappings", "number", "short_id", "text", "whole"]


def number(value: Any) -> float | None:  # a member of a JSON document
    """The value if it is a number that can be shown, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 2**53:
        return None
    return value


def whole(value: Any) -> int | None:  # a member of a JSON document
    """Likewise without what is behind the point."""
    known = number(value)
    return None if known is None else int(known)


def text(value: Any) -> str | None:  # a member of a JSON document
    """The value if it is a text with something in it, else None."""
    return value if isinstance(value, str) and value else None


def mapping(value: Any) -> Mapping[str, Any]:  # a member of a JSON document
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:  # a member of a JSON document
    """The objects in an array; none if it is none."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def short_id(value: Any) -> str | None:  # a member of a JSON document
    """The end of an id, enough to tell two lines of a table apart: the beginning of ours is the time. The whole one
    belongs behind it."""
    known = text(value)
    return None if known is None else known[-8:]
