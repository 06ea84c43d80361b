"""Lists of names and values, and the fields of filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from farcall.console.components.text import Tag

__all__ = ["Details", "details", "search_field"]


class Details:
    """Names and values, one pair a line."""

    def text(self, name: str, value: str | None, missing: str = "(not set)") -> None:
        """A value that is a text."""
        with self.item(name):
            if value:
                Tag("span", value)
            else:
                Tag("span", missing).classes("fc-unknown")

    @contextmanager
    def item(self, name: str) -> Iterator[None]:
        """A value that is made of elements."""
        with ui.element("div").classes("fc-detail"):
            Tag("dt", name)
            with Tag("dd"):
                yield


@contextmanager
def details() -> Iterator[Details]:
    """See `Details`."""
    with ui.element("dl").classes("fc-details"):
        yield Details()


def search_field(label: str, value: str, changed: Callable[[str], Any]) -> ui.input:
    """A field to search by.

    Args:
        changed: is given the text when the viewer has stopped typing for a moment.
    """
    field = ui.input(label, value=value).props("type=search outlined dense clearable debounce=300 autocomplete=off")
    field.on_value_change(lambda event: changed(event.value or ""))
    return field.classes("fc-search")
