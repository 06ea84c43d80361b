"""`/compute/endpoints/<id>`: one Compute Endpoint."""

from __future__ import annotations

from typing import Final

from farcall.console.components import details, identifier
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page

__all__ = ["PAGES"]


@console_page("/compute/endpoints/{endpoint_id}", title="Endpoint", section="compute")
async def endpoint(view: View, endpoint_id: str) -> None:
    """One endpoint."""
    found = await view.api.get(f"/v3/endpoints/{endpoint_id}")
    view.set_title(found["display_name"] or found["name"], Crumb("Compute", "/compute"))
    with details() as facts, facts.item("ID"):
        identifier(found["endpoint_id"])


PAGES: Final = (endpoint,)
