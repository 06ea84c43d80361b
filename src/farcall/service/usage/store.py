"""SQL of usage: counted where tasks end, read by whoever may (`rules`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from farcall.service.db.sql import Insert
from farcall.service.db.tables import usage
from farcall.service.relay.results import TaskRef
from farcall.service.usage.rules import add_up
from farcall.wire.states import TaskState

__all__ = ["Runs", "count_ends", "runs_of"]


@dataclass(frozen=True, slots=True)
class Runs:
    """How often something ran to an end, and when the last time (Unix seconds); None: never."""

    count: int
    last_at: float | None


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


def runs_of(conn: Connection, function_ids: Sequence[str], owner_ids: Collection[str] | None = None) -> dict[str, Runs]:
    """How often functions ran; those that never did are left out.

    Args:
        owner_ids: whose tasks count; None: everybody's.
    """
    if not function_ids:
        return {}
    count = func.sum(usage.c.succeeded + usage.c.failed + usage.c.cancelled)
    statement = (
        select(usage.c.function_id, count.label("runs"), func.max(usage.c.last_at).label("last_at"))
        .where(usage.c.function_id.in_(function_ids))
        .group_by(usage.c.function_id)
    )
    if owner_ids is not None:
        statement = statement.where(usage.c.owner_id.in_(sorted(owner_ids)))
    return {row.function_id: Runs(int(row.runs), row.last_at) for row in conn.execute(statement).all()}


_KEY = ("day", "owner_id", "endpoint_id", "function_id")
_SUMS = ("succeeded", "failed", "cancelled", "run_s")
_COUNT = Insert(
    usage,
    (*_KEY, *_SUMS, "last_at"),
    f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in _SUMS)
    + ", last_at = excluded.last_at",
)
