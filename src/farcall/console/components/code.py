"""Text with line numbers: configurations, templates, schemas, tracebacks, snippets."""

from __future__ import annotations

from nicegui import ui

from farcall.console.components.text import Tag, _Copy

__all__ = ["CodeViewer", "code_viewer"]


class CodeViewer(ui.element):
    """A text as it is, numbered, that scrolls within itself and can be copied.

    Args:
        label: what screen readers call it.
        missing: shown instead if there is no text.
    """

    def __init__(self, text: str | None, *, label: str, missing: str = "(not set)") -> None:
        super().__init__("div")
        self._label = label
        self._missing = missing
        self.classes("fc-code")
        self.set(text)

    def set(self, text: str | None) -> None:
        """Show another text."""
        self.clear()
        with self:
            if not text:
                Tag("p", self._missing).classes("fc-unknown")
                return
            lines = text.rstrip("\n").count("\n") + 1
            numbers = Tag("pre", "\n".join(map(str, range(1, lines + 1)))).classes("fc-numbers")
            numbers.props["aria-hidden"] = "true"
            shown = Tag("pre", text.rstrip("\n")).classes("fc-text")
            shown.props.update({"tabindex": "0", "role": "region", "aria-label": self._label, "dir": "ltr"})
            _Copy(text, f"Copy: {self._label}")


def code_viewer(text: str | None, *, label: str, missing: str = "(not set)") -> CodeViewer:
    """See `CodeViewer`."""
    return CodeViewer(text, label=label, missing=missing)
