"""Elements of HTML with text in them, times, and ids that can be copied."""

from __future__ import annotations

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

__all__ = ["Tag", "Time", "identifier", "link", "when"]


class Tag(TextElement):
    """Any element of HTML; `with` puts others into it.

    Args:
        tag: its name.
        text: shown as it is.
    """

    def __init__(self, tag: str, text: str = "") -> None:
        super().__init__(tag=tag, text=text)


def link(text: str, target: str) -> Tag:
    """A link to a path of this service."""
    element = Tag("a", text)
    element.props["href"] = target
    return element


class Time(Element, component="time.js"):
    """A moment, in the viewer's time zone: how long ago, with date and time on hover.

    Args:
        at: Unix seconds; None: not known.
        absolute: show date and time at once.
    """

    def __init__(self, at: float | None, *, absolute: bool = False) -> None:
        super().__init__()
        self.props["at"] = at
        self.props["absolute"] = absolute

    def set(self, at: float | None) -> None:
        """Show another moment."""
        if self.props.get("at") != at:
            self.props["at"] = at
            self.update()


def when(at: float | None, *, absolute: bool = False) -> Time:
    """See `Time`."""
    return Time(at, absolute=absolute)


class _Copy(Element, component="copy.js"):
    def __init__(self, text: str, label: str) -> None:
        super().__init__()
        self.props["text"] = text
        self.props["label"] = label


def identifier(text: str, *, label: str = "Copy the id") -> Element:
    """An id in full, and a button that copies it.

    Args:
        label: what the button is called by screen readers.
    """
    with ui.element("span").classes("fc-id") as element:
        Tag("code", text)
        _Copy(text, label)
    return element
