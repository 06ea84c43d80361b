"""What several pages have in common: notices, the way to more of a list, tabs that are addresses."""

from __future__ import annotations

from collections.abc import Sequence

from farcall.console.components import Tag, link
from farcall.console.page import View, url

__all__ = ["asked_in", "more_of", "notice", "tabs"]


def notice(title: str, text: str) -> None:
    """Something that is good to know here."""
    with Tag("div").classes("fc-notice") as box:
        box.props["role"] = "status"
        Tag("p", title).classes("fc-notice-title")
        Tag("p", text)


def more_of(view: View, next_cursor: str | None, *, first: str = "Newest", next: str = "Older") -> None:
    """Links to the beginning of a list and to what comes after this page of it, called so."""
    here = {name: value for name, value in view.query.items() if name != "cursor"}
    if not next_cursor and "cursor" not in view.query:
        return
    with Tag("nav").classes("fc-pages") as nav:
        nav.props["aria-label"] = "Pages"
        if "cursor" in view.query:
            link(first, url(view.path, **here)).classes("fc-button")
        if next_cursor:
            link(next, url(view.path, **here, cursor=next_cursor)).classes("fc-button")


def tabs(label: str, entries: Sequence[tuple[str, str, bool]]) -> None:
    """Links side by side: text, address, and whether it is the one that is shown."""
    with Tag("nav").classes("fc-tabs") as nav:
        nav.props["aria-label"] = label
        for text, target, is_it in entries:
            tab = link(text, target)
            if is_it:
                tab.props["aria-current"] = "page"


def asked_in(view: View, **choices: tuple[str, ...]) -> dict[str, str]:
    """Search, cursor and these parameters of the address, where they make sense."""
    asked = {name: view.query[name][:200] for name in ("search", "cursor") if view.query.get(name)}
    asked.update({name: view.query[name] for name, known in choices.items() if view.query.get(name) in known})
    return asked
