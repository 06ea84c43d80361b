"""SQL of usage: counted where tasks end, read by whoever may (`rules`)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from farcall.service.db.sql import Insert
from farcall.service.db.tables import usage
from farcall.service.relay.results import TaskRef
from farcall.service.usage.rules import add_up
from farcall.wire.states import TaskState

__all__ = ["count_ends"]


def count_ends(conn: Connection, ends: Sequence[tuple[TaskRef, TaskState, float]], now: float) -> None:
    """Count tasks that end now: each with its final state, and how long a worker says that it ran (s)."""
    counted = add_up(ends, now=now)
    _COUNT.run(
        conn,
        [
            (*key, each.succeeded, each.failed, each.cancelled, each.run_s, now)
            for key, each in sorted(counted.items(), key=lambda item: item[0])
        ],
    )


_KEY = ("day", "owner_id", "endpoint_id", "function_id")
_SUMS = ("succeeded", "failed", "cancelled", "run_s")
_COUNT = Insert(
    usage,
    (*_KEY, *_SUMS, "last_at"),
    f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in _SUMS)
    + ", last_at = excluded.last_at",
)
