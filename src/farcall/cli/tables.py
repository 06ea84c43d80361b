"""Tables for terminals and for pipes, in which no id and no other text is ever cut.

What does not fit into a terminal goes on in the next line; into a pipe or a file goes one line per row, however long.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from farcall.wire.shown import shown

__all__ = ["print_rows", "print_table", "table_width", "terminal_width"]

_UNLIMITED = 100_000
_LEAST_FOLDED = 8
_KEPT = "\n\t"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print rows under column names. The last column is folded where the terminal is too narrow, the others never.

    A column that has nothing in it is left out.
    """
    kept = [index for index in range(len(columns)) if any(len(row[index]) for row in rows)] or [0]
    widths = [max([len(columns[index]), *(len(row[index]) for row in rows)]) for index in kept]
    widths[-1] = min(widths[-1], _LEAST_FOLDED) if len(kept) > 1 else widths[-1]
    table = Table()
    for index, width in zip(kept, widths, strict=True):
        is_last = index == kept[-1]
        table.add_column(columns[index], min_width=width, no_wrap=not is_last, overflow="fold" if is_last else "ignore")
    for row in rows:
        table.add_row(*(_as_text(row[index]) for index in kept))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    # A terminal that is narrower than an id breaks the lines itself.
    console.width = max(console.width, sum(widths) + 3 * len(widths) + 1)
    console.print(table, crop=False)


def terminal_width() -> int | None:
    """How many characters fit into a line; None: any number, for this is no terminal."""
    console = Console()
    return console.width if console.is_terminal else None


def table_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How many characters wide `print_table` makes a table of which nothing is folded."""
    widths = [
        max([len(name), *(len(row[index]) for row in rows)])
        for index, name in enumerate(columns)
        if any(row[index] for row in rows)
    ]
    return sum(widths) + 3 * len(widths) + 1


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair per row; a terminal breaks what is too long for it."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{shown(name):{width}}  {shown(value, keep=_KEPT)}")


def _as_text(value: str | Text) -> Text:
    """What people elsewhere have chosen, such as names, is among it: it must not command the terminal."""
    if isinstance(value, str):
        return Text(shown(value, keep=_KEPT))
    return value if value.plain.isprintable() else Text(shown(value.plain, keep=_KEPT))
