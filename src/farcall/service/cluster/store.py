"""SQL of the relays that share the endpoints: members are rows, slots are advisory locks of the relay's own session
(`db.listener`). Runs outside of transactions, so each statement stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from farcall.service.cluster.plan import SLOTS, Member
from farcall.service.db.sessions import postgres

__all__ = ["View", "announce", "beat", "end_backends", "forget", "held_by_anybody", "release_slots", "take_slots"]

_MEMBER_SPACE: Final = 0x4641524D
_SLOT_SPACE: Final = 0x46415253


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What the database knows at one moment.

    Attributes:
        members: all that have told of themselves and were not forgotten.
        taken: the slots that anybody holds.
    """

    members: Sequence[Member]
    taken: frozenset[int]


def beat(conn: Connection, member_id: str, host: str) -> View:
    """Say that we are there, and look who else is."""
    p = postgres()
    conn.execute(text(_BEAT), {"id": member_id, "host": host[:255]})
    conn.execute(text(_BE_MEMBER.format(locks=p.LOCKS_HERE, schema=p.SCHEMA)), {"member": _MEMBER_SPACE})
    rows = conn.execute(text(_MEMBERS.format(locks=p.LOCKS_HERE, schema=p.SCHEMA)), {"member": _MEMBER_SPACE}).all()
    members = [
        Member(id=row.id, backend=row.backend_pid, is_connected=row.is_connected, silent_s=row.silent_s) for row in rows
    ]
    return View(members=members, taken=held_by_anybody(conn))


def held_by_anybody(conn: Connection) -> frozenset[int]:
    """The slots that a relay has."""
    p = postgres()
    found = conn.execute(text(_TAKEN.format(locks=p.LOCKS_HERE, base=_base())), {"slot": _SLOT_SPACE}).scalars()
    return frozenset(int(slot) for slot in found)


def take_slots(conn: Connection, slots: Sequence[int]) -> frozenset[int]:
    """Try to get these slots; returns those that are ours now, until the session ends."""
    return _each_slot(conn, "pg_try_advisory_lock", slots)


def release_slots(conn: Connection, slots: Sequence[int]) -> None:
    """Give these slots back."""
    _each_slot(conn, "pg_advisory_unlock", slots)


def forget(conn: Connection, member_ids: Sequence[str]) -> None:
    """Members that are gone."""
    conn.execute(text("DELETE FROM relays WHERE id = ANY(:ids)"), {"ids": list(member_ids)})


def end_backends(conn: Connection, backends: Sequence[int]) -> None:
    """End sessions of relays that have stopped; their slots are free when this returns. One whose number belongs to
    another session by now is left alone.
    """
    p = postgres()
    statement = text(_END.format(locks=p.LOCKS_HERE, schema=p.SCHEMA))
    conn.execute(statement, {"member": _MEMBER_SPACE, "backends": list(backends)})


def announce(conn: Connection, texts: Sequence[str]) -> None:
    """Tell all processes something that goes with no commit of ours."""
    for each in texts:
        conn.execute(text(f"SELECT pg_notify({postgres().CHANNEL}, :text)"), {"text": each})


def _each_slot(conn: Connection, function: str, slots: Sequence[int]) -> frozenset[int]:
    statement = text(
        f"SELECT slot, {function}({_SLOT_SPACE}, ({_base()}) | slot) AS is_done "  # noqa: S608  # constants
        "FROM unnest(CAST(:slots AS integer[])) AS slot"
    )
    rows: Sequence[Any] = conn.execute(statement, {"slots": list(slots)}).all()
    return frozenset(row.slot for row in rows if row.is_done)


def _base() -> str:
    """The schema's number with room for the slot's in the last bits."""
    return f"{postgres().SCHEMA} & {-SLOTS}"


_BEAT: Final = (
    "INSERT INTO relays (id, backend_pid, host, beat_at) "
    "VALUES (:id, pg_backend_pid(), :host, extract(epoch FROM clock_timestamp())) "
    "ON CONFLICT (id) DO UPDATE SET backend_pid = excluded.backend_pid, beat_at = excluded.beat_at"
)
_BE_MEMBER: Final = (
    "SELECT pg_advisory_lock_shared(:member, {schema}) WHERE NOT EXISTS (SELECT 1 FROM ({locks}) AS locks "
    "WHERE space = :member AND number = {schema}::oid::bigint AND pid = pg_backend_pid())"
)
_MEMBERS: Final = (
    "SELECT id, backend_pid, extract(epoch FROM clock_timestamp())::float8 - beat_at AS silent_s, "
    "backend_pid IN (SELECT pid FROM ({locks}) AS locks WHERE space = :member "
    "AND number = {schema}::oid::bigint) AS is_connected FROM relays"
)
_TAKEN: Final = (
    "SELECT number & 63 FROM ({locks}) AS locks WHERE space = :slot AND number & ~63::bigint = ({base})::oid::bigint"
)
_END: Final = (
    "SELECT pg_terminate_backend(pid, 5000) FROM ({locks}) AS locks WHERE space = :member "
    "AND number = {schema}::oid::bigint AND pid = ANY(:backends)"
)
