"""What pages are made of. Whatever comes from users is text here: nothing takes markup.

A value from a user may be the text of an element, or a member of `props` by assignment (`element.props["title"] = …`);
never part of what is given to `.props("…")`, `.style("…")` or a script, which are languages.
"""

from farcall.console.components.boxes import confirm, empty_state, error_box, section
from farcall.console.components.chart import Series, TimeChart, bar_chart, time_chart
from farcall.console.components.code import code_viewer
from farcall.console.components.fields import details, search_field
from farcall.console.components.stats import StatRow, status_dot
from farcall.console.components.table import Cell, Column, DataTable, Empty
from farcall.console.components.text import Tag, identifier, link, when

__all__ = [
    "Cell",
    "Column",
    "DataTable",
    "Empty",
    "Series",
    "StatRow",
    "Tag",
    "TimeChart",
    "bar_chart",
    "code_viewer",
    "confirm",
    "details",
    "empty_state",
    "error_box",
    "identifier",
    "link",
    "search_field",
    "section",
    "status_dot",
    "time_chart",
    "when",
]
