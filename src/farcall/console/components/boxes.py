"""Errors, empty states, sections, and the question before something is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicegui import ui

from farcall.console.components.text import Tag, _Copy

__all__ = ["confirm", "empty_state", "error_box", "section"]


def error_box(title: str, text: str, *, retry: bool = False) -> None:
    """What went wrong and what to do.

    Args:
        retry: whether loading the page again can help.
    """
    with ui.element("div").classes("fc-error") as box:
        box.props["role"] = "alert"
        Tag("p", title).classes("fc-error-title")
        Tag("p", text)
        if retry:
            client = ui.context.client
            ui.button("Try again", on_click=lambda: client.run_javascript("location.reload()")).props("outline no-caps")


def empty_state(title: str, text: str = "", commands: str = "") -> None:
    """That there is nothing yet, what that means, and what to do next.

    Args:
        commands: to run, one a line.
    """
    with ui.element("div").classes("fc-empty"):
        Tag("p", title).classes("fc-empty-title")
        if text:
            Tag("p", text)
        if commands:
            with ui.element("div").classes("fc-code"):
                shown = Tag("pre", commands).classes("fc-text")
                shown.props.update({"tabindex": "0", "role": "region", "aria-label": "Commands"})
                _Copy(commands, "Copy the commands")


@contextmanager
def section(title: str) -> Iterator[ui.element]:
    """A part of a page with its heading (h2)."""
    with ui.element("section").classes("fc-section") as element:
        Tag("h2", title)
        yield element


async def confirm(title: str, text: str, action: str, *, dangerous: bool = False) -> bool:
    """Ask before something is done. The button that does nothing has the focus.

    Args:
        action: what the button says, a verb.

    Returns:
        Whether it shall be done; closing the dialog says no.
    """
    with ui.dialog() as dialog, ui.card().classes("fc-dialog") as card:
        card.props.update({"role": "alertdialog", "aria-label": title})
        Tag("h2", title)
        Tag("p", text)
        with ui.element("div").classes("fc-buttons"):
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat no-caps autofocus")
            colour = "negative" if dangerous else "primary"
            ui.button(action, on_click=lambda: dialog.submit(True)).props(f"no-caps unelevated color={colour}")
    try:
        return bool(await dialog)
    finally:
        dialog.delete()
