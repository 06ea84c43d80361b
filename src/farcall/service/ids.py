"""New ids. Those of tasks and groups begin with the time, so that rows that are made together lie together.

An index over random ids touches a different page for each row; over these it grows at its end. They are UUIDs of
version 7 (RFC 9562) and say nothing that the task document does not say.
"""

from __future__ import annotations

import os
import time
import uuid

from farcall.wire.errors import InvalidRequest

__all__ = ["canonical_uuid", "new_id", "new_ids"]


def new_ids(count: int) -> list[str]:
    """`count` new ids in canonical text form, in ascending order within one millisecond's precision."""
    stamp = (time.time_ns() // 1_000_000).to_bytes(6, "big").hex()
    head = f"{stamp[:8]}-{stamp[8:]}-7"
    noise = os.urandom(10 * count).hex()
    ids = []
    for at in range(0, 20 * count, 20):
        text = noise[at : at + 20]
        variant = "89ab"[int(text[3], 16) & 3]
        ids.append(f"{head}{text[:3]}-{variant}{text[4:7]}-{text[7:19]}")
    return ids


def new_id() -> str:
    """One new id in canonical text form."""
    return new_ids(1)[0]


def canonical_uuid(text: str, what: str) -> str:
    """A UUID that a caller gave, as canonical lower-case text.

    Args:
        what: how the error names it, for example "endpoint id" or "member 'task_group_id'".

    Raises:
        InvalidRequest: it is no UUID.
    """
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        try:
            return str(uuid.UUID(text))
        except ValueError:
            pass
    shown = text if len(text) <= 64 else text[:61] + "..."
    raise InvalidRequest(
        f"{what} is not a UUID: {shown!r}. A UUID has 36 characters, like 01890a5d-ac96-774b-bcce-b302099a8057."
    )
