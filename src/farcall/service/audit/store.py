"""SQL of the audit table: one way in, one way out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from farcall.service.audit.rules import Actor, Entry, Outcome
from farcall.service.db.sql import Insert
from farcall.service.db.tables import audit

__all__ = ["entries_after", "entry_from_row", "record", "tail"]


def record(
    conn: Connection,
    actor: Actor,
    action: str,
    object_kind: str | None = None,
    object_id: str | None = None,
    *,
    at: float,
    outcome: Outcome = "done",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Remember that `actor` did this, in the transaction that does it. See `Entry` for the meanings."""
    row = (
        at,
        actor.id,
        actor.name[:255],
        action,
        object_kind,
        object_id and object_id[:255],
        actor.address and actor.address[:64],
        outcome,
        json.dumps(detail) if detail else None,
    )
    _ADD.run(conn, [row])


def tail(conn: Connection, count: int, action: str | None = None) -> Sequence[Entry]:
    """The last entries, oldest first.

    Args:
        action: only this one, or all that begin with it if it ends in a dot.
    """
    statement = select(audit).order_by(audit.c.seq.desc()).limit(count)
    if action is not None:
        is_it = audit.c.action.startswith(action, autoescape=True) if action.endswith(".") else audit.c.action == action
        statement = statement.where(is_it)
    return [entry_from_row(row) for row in conn.execute(statement).all()][::-1]


def entries_after(conn: Connection, seq: int, count: int) -> Sequence[Entry]:
    """The oldest entries after number `seq`, in their order."""
    statement = select(audit).where(audit.c.seq > seq).order_by(audit.c.seq).limit(count)
    return [entry_from_row(row) for row in conn.execute(statement).all()]


_ADD = Insert(  # on the way of each submission
    audit,
    (
        "at",
        "actor_id",
        "actor_name",
        "action",
        "object_kind",
        "object_id",
        "address",
        "outcome",
        "detail_json",
    ),
)


def entry_from_row(row: Any) -> Entry:  # a row of `audit`
    return Entry(
        seq=row.seq,
        at=row.at,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        action=row.action,
        object_kind=row.object_kind,
        object_id=row.object_id,
        address=row.address,
        outcome=row.outcome,
        detail=json.loads(row.detail_json) if row.detail_json else {},
    )
