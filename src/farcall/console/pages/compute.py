"""`/compute`: the Compute Endpoints that the viewer may know of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nicegui import ui

from farcall.console.components import Tag, details, empty_state, link, search_field, status_dot
from farcall.console.formats import plural
from farcall.console.page import View, console_page

__all__ = ["PAGES"]

Endpoint = Mapping[str, Any]
_FILTERS: Final = {"owned": "Owned by me", "online": "Online", "multi_user": "Multi-user"}
_FIRST_STEPS: Final = "farcall-endpoint configure my-endpoint\nfarcall-endpoint start my-endpoint"


@console_page("/compute", title="Compute", section="compute")
async def compute(view: View) -> None:
    """The list, with what narrows it in the address."""
    with Tag("p", "A Compute Endpoint is a machine, or a whole cluster, where your functions run. "):
        link("How to run one", "/docs").set_visibility(False)
    found = Tag("div")

    async def show() -> None:
        answer = await view.api.get(
            "/v3/endpoints",
            role="owner" if "owned" in view.query else "any",
            search=view.query.get("search"),
            online="online" in view.query or None,
            multi_user="multi_user" in view.query or None,
        )
        found.clear()
        with found:
            _list(answer["endpoints"], is_narrowed=any(name in view.query for name in ("search", *_FILTERS)))

    async def narrow(name: str, value: str | None) -> None:
        view.set_query(**{name: value})
        await view.attempt(show())

    with Tag("div").classes("fc-toolbar") as bar:
        bar.props.update({"role": "search", "aria-label": "Endpoints"})
        search_field("Search by name, host or id", view.query.get("search", ""), lambda text: narrow("search", text))
        for name, label in _FILTERS.items():
            box = ui.checkbox(label, value=name in view.query)
            box.on_value_change(lambda event, name=name: narrow(name, "1" if event.value else None))
    found.move(target_index=-1)
    await show()


def _list(endpoints: Sequence[Endpoint], *, is_narrowed: bool) -> None:
    if not endpoints and not is_narrowed:
        empty_state("No endpoints yet.", "Run these two commands on the machine that shall work for you:", _FIRST_STEPS)
        return
    count = Tag("p", f"{plural(len(endpoints), 'Compute Endpoint')} found").classes("fc-count")
    count.props["role"] = "status"
    with Tag("ul").classes("fc-cards"):
        for endpoint in endpoints:
            _card(endpoint)


def _card(endpoint: Endpoint) -> None:
    with Tag("li").classes("fc-card"):
        with Tag("h2"):
            link(endpoint["display_name"] or endpoint["name"], f"/compute/endpoints/{endpoint['endpoint_id']}")
        with Tag("div").classes("fc-card-top"):
            status_dot(endpoint["status"])
            if endpoint["multi_user"]:
                Tag("span", "Multiuser Support").classes("fc-badge")
            if endpoint["high_assurance"]:
                Tag("span", "High Assurance").classes("fc-badge")
        with details() as facts:
            facts.text("Hostname", endpoint["hostname"], "not known")
            facts.text("IP address", endpoint["ip_address"], "not known")
            if not endpoint["multi_user"]:
                facts.text("Local user", endpoint["local_user"], "not known")
            facts.text("Workers", busy_of_total(endpoint), "not known")
            if not endpoint["is_mine"]:
                facts.text("Owner", endpoint["owner"]["username"])


def busy_of_total(endpoint: Endpoint) -> str | None:
    """`3 of 8 busy`; None if it is not known."""
    total, idle = endpoint["total_workers"], endpoint["idle_workers"]
    return None if total is None or idle is None else f"{max(0, total - idle)} of {total} busy"


PAGES: Final = (compute,)
