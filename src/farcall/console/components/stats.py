"""Rows of figures, and dots that say by colour and by word how something is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nicegui import ui

from farcall.console.components.text import Tag
from farcall.console.formats import MISSING

__all__ = ["STATUS_KINDS", "StatRow", "StatusDot", "status_dot", "status_kind"]

STATUS_KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("online", "success", "succeeded", "ok", "active", "enabled", "running", "done"), "good"),
    **dict.fromkeys(("failed", "error", "disabled", "revoked", "lost", "refused"), "bad"),
    **dict.fromkeys(("cancelled", "warning", "stopping", "degraded"), "warn"),
}
"""Word → colour; every other one is neutral."""


def status_kind(status: str) -> str:
    """`good`, `bad`, `warn` or `none`."""
    return STATUS_KINDS.get(status.lower(), "none")


class StatusDot(ui.element):
    """A dot and the word for it: never colour alone."""

    def __init__(self, status: str) -> None:
        super().__init__("span")
        self.classes("fc-status")
        with self:
            self._dot = Tag("span").classes("fc-dot")
            self._dot.props["aria-hidden"] = "true"
            self._word = Tag("span")
        self._kind = ""
        self.set(status)

    def set(self, status: str) -> None:
        """Show another word."""
        self._word.text = status
        kind = f"fc-{status_kind(status)}"
        if kind != self._kind:
            self._dot.classes(remove=self._kind, add=kind)
            self._kind = kind


def status_dot(status: str | None) -> StatusDot:
    """See `StatusDot`; None is "unknown"."""
    return StatusDot(status or "unknown")


class StatRow(ui.element):
    """Figures side by side, each under its name; screen readers meet a list of pairs.

    Args:
        labels: names of the figures, in order. The one named "Status" is shown as a dot with a word.
        label: of the whole.
    """

    def __init__(self, labels: Sequence[str], *, label: str = "Figures") -> None:
        super().__init__("dl")
        self.classes("fc-stats")
        self.props["aria-label"] = label
        self._values: dict[str, StatusDot | Tag] = {}
        with self:
            for name in labels:
                with ui.element("div").classes("fc-stat"):
                    Tag("dt", name)
                    with Tag("dd"):
                        self._values[name] = StatusDot("unknown") if name == "Status" else Tag("span", MISSING)

    def set(self, values: Mapping[str, str | None]) -> None:
        """Show these; what is not named stays, None is shown as not known."""
        for name, value in values.items():
            shown = self._values[name]
            if isinstance(shown, StatusDot):
                shown.set(value or "unknown")
            else:
                shown.text = MISSING if value is None else value
