"""What is written down while it happens, by those to whom it happens, and read when all is over.

Two kinds of files, one JSON object or one row a line, each line one `write` to a file opened for appending: nothing
that was written is lost with its writer, and a line that a kill tore apart is the last one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Execution", "Recorder", "read_executions", "read_records"]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A call has begun on a worker.

    Attributes:
        began_s: of the machine's monotonic clock, which all processes share.
    """

    call: str
    endpoint: str
    pid: int
    began_s: float


def read_executions(path: Path) -> list[Execution]:
    """In the order in which they began."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        call, endpoint, pid, began_ns = line.split()
        found.append(Execution(call=call, endpoint=endpoint, pid=int(pid), began_s=int(began_ns) / 1e9))
    return sorted(found, key=lambda each: each.began_s)


class Recorder:
    """Appends records to a file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: str, **members: Any) -> None:
        os.write(self._fd, json.dumps({"kind": kind, **members}).encode() + b"\n")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """All whole records of a file; none if there is no file."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
