"""Tables: sorted in the browser by a button in each heading, exported as CSV, numbers on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui.element import Element

from farcall.console.components.stats import status_kind

__all__ = ["Cell", "Column", "DataTable", "Empty"]

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: member of a row; the value is what is sorted by and exported.
        label: heading.
        kind: "number" stands on the right, "time" (Unix seconds) is shown in the viewer's zone, "status" with a dot,
            "code" in a fixed-width face.
        show: text of a value, if it is not the value itself (`formats.duration` …).
        href: where a row's value leads, as a path of ours; None: nowhere.
    """

    name: str
    label: str
    kind: Literal["text", "number", "time", "status", "code"] = "text"
    show: Callable[[Any], str] | None = None
    href: Callable[[Row], str | None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A value that says itself how it is shown, instead of its column.

    Attributes:
        value: sorted by, exported.
        text: shown; None: the value.
    """

    value: Any
    text: str | None = None
    href: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Empty:
    """What is said in place of a table without rows: what that means and what to do next.

    Attributes:
        commands: to run, one a line; shown so that they can be copied.
    """

    title: str
    text: str = ""
    commands: str = ""


class DataTable(Element, component="table.js"):
    """A table.

    Args:
        caption: what screen readers call it.
        sort_by: name of the column that it is sorted by at first; None: as the rows come.
        csv_name: file name of the export; None: there is none.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        *,
        caption: str,
        empty: Empty,
        sort_by: str | None = None,
        descending: bool = False,
        csv_name: str | None = None,
    ) -> None:
        super().__init__()
        self._columns = columns
        self.props["columns"] = [{"name": each.name, "label": each.label, "kind": each.kind} for each in columns]
        self.props["caption"] = caption
        self.props["empty"] = {"title": empty.title, "text": empty.text, "commands": empty.commands}
        self.props["sort"] = {"name": sort_by or "", "descending": descending}
        self.props["csv"] = csv_name or ""
        self.props["rows"] = [self._shown(row) for row in rows]

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these instead; the viewer's sorting stays."""
        shown = [self._shown(row) for row in rows]
        if shown != self.props["rows"]:
            self.props["rows"] = shown
            self.update()

    def _shown(self, row: Row) -> list[Any]:
        return [_cell(column, row) for column in self._columns]


def _cell(column: Column, row: Row) -> Any:
    """What the browser is told of a cell: the value alone where that says all, else an object."""
    value = row.get(column.name)
    href = column.href(row) if column.href else None
    text = None
    if isinstance(value, Cell):
        value, text, href = value.value, value.text, value.href or href
    elif column.show is not None:
        text = column.show(value)
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    if column.kind == "status":
        return {"v": value, "t": text, "h": href, "s": status_kind(str(value or ""))}
    return value if text is None and href is None else {"v": value, "t": text, "h": href}
