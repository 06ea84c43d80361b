"""Small helpers for statements that SQLite and PostgreSQL both run, and fast.

The sqlite3 module gives up the interpreter lock at each step of a statement, and takes it again against whatever
the event loop is doing. So many rows go into one statement rather than into many executions of a small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, TextClause, bindparam, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from farcall.service.db.tables import counters

__all__ = ["chunks", "insert_rows", "next_numbers", "upsert"]

_CHUNKS = (64, 16, 4, 1)
"""Rows per statement; few sizes, so that few statements are compiled. 64 rows of 14 columns stay below the 999
parameters that every SQLite takes."""

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert many rows with few statements.

    Args:
        columns: names, in the order of the values in each row.
        rows: values as the driver takes them.
    """
    names = tuple(columns)
    at = 0
    for size in _CHUNKS:
        while len(rows) - at >= size:
            statement, keys = _insert_statement(table.name, names, size)
            values: Iterable[Any] = (value for row in rows[at : at + size] for value in row)
            conn.execute(statement, dict(zip(keys, values, strict=True)))
            at += size


@lru_cache(maxsize=256)
def _insert_statement(table: str, columns: tuple[str, ...], size: int) -> tuple[TextClause, tuple[str, ...]]:
    keys = tuple(f"v{number}" for number in range(size * len(columns)))
    width = len(columns)
    groups = (", ".join(f":{key}" for key in keys[at : at + width]) for at in range(0, len(keys), width))
    names = ", ".join(columns)
    statement = text(f"INSERT INTO {table} ({names}) VALUES " + ", ".join(f"({group})" for group in groups))  # noqa: S608
    return statement, keys  # the names are those of our own tables


def next_numbers(conn: Connection, counter: str, count: int) -> int:
    """Take `count` consecutive numbers; returns the first. Held until the transaction ends (see `tables`)."""
    conn.execute(_COUNT_UP, {"counter": counter, "count": count})
    last: int = conn.execute(_COUNTED, {"counter": counter}).scalar_one()
    return last - count + 1


_THIS_COUNTER = counters.c.name == bindparam("counter")
_COUNT_UP = update(counters).where(_THIS_COUNTER).values(value=counters.c.value + bindparam("count"))
_COUNTED = select(counters.c.value).where(_THIS_COUNTER)


def upsert(conn: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Insert the row with primary key `key`, or set `values` of the one that is there."""
    build: Any = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert  # alike, but unrelated types
    statement = build(table).values(**key, **values)
    conn.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))
