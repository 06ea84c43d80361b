"""Rules for names that people choose."""

from __future__ import annotations

import re
from uuid import UUID

from farcall.wire.limits import ENDPOINT_NAME_LIMIT_CHARS

__all__ = ["endpoint_name_fault"]

_FORBIDDEN = re.compile(r"[\s/\\'\"]")


def endpoint_name_fault(name: str) -> str | None:
    """Why `name` cannot be an endpoint's name (it is also a directory's), or None if it can.

    Source: feature table, command line: at most 128 characters, no blanks, slashes, quotes or leading dot
    or dash (it would be taken for an option), and not a UUID (commands take a name or an id in the same place).
    """
    if not name:
        return "an endpoint's name must not be empty"
    if len(name) > ENDPOINT_NAME_LIMIT_CHARS:
        return f"an endpoint's name has at most {ENDPOINT_NAME_LIMIT_CHARS} characters, this one has {len(name)}"
    if name.startswith("."):
        return f"an endpoint's name must not start with a dot: {name!r}"
    if name.startswith("-"):
        return f"an endpoint's name must not start with a dash: {name!r}"
    if not name.isprintable() or _FORBIDDEN.search(name):
        return f"an endpoint's name must not contain blanks, slashes, quotes or control characters: {name!r}"
    try:
        UUID(name)
    except ValueError:
        return None
    return f"an endpoint's name must not be a UUID: {name!r}"
