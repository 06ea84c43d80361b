"""Statements that are run very often, made fast, and small helpers that SQLite and PostgreSQL both understand.

Statements are written with SQLAlchemy Core everywhere. Those on the way of each task are then compiled once and run
on the driver's own cursor: what SQLAlchemy does around an execution takes 20 µs, more than SQLite takes itself. And
many rows go into one statement rather than into many executions of a small one, because the sqlite3 module gives up
the interpreter lock at each step, and takes it again against whatever the event loop is doing.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import BindParameter, Connection, Executable, Table, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from farcall.service.db.tables import counters

__all__ = ["Insert", "Prepared", "PreparedIn", "chunks", "next_numbers", "upsert"]

_IN_SIZES: Final = (1, 4, 16, 64, 256)
_INSERT_SIZES: Final = (64, 16, 4, 1)
"""Rows per statement; few sizes, so that few statements are compiled. 64 rows of 14 columns stay below the 999
parameters that every SQLite takes."""

_COPY_ROWS: Final = 16
"""From so many rows on PostgreSQL takes them faster by its COPY than as the parameters of a statement."""

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Prepared:
    """One statement with named parameters, for use inside a transaction.

    Values go in and come out as the driver has them; so a boolean comes out of SQLite as 0 or 1.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def all(self, conn: Connection, **values: Any) -> list[Any]:
        """Every row, as a named tuple."""
        compiled, cursor = self._execute(conn, values)
        rows = cursor.fetchall()
        cursor.close()
        return [compiled.row(*row) for row in rows]

    def first(self, conn: Connection, **values: Any) -> Any:
        """The first row as a named tuple, or None."""
        compiled, cursor = self._execute(conn, values)
        row = cursor.fetchone()
        cursor.close()
        return None if row is None else compiled.row(*row)

    def scalar(self, conn: Connection, **values: Any) -> Any:
        """The first column of the first row, or None."""
        _, cursor = self._execute(conn, values)
        row = cursor.fetchone()
        cursor.close()
        return None if row is None else row[0]

    def run(self, conn: Connection, **values: Any) -> int:
        """For what returns no rows: how many rows were concerned."""
        _, cursor = self._execute(conn, values)
        count: int = cursor.rowcount
        cursor.close()
        return count

    def _execute(self, conn: Connection, values: Mapping[str, Any]) -> tuple[_Compiled, Any]:
        dialect = conn.dialect.name
        compiled = self._compiled.get(dialect)
        if compiled is None:
            compiled = self._compiled[dialect] = _Compiled(self._statement, conn)
        cursor = conn.connection.cursor()
        cursor.execute(compiled.text, compiled.parameters(values))
        return compiled, cursor


class PreparedIn:
    """A statement with a list in it. The list is padded to one of few lengths by repeating its last item, which
    changes nothing for `IN`; longer lists make several executions.

    Args:
        build: the statement, given the parameters to stand in the list.
    """

    def __init__(self, build: Callable[[Sequence[BindParameter[Any]]], Executable]) -> None:
        self._build = build
        self._by_size: dict[int, Prepared] = {}

    def all(self, conn: Connection, items: Sequence[Any], **values: Any) -> list[Any]:
        """Every row of every execution, as named tuples."""
        rows: list[Any] = []
        for prepared, listed in self._executions(items):
            rows += prepared.all(conn, **values, **listed)
        return rows

    def run(self, conn: Connection, items: Sequence[Any], **values: Any) -> int:
        """For what returns no rows: how many rows were concerned."""
        return sum(prepared.run(conn, **values, **listed) for prepared, listed in self._executions(items))

    def _executions(self, items: Sequence[Any]) -> Iterator[tuple[Prepared, dict[str, Any]]]:
        for some in chunks(items, _IN_SIZES[-1]):
            size = next(size for size in _IN_SIZES if size >= len(some))
            prepared = self._by_size.get(size)
            if prepared is None:
                names: list[BindParameter[Any]] = [bindparam(f"in_{at}") for at in range(size)]
                prepared = self._by_size[size] = Prepared(self._build(names))
            listed = {f"in_{at}": item for at, item in enumerate(some)}
            for at in range(len(some), size):
                listed[f"in_{at}"] = some[-1]
            yield prepared, listed


class Insert:
    """Inserts rows into a table.

    Args:
        columns: names, in the order of the values in each row.
        on_conflict: SQL that follows the values (`ON CONFLICT …`), alike in SQLite and PostgreSQL.
    """

    def __init__(self, table: Table, columns: Sequence[str], on_conflict: str = "") -> None:
        self._table = table
        self._columns = tuple(columns)
        self._on_conflict = on_conflict and f" {on_conflict}"
        self._by_size: dict[tuple[str, int], str] = {}

    def run(self, conn: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows of values as the driver takes them."""
        if len(rows) >= _COPY_ROWS and conn.dialect.name == "postgresql" and not self._on_conflict:
            self._copy(conn, rows)
            return
        at = 0
        for size in _INSERT_SIZES:
            while len(rows) - at >= size:
                cursor = conn.connection.cursor()
                cursor.execute(self._text(conn, size), [value for row in rows[at : at + size] for value in row])
                cursor.close()
                at += size

    def _copy(self, conn: Connection, rows: Sequence[Sequence[Any]]) -> None:
        cursor: Any = conn.connection.cursor()
        with cursor.copy(f"COPY {self._table.name} ({', '.join(self._columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.close()

    def _text(self, conn: Connection, size: int) -> str:
        key = (conn.dialect.name, size)
        found = self._by_size.get(key)
        if found is None:
            mark = "?" if conn.dialect.paramstyle == "qmark" else "%s"
            row = f"({', '.join([mark] * len(self._columns))})"
            columns = ", ".join(self._columns)
            rows = ", ".join([row] * size)
            # Names of our own tables, and marks for the values.
            insert = f"INSERT INTO {self._table.name} ({columns}) VALUES {rows}"  # noqa: S608
            found = self._by_size[key] = insert + self._on_conflict
        return found


class _Compiled:
    """A statement as one driver wants it."""

    def __init__(self, statement: Executable, conn: Connection) -> None:
        compiled: Any = statement.compile(dialect=conn.dialect)  # type: ignore[attr-defined]  # every clause can
        self.text: str = compiled.string
        self._names: Sequence[str] | None = compiled.positiontup if compiled.positional else None
        self._constants: Mapping[str, Any] = compiled.params
        selected = getattr(statement, "selected_columns", None)  # none: it changes something
        self.row = _row_class([] if selected is None else list(selected.keys()))

    def parameters(self, values: Mapping[str, Any]) -> Any:
        if self._names is None:
            return {**self._constants, **values}
        constants = self._constants
        return [values[name] if name in values else constants[name] for name in self._names]


def _row_class(columns: Sequence[str]) -> Callable[..., Any]:
    return namedtuple("Row", columns)


def next_numbers(conn: Connection, counter: str, count: int) -> int:
    """Take `count` consecutive numbers; returns the first. Held until the transaction ends (see `tables`)."""
    _COUNT_UP.run(conn, counter=counter, count=count)
    last: int = _COUNTED.scalar(conn, counter=counter)
    return last - count + 1


def upsert(conn: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Insert the row with primary key `key`, or set `values` of the one that is there."""
    build: Any = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert  # alike, but unrelated types
    statement = build(table).values(**key, **values)
    conn.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))


_THIS_COUNTER = counters.c.name == bindparam("counter")
_COUNT_UP = Prepared(update(counters).where(_THIS_COUNTER).values(value=counters.c.value + bindparam("count")))
_COUNTED = Prepared(select(counters.c.value).where(_THIS_COUNTER))
