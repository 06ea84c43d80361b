"""Version negotiation: what this release speaks, and whether a peer is new enough.

Only the release segment of a version counts (`4.19.0a1` is as good as `4.19.0`): minima are set on releases.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "API_VERSION",
    "MIN_ENDPOINT_VERSION",
    "MIN_SDK_VERSION",
    "is_at_least",
    "python_minor",
    "release_of",
]

API_VERSION: Final = "1.0.0"
MIN_SDK_VERSION: Final = "0.1.0"
"""Told to every client. Ours start at 0.1.0; the other family's count from 2, so its old releases pass too."""
MIN_ENDPOINT_VERSION: Final = "0.1.0"

_RELEASE = re.compile(r"\s*v?(\d+(?:\.\d+)*)")


def release_of(version: str) -> tuple[int, ...]:
    """The release segment, without trailing zeros: "4.19.0a1" → (4, 19).

    Raises:
        ValueError: the text does not start with a number.
    """
    match = _RELEASE.match(version)
    if match is None:
        raise ValueError(f"not a version: {version!r}")
    parts = [int(part) for part in match[1].split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def is_at_least(have: str, need: str) -> bool:
    """Whether version `have` is `need` or newer.

    Raises:
        ValueError: one of them is no version.
    """
    return release_of(have) >= release_of(need)


def python_minor(version: str) -> str | None:
    """`major.minor` of a Python version text ("3.11.7 (main, …)" → "3.11"); None if there is none."""
    match = re.match(r"\s*(\d+)\.(\d+)", version)
    return f"{match[1]}.{match[2]}" if match else None
