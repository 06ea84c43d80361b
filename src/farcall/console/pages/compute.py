"""`/compute`: the Compute Endpoints that the viewer may know of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nicegui import ui

from farcall.console.components import Tag, details, empty_state, link, search_field, status_dot
from farcall.console.formats import plural
from farcall.console.page import View, console_page

__all__ = ["PAGES"]

Endpoint = Mapping[str, Any]
_FILTERS: Final = {"owned": "Owned by me", "online": "Online", "multi_user": "Multi-user"}
_PAGE: Final = 60
_MOST: Final = 480  # the interface lists up to 500 at once
_WHERE: Final = "Run these two commands on the machine that shall work for you:"
_FIRST_STEPS: Final = "farcall-endpoint configure my-endpoint\nfarcall-endpoint start my-endpoint"


@console_page("/compute", title="Compute", section="compute")
async def compute(view: View) -> None:
    """The list, with what narrows it in the address."""
    Tag("p", "A Compute Endpoint is a machine, or a whole cluster, where your functions run.")
    found = _Found(view)

    async def narrow(name: str, value: str | None) -> None:
        view.set_query(**{name: value})
        await view.attempt(found.read())

    with Tag("div").classes("fc-toolbar") as bar:
        bar.props.update({"role": "search", "aria-label": "Endpoints"})
        search_field("Search by name, host or id", view.query.get("search", ""), lambda text: narrow("search", text))
        for name, label in _FILTERS.items():
            box = ui.checkbox(label, value=name in view.query)
            box.on_value_change(lambda event, name=name: narrow(name, "1" if event.value else None))
    found.place.move(target_index=-1)
    await found.read()


class _Found:
    """The endpoints that match, up to date while somebody looks."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._limit = _PAGE
        self._cards: dict[str, _Card] = {}
        self._count: Tag | None = None
        self._stop: Callable[[], None] = lambda: None
        self.place = Tag("div")

    async def read(self) -> None:
        """Ask again, for what the address says now."""
        query = self._query()
        document = await self._view.api.get("/v3/endpoints", **query)
        if query != self._query():
            return  # it was changed meanwhile, and is being asked for
        self._stop()
        self._show(document)
        self._stop = self._view.watch_list(query, self._hear)

    def _query(self) -> dict[str, Any]:
        asked = self._view.query
        return {
            "role": "owner" if "owned" in asked else "any",
            "search": asked.get("search"),
            "online": "online" in asked or None,
            "multi_user": "multi_user" in asked or None,
            "limit": self._limit,
        }

    def _hear(self, document: Mapping[str, Any]) -> None:
        endpoints = document["endpoints"]
        if [each["endpoint_id"] for each in endpoints] != list(self._cards) or not endpoints:
            self._show(document)
            return
        self._tell_count(document)
        for endpoint in endpoints:
            self._cards[endpoint["endpoint_id"]].show(endpoint)

    def _show(self, document: Mapping[str, Any]) -> None:
        endpoints: Sequence[Endpoint] = document["endpoints"]
        is_narrowed = any(name in self._view.query for name in ("search", *_FILTERS))
        self.place.clear()
        self._cards = {}
        with self.place:
            if not endpoints and not is_narrowed:
                empty_state("No endpoints yet.", _WHERE, _FIRST_STEPS)
                return
            self._count = Tag("p").classes("fc-count")
            self._count.props["role"] = "status"
            self._tell_count(document)
            with Tag("ul").classes("fc-cards"):
                self._cards = {each["endpoint_id"]: _Card(each) for each in endpoints}
            if document["next_cursor"] and self._limit < _MOST:
                ui.button("Show more", on_click=self._more).props("outline no-caps")
            elif document["next_cursor"]:
                Tag("p", "Search to find the others.").classes("fc-unknown")

    def _tell_count(self, document: Mapping[str, Any]) -> None:
        if self._count is not None:
            self._count.text = f"{plural(document['total'], 'Compute Endpoint')} found"

    async def _more(self) -> None:
        self._limit = min(self._limit + _PAGE, _MOST)
        await self._view.attempt(self.read())


class _Card:
    def __init__(self, endpoint: Endpoint) -> None:
        with Tag("li").classes("fc-card"):
            with Tag("h2"):
                link(endpoint["display_name"] or endpoint["name"], f"/compute/endpoints/{endpoint['endpoint_id']}")
            with Tag("div").classes("fc-card-top"):
                self._status = status_dot(endpoint["status"])
                if endpoint["multi_user"]:
                    Tag("span", "Multiuser Support").classes("fc-badge")
                if endpoint["high_assurance"]:
                    Tag("span", "High Assurance").classes("fc-badge")
            with details() as facts:
                facts.text("Hostname", endpoint["hostname"], "not known")
                facts.text("IP address", endpoint["ip_address"], "not known")
                if not endpoint["multi_user"]:
                    facts.text("Local user", endpoint["local_user"], "not known")
                with facts.item("Workers"):
                    self._workers = Tag("span")
                if not endpoint["is_mine"]:
                    facts.text("Owner", endpoint["owner"]["username"])
        self.show(endpoint)

    def show(self, endpoint: Endpoint) -> None:
        """What changes of it."""
        self._status.set(endpoint["status"])
        workers = busy_of_total(endpoint)
        self._workers.text = workers or "not known"
        self._workers.classes(**{"remove" if workers else "add": "fc-unknown"})


def busy_of_total(endpoint: Endpoint) -> str | None:
    """`3 of 8 busy`; None if it is not known."""
    total, idle = endpoint["total_workers"], endpoint["idle_workers"]
    return None if total is None or idle is None else f"{max(0, total - idle)} of {total} busy"


PAGES: Final = (compute,)
