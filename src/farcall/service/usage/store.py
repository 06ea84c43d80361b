"""SQL of usage: counted where tasks end, read by whoever may (`rules`)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, select

from farcall.service.db.sql import Insert, PreparedIn
from farcall.service.db.tables import endpoints, functions, identities, usage
from farcall.service.relay.results import TaskRef
from farcall.service.usage.rules import UsageQuery, add_up
from farcall.wire.errors import InvalidRequest
from farcall.wire.states import TaskState

__all__ = ["Runs", "UsageRow", "count_ends", "read_usage", "runs_of", "sweep_usage"]

_GROUPS_LIMIT: Final = 20_000


@dataclass(slots=True)
class UsageRow:
    """One line; what it was not asked by is None, and so is what nobody knows any more.

    In place of a `username` that nobody knows any more stands the identity's id, so that people stay apart.
    """

    day: int | None = None
    username: str | None = None
    account: str | None = None
    endpoint_id: str | None = None
    endpoint_name: str | None = None
    function_id: str | None = None
    function_name: str | None = None
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    run_s: float = 0.0

    @property
    def tasks(self) -> int:
        return self.succeeded + self.failed + self.cancelled


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


def read_usage(conn: Connection, query: UsageQuery) -> Sequence[UsageRow]:
    """What was used: by day, the most used first.

    Raises:
        InvalidRequest: that would be very many rows.
    """
    by_place = "endpoint" in query.by or "account" in query.by
    columns = [
        *([usage.c.day] if "day" in query.by else []),
        *([usage.c.owner_id] if "user" in query.by else []),
        *([usage.c.endpoint_id] if by_place else []),
        *([usage.c.function_id] if "function" in query.by else []),
    ]
    statement = (
        select(*columns, *(func.sum(usage.c[name]).label(name) for name in _SUMS))
        .where(usage.c.day.between(query.first_day, query.last_day))
        .group_by(*columns)
        .limit(_GROUPS_LIMIT + 1)
    )
    if query.owner_ids is not None:
        statement = statement.where(usage.c.owner_id.in_(sorted(query.owner_ids)))
    if query.endpoint_id is not None:
        there = (endpoints.c.id == query.endpoint_id) | (endpoints.c.manager_id == query.endpoint_id)
        statement = statement.where(usage.c.endpoint_id.in_(select(endpoints.c.id).where(there)))
    found = conn.execute(statement).all()
    if len(found) > _GROUPS_LIMIT:
        raise InvalidRequest(
            f"This would be more than {_GROUPS_LIMIT:,} rows. Ask for fewer days ('since', 'until'), or by less ('by')."
        )
    rows = [row for row in found if row.succeeded is not None]  # no row at all adds up to nothing
    return _added_up(conn, [row._mapping for row in rows], query)


def _added_up(conn: Connection, rows: Sequence[Any], query: UsageQuery) -> list[UsageRow]:
    """Rows of user endpoints as rows of what was submitted to, and names beside ids."""
    places = _places(conn, [row["endpoint_id"] for row in rows if "endpoint_id" in row], query)
    people = _names(_USERNAMES, conn, [row["owner_id"] for row in rows if "owner_id" in row])
    called = _names(_FUNCTION_NAMES, conn, [row["function_id"] for row in rows if "function_id" in row])
    added: dict[tuple[Any, ...], UsageRow] = {}
    for row in rows:
        place = places.get(row.get("endpoint_id"), UsageRow())
        owner_id, function_id = row.get("owner_id"), row.get("function_id")
        key = (row.get("day"), owner_id, place.endpoint_id, place.account, function_id)
        total = added.get(key)
        if total is None:
            total = added[key] = replace(
                place,
                day=row.get("day"),
                username=people.get(owner_id, owner_id),
                function_id=function_id,
                function_name=called.get(function_id),
            )
        total.succeeded += int(row["succeeded"])
        total.failed += int(row["failed"])
        total.cancelled += int(row["cancelled"])
        total.run_s += float(row["run_s"])
    return sorted(
        added.values(), key=lambda row: (row.day or 0, -row.tasks, row.username or "", row.endpoint_name or "")
    )


def _places(conn: Connection, endpoint_ids: Sequence[str], query: UsageQuery) -> dict[Any, UsageRow]:
    """By the endpoint where tasks ran: what was submitted to, and as which account, as far as that is asked."""
    wanted = sorted(set(endpoint_ids))
    found = {row.id: row for row in _PLACES.all(conn, wanted)}
    names = {row.id: row.name for row in found.values()}
    names.update(_names(_ENDPOINT_NAMES, conn, [row.manager_id for row in found.values() if row.manager_id]))
    accounts = _accounts(conn, wanted) if "account" in query.by else {}
    places: dict[Any, UsageRow] = {}
    for endpoint_id in wanted:
        place = UsageRow(account=accounts.get(endpoint_id))
        if "endpoint" in query.by:
            row = found.get(endpoint_id)
            place.endpoint_id = (row.manager_id if row else None) or endpoint_id
            place.endpoint_name = names.get(place.endpoint_id)
        places[endpoint_id] = place
    return places


class _Report(msgspec.Struct):
    account: Any = None
    posix_username: Any = None


class _Told(msgspec.Struct):
    local_user: Any = None


def _accounts(conn: Connection, endpoint_ids: Sequence[str]) -> dict[str, str]:
    """The account that tasks were charged to, as far as endpoints told: the scheduler's, else the local user."""
    accounts: dict[str, str] = {}
    for row in _REPORTS.all(conn, endpoint_ids):
        report, told = _Report(), _Told()
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
            told = _told_decoder.decode(row.metadata_json)
            report = _report_decoder.decode(row.last_report_json or "{}")
        for account in (report.account, report.posix_username, told.local_user):
            if isinstance(account, str) and account:
                accounts[row.id] = account[:_ACCOUNT_LIMIT_CHARS]
                break
    return accounts


def _names(statement: PreparedIn, conn: Connection, ids: Sequence[str]) -> dict[Any, str]:
    return {row[0]: row[1] for row in statement.all(conn, sorted(set(ids)))}


def sweep_usage(conn: Connection, before_day: int, count: int) -> int:
    """Forget some of what was used before a day. Returns how many rows, about `count` at most."""
    oldest: int | None = conn.execute(select(func.min(usage.c.day)).where(usage.c.day < before_day)).scalar()
    if oldest is None:
        return 0
    owners = select(usage.c.owner_id).where(usage.c.day == oldest).limit(count)
    return conn.execute(delete(usage).where(usage.c.day == oldest, usage.c.owner_id.in_(owners))).rowcount


_ACCOUNT_LIMIT_CHARS: Final = 128
_report_decoder: Final = msgspec.json.Decoder(_Report)
_told_decoder: Final = msgspec.json.Decoder(_Told)
_PLACES = PreparedIn(
    lambda ids: select(endpoints.c.id, endpoints.c.name, endpoints.c.manager_id).where(endpoints.c.id.in_(ids))
)
_REPORTS = PreparedIn(
    lambda ids: select(endpoints.c.id, endpoints.c.metadata_json, endpoints.c.last_report_json).where(
        endpoints.c.id.in_(ids)
    )
)
_ENDPOINT_NAMES = PreparedIn(lambda ids: select(endpoints.c.id, endpoints.c.name).where(endpoints.c.id.in_(ids)))
_FUNCTION_NAMES = PreparedIn(lambda ids: select(functions.c.id, functions.c.name).where(functions.c.id.in_(ids)))
_USERNAMES = PreparedIn(lambda ids: select(identities.c.id, identities.c.username).where(identities.c.id.in_(ids)))
_KEY = ("day", "owner_id", "endpoint_id", "function_id")
_SUMS = ("succeeded", "failed", "cancelled", "run_s")
_COUNT = Insert(
    usage,
    (*_KEY, *_SUMS, "last_at"),
    f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in _SUMS)
    + ", last_at = excluded.last_at",
)
