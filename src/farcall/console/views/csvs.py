"""Tables as CSV that a spreadsheet opens without executing anything in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

__all__ = ["to_csv"]

_ACTIVE: Final = ("=", "+", "-", "@", "\t", "\r")


def to_csv(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:  # cells: text, numbers, None
    """UTF-8 with a byte order mark, so that spreadsheets know it; None is an empty cell.

    Text that a spreadsheet would take for a formula gets an apostrophe before it: names come from users.
    Source: OWASP, "CSV Injection".
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_cell(each) for each in titles])
    writer.writerows([_cell(each) for each in row] for row in rows)
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:  # text, numbers, None
    return "'" + value if isinstance(value, str) and value.startswith(_ACTIVE) else value
