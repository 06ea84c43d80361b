"""SQL of listings of functions: one's own, and those that others share.

Newest first, by the time of registration. What is searched for is looked for in steps (`read_step`), each of a bounded
number of functions.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, and_, func, or_, select

from farcall.service.accounts.rules import Identity
from farcall.service.db.sql import PreparedIn
from farcall.service.db.tables import functions, groups, identities
from farcall.service.usage.store import Runs, runs_of

__all__ = ["ROLES", "FunctionQuery", "ListedFunction", "Step", "group_names", "read_listed", "read_step"]

Role = Literal["mine", "shared"]
ROLES: Final[Sequence[Role]] = ("mine", "shared")
Position = tuple[float, str]
"""Where a page ended: time of registration, and id."""

_STEP: Final = 2000
_DESCRIPTION_CHARS: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionQuery:
    """Which functions are wanted.

    Attributes:
        role: `mine`; `shared`: others', which the caller may run.
        search: must be in the name, whatever its case; None: any.
        before: where the page before ended; None: from the newest on.
    """

    role: Role
    search: str | None
    before: Position | None
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFunction:
    """A function without its code. Times are Unix seconds.

    Attributes:
        runs: of ended tasks, by anybody if it is the caller's, else by the caller.
    """

    id: str
    name: str
    description: str | None
    created_at: float
    owner_id: str
    owner_name: str | None
    public: bool
    group_id: str | None
    ha_endpoint_id: str | None
    last_run_at: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class Step:
    """Some functions, newest first, and where to go on; None: there are no more."""

    functions: Sequence[ListedFunction]
    next_before: Position | None


def read_step(conn: Connection, query: FunctionQuery, caller: Identity, before: Position | None, count: int) -> Step:
    """The newest `count` functions that are wanted, of the newest few thousand."""
    looked_at = count if query.search is None else max(count, _STEP)
    rows = _newest(conn, query.role, caller, before, looked_at)
    sought = None if query.search is None else query.search.casefold()
    found = [row for row in rows if sought is None or sought in row.name.casefold()][:count]
    if len(found) >= count:
        last = found[-1]
    elif len(rows) >= looked_at:
        last = rows[-1]
    else:
        last = None
    return Step(_listed(conn, found, caller), None if last is None else (last.created_at, last.id))


def read_listed(conn: Connection, function_id: str, caller: Identity) -> ListedFunction | None:
    """One function that was not deleted, as in a listing. Whether the caller may see it is not asked here."""
    rows = conn.execute(_COLUMNS.where(functions.c.id == function_id, functions.c.deleted_at.is_(None))).all()
    found = _listed(conn, rows, caller)
    return found[0] if found else None


def group_names(conn: Connection, group_ids: Sequence[str]) -> Mapping[str, str]:
    """Names of groups by id; those that are gone are left out."""
    rows = conn.execute(select(groups.c.id, groups.c.name).where(groups.c.id.in_(group_ids))).all()
    return {row.id: row.name for row in rows}


def _newest(conn: Connection, role: str, caller: Identity, before: Position | None, count: int) -> list[Any]:
    """Rows of `_COLUMNS`, newest first. Each reason to be listed has an index of its own; so one question for each, and
    the newest of all answers.
    """
    if role == "mine":
        reasons: list[Any] = [functions.c.owner_id == each for each in sorted(caller.linked)]
    else:
        others = functions.c.owner_id.not_in(sorted(caller.linked))
        reasons = [and_(functions.c.public, others)]
        reasons += [and_(functions.c.group_id == each, others) for each in sorted(caller.groups)]
    pages = []
    for reason in reasons:
        statement = _COLUMNS.where(reason, functions.c.deleted_at.is_(None))
        if before is not None:
            at, function_id = before
            earlier = or_(functions.c.created_at < at, functions.c.id < function_id)
            statement = statement.where(functions.c.created_at <= at, earlier)
        statement = statement.order_by(functions.c.created_at.desc(), functions.c.id.desc()).limit(count)
        pages.append(conn.execute(statement).all())
    found: dict[str, Any] = {}
    for row in heapq.merge(*pages, key=lambda row: (row.created_at, row.id), reverse=True):
        found[row.id] = row  # public ones may be shared with a group as well
        if len(found) >= count:
            break
    return list(found.values())


def _listed(conn: Connection, rows: Sequence[Any], caller: Identity) -> list[ListedFunction]:
    names = {row.id: row.username for row in _USERNAMES.all(conn, sorted({row.owner_id for row in rows}))}
    mine = [row.id for row in rows if row.owner_id in caller.linked]
    others = [row.id for row in rows if row.owner_id not in caller.linked]
    runs = {**runs_of(conn, mine), **runs_of(conn, others, caller.linked)}
    listed = []
    for row in rows:
        counted = runs.get(row.id, Runs(0, None))
        last = [at for at in (counted.last_at, row.last_run_at) if at is not None]
        listed.append(
            ListedFunction(
                id=row.id,
                name=row.name,
                description=row.description,
                created_at=row.created_at,
                owner_id=row.owner_id,
                owner_name=names.get(row.owner_id),
                public=bool(row.public),
                group_id=row.group_id,
                ha_endpoint_id=row.ha_endpoint_id,
                last_run_at=max(last, default=None),
                runs=counted.count,
            )
        )
    return listed


_COLUMNS: Final = select(
    functions.c.id,
    functions.c.name,
    func.substr(functions.c.description, 1, _DESCRIPTION_CHARS).label("description"),
    functions.c.created_at,
    functions.c.owner_id,
    functions.c.public,
    functions.c.group_id,
    functions.c.ha_endpoint_id,
    functions.c.last_run_at,
)
_USERNAMES = PreparedIn(lambda ids: select(identities.c.id, identities.c.username).where(identities.c.id.in_(ids)))
