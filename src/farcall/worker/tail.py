"""The last lines of a file, read from its end: a command may have written gigabytes."""

from __future__ import annotations

import os
import stat

__all__ = ["last_lines"]

_BLOCK_BYTES = 64 * 1024


def last_lines(path: str, count: int, *, start: int = 0, limit_bytes: int) -> str:
    """The last `count` lines of a file, as text.

    Args:
        path: a regular file; of anything else (a terminal, /dev/null, a pipe) nothing is read.
        count: lines; a last one without newline counts as one. 0 gives "".
        start: byte at which to begin: what stood in the file before is not considered.
        limit_bytes: read no more than this from the end, even if the lines are longer.

    Returns:
        Decoded as UTF-8; bytes that are none are shown as U+FFFD.
    """
    if count <= 0:
        return ""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return ""
        start = max(start, status.st_size - limit_bytes)
        blocks: list[bytes] = []
        at, newlines = status.st_size, 0
        while at > start and newlines <= count:
            step = min(_BLOCK_BYTES, at - start)
            at -= step
            file.seek(at)
            blocks.append(file.read(step))
            newlines += blocks[-1].count(b"\n")
    text = b"".join(reversed(blocks))
    return _last(text, count).decode("utf-8", "replace")


def _last(text: bytes, count: int) -> bytes:
    at = len(text) - 1 if text.endswith(b"\n") else len(text)
    for _ in range(count):
        at = text.rfind(b"\n", 0, at)
        if at < 0:
            return text
    return text[at + 1 :]
