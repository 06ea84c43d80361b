"""Addresses below our sections that are no page's: mistyped, or of a page that was elsewhere once."""

from __future__ import annotations

from typing import Final

from farcall.console.layout import SECTIONS
from farcall.console.page import Page, View, console_page
from farcall.wire.errors import NotFound

__all__ = ["PAGES"]


async def nowhere(view: View, **_: str) -> None:
    """Says so, in the frame of the section."""
    raise NotFound(f"The console has no page {view.path[:200]}.")


def _of(section: str) -> Page:
    page = console_page(f"/{section}/{{rest:path}}", title="No such page", section=section)
    return page(nowhere)


PAGES: Final = tuple(_of(each.name) for each in SECTIONS)
