"""SQL of functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from farcall.service.accounts.rules import Identity
from farcall.service.audit.rules import SERVICE, actor_of
from farcall.service.audit.store import record
from farcall.service.db.sql import PreparedIn
from farcall.service.db.tables import functions
from farcall.service.endpoints.store import find_endpoint
from farcall.service.functions import rules
from farcall.service.functions.rules import Function, NewFunction
from farcall.service.web.bodies import encode_text

__all__ = [
    "StoredFunction",
    "add_function",
    "delete_function",
    "find_functions",
    "note_runs",
    "read_codes",
    "read_function",
    "sweep_functions",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFunction:
    """A function with what its owner gave it."""

    rights: Function
    name: str
    code: str
    description: str | None
    metadata: dict[str, Any] | None


def add_function(
    conn: Connection,
    function_id: str,
    caller: Identity,
    function: NewFunction,
    now: float,
    address: str | None = None,
) -> None:
    """Store a function.

    Raises:
        Forbidden: see `rules.check_sharing`.
        EndpointNotFound, EndpointAccessForbidden, InvalidRequest: see `rules.check_home`.
    """
    rules.check_sharing(function, caller)
    if function.ha_endpoint_id is not None:
        home = find_endpoint(conn, function.ha_endpoint_id, caller)
        rules.check_home(home, function.ha_endpoint_id, caller)
    detail = {"name": function.name[:200], "public": function.public, "group_id": function.group_id}
    if function.ha_endpoint_id is not None:
        detail["ha_endpoint_id"] = function.ha_endpoint_id
    record(conn, actor_of(caller, address), "function.register", "function", function_id, at=now, detail=detail)
    conn.execute(
        _ADD,
        {
            "id": function_id,
            "owner_id": caller.id,
            "ha_endpoint_id": function.ha_endpoint_id,
            "name": function.name,
            "code": function.code,
            "code_chars": len(function.code),
            "description": function.description,
            "metadata_json": None if function.metadata is None else encode_text(function.metadata),
            "public": function.public,
            "group_id": function.group_id,
            "created_at": now,
        },
    )


def read_function(conn: Connection, function_id: str) -> StoredFunction | None:
    """One function, deleted or not."""
    row = conn.execute(select(functions).where(functions.c.id == function_id)).first()
    if row is None:
        return None
    return StoredFunction(
        rights=_rights(row),
        name=row.name,
        code=row.code,
        description=row.description,
        metadata=None if row.metadata_json is None else msgspec.json.decode(row.metadata_json),
    )


def find_functions(conn: Connection, function_ids: Sequence[str]) -> dict[str, Function]:
    """What decisions need to know of these functions; unknown ids are left out."""
    return {row.id: _rights(row) for row in _FIND.all(conn, function_ids)}


def read_codes(conn: Connection, function_ids: Sequence[str]) -> dict[str, str]:
    """The framed buffers of these functions, deleted or not: accepted tasks still need them."""
    return {row.id: row.code for row in _CODES.all(conn, function_ids)}


def delete_function(
    conn: Connection, function_id: str, caller: Identity, now: float, address: str | None = None
) -> None:
    """Nobody can submit to the function any more. Raises FunctionNotFound, Forbidden."""
    rules.check_delete(find_functions(conn, [function_id]).get(function_id), function_id, caller)
    conn.execute(update(functions).where(functions.c.id == function_id).values(deleted_at=now))
    record(conn, actor_of(caller, address), "function.delete", "function", function_id, at=now)


def note_runs(conn: Connection, function_ids: Sequence[str], now: float) -> None:
    """Tasks of these functions, which are for high assurance, were submitted."""
    _NOTE_RUNS.run(conn, function_ids, now=now)


def sweep_functions(conn: Connection, count: int, before: float, now: float) -> int:
    """Delete at most `count` functions for high assurance that were last run, or made, before `before`; also what
    they are made of, which no task needs any more. Returns how many.
    """
    last_used = func.coalesce(functions.c.last_run_at, functions.c.created_at)
    unused = select(functions.c.id).where(
        functions.c.ha_endpoint_id.is_not(None), functions.c.code != "", last_used < before
    )
    ids = conn.execute(unused.limit(count)).scalars().all()
    if ids:
        gone = {"code": "", "code_chars": 0, "description": None, "metadata_json": None}
        deleted_at = func.coalesce(functions.c.deleted_at, now)
        conn.execute(update(functions).where(functions.c.id.in_(ids)).values(deleted_at=deleted_at, **gone))
        for function_id in ids:
            record(conn, SERVICE, "function.expire", "function", function_id, at=now)
    return len(ids)


_ADD = insert(functions)
_FIND = PreparedIn(
    lambda ids: select(
        functions.c.id,
        functions.c.owner_id,
        functions.c.public,
        functions.c.deleted_at,
        functions.c.code_chars,
        functions.c.group_id,
        functions.c.ha_endpoint_id,
    ).where(functions.c.id.in_(ids))
)
_NOTE_RUNS = PreparedIn(
    lambda ids: update(functions).where(functions.c.id.in_(ids)).values(last_run_at=bindparam("now"))
)
_CODES = PreparedIn(lambda ids: select(functions.c.id, functions.c.code).where(functions.c.id.in_(ids)))


def _rights(row: Any) -> Function:  # a row with the columns of _FIND
    return Function(
        id=row.id,
        owner_id=row.owner_id,
        public=bool(row.public),
        is_deleted=row.deleted_at is not None,
        code_chars=row.code_chars,
        group_id=row.group_id,
        ha_endpoint_id=row.ha_endpoint_id,
    )
