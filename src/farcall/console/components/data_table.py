"""A table: what is in it goes to the browser once as text, and one element stands for all of its cells, so that an open
page with a long table costs little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui.element import Element

from farcall.console.views.states import Shown

__all__ = ["Column", "DataTable", "act", "link", "moment", "sortable", "state"]

Cell = Any  # text, or what one of the functions below makes
Row = Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: of the member of each row.
        end: it holds numbers: they stand to the right, and the largest is first when it is sorted by.
        heads: its cells are the titles of their rows.
    """

    name: str
    title: str
    end: bool = False
    sortable: bool = False
    heads: bool = False


class DataTable(Element, component="data_table.js"):
    """A table that is sorted in the browser.

    Args:
        caption: what it is a table of, for who does not see it.
        rows: each with an `id` of its own, and a member for every column.
        sort_by: name of the column by which it is sorted at first; None: as given.
        on_act: told action and id when a cell made by `act` is pressed.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        *,
        caption: str,
        sort_by: str | None = None,
        descending: bool = False,
        on_act: Callable[[str, str], Any] | None = None,
    ) -> None:
        super().__init__()
        self._props["columns"] = [
            {"name": each.name, "title": each.title, "end": each.end, "sortable": each.sortable, "heads": each.heads}
            for each in columns
        ]
        self._props["rows"] = list(rows)
        self._props["caption"] = caption
        self._props["sortBy"] = sort_by
        self._props["descending"] = descending
        if on_act is not None:
            self.on("act", lambda event: on_act(str(event.args["action"]), str(event.args["id"])))

    def show(self, rows: Sequence[Row]) -> None:
        """Other rows; who looks keeps the order that they chose."""
        self._props["rows"] = list(rows)
        self.update()


def link(text: str, href: str, *, mono: bool = False, title: str | None = None) -> Cell:
    """A text that leads to a page of the console. `href` begins with a slash."""
    return {"text": text, "href": href, "mono": mono, "title": title}


def moment(at: float | None) -> Cell:
    """A time: how long ago, and exactly on hover, in the viewer's zone."""
    return {"at": at, "sort": at or 0.0}


def state(shown: Shown) -> Cell:
    """A state: word, sign, colour."""
    return {"text": shown.word, "tone": shown.tone, "icon": shown.icon}


def sortable(text: str, value: float | str) -> Cell:
    """A text that is sorted by something else."""
    return {"text": text, "sort": value}


def act(action: str, id: str, text: str, label: str) -> Cell:
    """A button. `label` says what it does to what, where `text` is too short to."""
    return {"text": text, "act": action, "id": id, "label": label}
