"""SQL of endpoints' history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from farcall.service.db.sql import chunks
from farcall.service.db.tables import endpoint_history
from farcall.service.history.rules import HOUR_S, MINUTE_S, Entry, hour_entry

__all__ = ["add_entries", "forget_hours", "read_entries", "roll_up"]

_IN_AT_ONCE = 500
_GAUGES = ("workers", "idle_workers", "outstanding", "pending")
_COUNTS = ("submitted", "succeeded", "failed")


def add_entries(conn: Connection, entries: Sequence[Entry]) -> None:
    """Add entries to what is there: counts add up (several processes count), of the rest the last word stays."""
    if not entries:
        return
    # Alike, but unrelated types.
    build: Any = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    statement = build(endpoint_history)
    new, old = statement.excluded, endpoint_history.c
    values = {name: getattr(old, name) + getattr(new, name) for name in _COUNTS}
    values["is_online"] = func.coalesce(new.is_online, old.is_online)
    # An entry that says whether it is there says everything: numbers of before do not outlive their endpoint.
    values |= {name: _if_said(new, getattr(new, name), getattr(old, name)) for name in _GAUGES}
    statement = statement.on_conflict_do_update(index_elements=["endpoint_id", "step_s", "at"], set_=values)
    conn.execute(statement, [_row(entry) for entry in entries])


def read_entries(
    conn: Connection, endpoint_ids: Sequence[str], since: int, until: int
) -> Mapping[str, Sequence[Entry]]:
    """What is kept of each endpoint from `since` on and before `until`, in the order of time."""
    found: dict[str, list[Entry]] = {each: [] for each in endpoint_ids}
    for ids in chunks(endpoint_ids, _IN_AT_ONCE):
        at = endpoint_history.c.at
        of_these = and_(endpoint_history.c.endpoint_id.in_(ids), endpoint_history.c.step_s.in_((MINUTE_S, HOUR_S)))
        for row in conn.execute(select(endpoint_history).where(of_these, at >= since, at < until).order_by(at)):
            found[row.endpoint_id].append(_entry(row))
    return found


def roll_up(conn: Connection, before: int, count: int) -> int:
    """Make hours of the oldest minutes before `before`, which begins an hour: of at most `count` endpoints in one hour.

    Returns:
        How many there were.
    """
    table = endpoint_history.c
    are_old = (table.step_s == MINUTE_S, table.at < before)
    oldest = conn.execute(select(func.min(table.at)).where(*are_old)).scalar()
    if oldest is None:
        return 0
    hour = int(oldest) // HOUR_S * HOUR_S
    in_hour = (table.step_s == MINUTE_S, table.at >= hour, table.at < hour + HOUR_S)
    ids = conn.execute(select(table.endpoint_id).distinct().where(*in_hour).limit(count)).scalars().all()
    rows = conn.execute(
        select(endpoint_history).where(*in_hour, table.endpoint_id.in_(ids)).order_by(table.endpoint_id, table.at)
    )
    by_endpoint = groupby((_entry(row) for row in rows), key=lambda entry: entry.endpoint_id)
    add_entries(conn, [hour_entry(list(minutes)) for _, minutes in by_endpoint])
    conn.execute(delete(endpoint_history).where(*in_hour, table.endpoint_id.in_(ids)))
    return len(ids)


def forget_hours(conn: Connection, before: int) -> int:
    """Forget the oldest hour that began before `before`.

    Returns:
        How many rows it had; 0: there is none.
    """
    table = endpoint_history.c
    are_old = (table.step_s == HOUR_S, table.at < before)
    oldest = select(func.min(table.at)).where(*are_old).scalar_subquery()
    return int(conn.execute(delete(endpoint_history).where(*are_old, table.at == oldest)).rowcount)


def _if_said(new: Any, value: Any, before: Any) -> Any:  # columns
    return case((new.is_online.is_not(None), value), else_=before)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "endpoint_id": entry.endpoint_id,
        "step_s": entry.step_s,
        "at": entry.at,
        "is_online": entry.is_online,
        **dict(zip(_GAUGES, entry.gauges, strict=True)),
        "submitted": entry.submitted,
        "succeeded": entry.succeeded,
        "failed": entry.failed,
    }


def _entry(row: Any) -> Entry:  # a row of `endpoint_history`
    return Entry(
        endpoint_id=row.endpoint_id,
        at=row.at,
        step_s=row.step_s,
        is_online=row.is_online,
        gauges=(row.workers, row.idle_workers, row.outstanding, row.pending),
        submitted=row.submitted,
        succeeded=row.succeeded,
        failed=row.failed,
    )
