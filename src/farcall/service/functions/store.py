"""SQL of functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from farcall.service.db.sql import PreparedIn
from farcall.service.db.tables import functions
from farcall.service.functions import rules
from farcall.service.functions.rules import Function, NewFunction
from farcall.service.web.bodies import encode_text

__all__ = ["StoredFunction", "add_function", "delete_function", "find_functions", "read_codes", "read_function"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFunction:
    """A function with what its owner gave it."""

    rights: Function
    name: str
    code: str
    description: str | None
    metadata: dict[str, Any] | None


def add_function(conn: Connection, function_id: str, owner_id: str, function: NewFunction, now: float) -> None:
    conn.execute(
        _ADD,
        {
            "id": function_id,
            "owner_id": owner_id,
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


def delete_function(conn: Connection, function_id: str, caller_id: str, now: float) -> None:
    """Nobody can submit to the function any more. Raises FunctionNotFound, Forbidden."""
    rules.check_delete(find_functions(conn, [function_id]).get(function_id), function_id, caller_id)
    conn.execute(update(functions).where(functions.c.id == function_id).values(deleted_at=now))


_ADD = insert(functions)
_FIND = PreparedIn(
    lambda ids: select(
        functions.c.id, functions.c.owner_id, functions.c.public, functions.c.deleted_at, functions.c.code_chars
    ).where(functions.c.id.in_(ids))
)
_CODES = PreparedIn(lambda ids: select(functions.c.id, functions.c.code).where(functions.c.id.in_(ids)))


def _rights(row: Any) -> Function:  # a row with the columns of _FIND
    return Function(
        id=row.id,
        owner_id=row.owner_id,
        public=bool(row.public),
        is_deleted=row.deleted_at is not None,
        code_chars=row.code_chars,
    )
