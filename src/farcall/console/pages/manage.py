"""The administrator's console: a multi-user endpoint's user endpoints, live. `user_endpoint` has a page for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from farcall.console.components import (
    Column,
    DataTable,
    Empty,
    Tag,
    empty_state,
    status_dot,
)
from farcall.console.formats import plural
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.pages.user_endpoint import PERIOD_S, Times, name_of
from farcall.console.views.user_endpoints import (
    user_endpoint_rows,
)
from farcall.console.views.values import mapping, number, short_id

__all__ = ["PAGES"]

_MOST: Final = 500
_NONE_RUN: Final = Empty(
    title="No user endpoints run.",
    text="One starts when somebody submits a task to this endpoint, and is listed here then.",
)


@console_page("/console/compute", title="Console", section="console")
async def console(view: View) -> None:
    """The multi-user endpoints that the viewer manages."""
    managed = await _managed(view)
    if not managed:
        empty_state(
            "You manage no multi-user endpoint.",
            "One for many users, each with their own account there, is made by an administrator of the machine:",
            "farcall-endpoint configure --multi-user true my-cluster\nfarcall-endpoint start my-cluster",
        )
        return
    Tag("p", f"{plural(len(managed), 'multi-user endpoint')} that you manage. Pick one to see who runs what there.")
    columns = (
        Column(name="name", label="Endpoint", href=lambda row: url(f"/console/compute/{row['endpoint_id']}")),
        Column(name="status", label="Status", kind="status"),
        Column(name="hostname", label="Hostname"),
        Column(name="owner", label="Owner"),
        Column(name="last_report", label="Last report", kind="time"),
    )
    rows = [{**each, "name": name_of(each), "owner": each["owner"]["username"]} for each in managed]
    DataTable(columns, rows, caption="Multi-user endpoints that you manage", empty=_NONE_RUN, sort_by="name")


async def _managed(view: View) -> list[Mapping[str, Any]]:
    found = await view.api.get("/v3/endpoints", kind="manager", limit=_MOST)
    return [each for each in found["endpoints"] if each["can_manage"]]


@console_page("/console/compute/{manager_id}", title="Console", section="console")
async def manager(view: View, manager_id: str) -> None:
    """Its user endpoints: the table of the deck, kept up to date."""
    endpoint = await view.api.get(f"/v3/endpoints/{manager_id}")
    manager_id = endpoint["endpoint_id"]
    told = await view.api.get(f"/v3/endpoints/{manager_id}/console")
    view.set_title(f"User endpoints of {name_of(endpoint)}", Crumb("Console", "/console/compute"))
    _picker(view, await _managed(view), manager_id)
    rows = user_endpoint_rows(told["user_endpoints"])
    with Tag("div").classes("fc-row"):
        how_many = Tag("p")
        dot = status_dot(endpoint["status"])
        times = Times()
    columns = (
        Column(name="pid", label="PID", href=lambda row: url(f"/console/compute/{manager_id}/{row['id']}")),
        Column(name="account", label="Account"),
        Column(name="local_user", label="Local User"),
        Column(name="queue", label="Queue"),
        Column(name="started", label="Running (since)", kind="time"),
        Column(name="nodes", label="Nodes", kind="number"),
        Column(name="workers", label="Workers", kind="number"),
        Column(name="active", label="Active (%)", kind="number"),
        Column(name="idle", label="Idle", kind="number"),
        Column(name="status", label="Status", kind="status"),
        Column(name="id", label="User Endpoint ID", kind="code", show=lambda id: short_id(id) or ""),
    )
    table = DataTable(
        columns,
        rows,
        caption=f"User endpoints of {name_of(endpoint)}",
        empty=_NONE_RUN,
        sort_by="workers",
        descending=True,
        csv_name="user-endpoints.csv",
    )

    def show(rows: list[dict[str, Any]], last_report: Any, period_s: Any) -> None:
        online = sum(row["status"] == "online" for row in rows)
        how_many.text = f"{plural(len(rows), 'user endpoint')}, {online} online."
        times.show(rows, last_report, period_s)
        table.set_rows(rows)

    def hear(document: Mapping[str, Any]) -> None:
        dot.set(document["status"])
        period = number(mapping(document["details"]).get("heartbeat_period")) or PERIOD_S
        show(user_endpoint_rows(document["user_endpoints"]), document["last_report"], period)

    show(rows, endpoint["last_report"], PERIOD_S)
    view.watch(manager_id, hear)


def _picker(view: View, managed: list[Mapping[str, Any]], chosen: str) -> None:
    if len(managed) < 2:
        return
    with Tag("div").classes("fc-picker fc-row"):
        label = Tag("label", "Endpoint")
        label.props["for"] = "picked-endpoint"
        with Tag("select") as select:
            select.props["id"] = "picked-endpoint"
            for each in managed:
                option = Tag("option", name_of(each))
                option.props["value"] = each["endpoint_id"]
                option.props["selected"] = each["endpoint_id"] == chosen
        known = {each["endpoint_id"] for each in managed}

        def picked(event: Any) -> None:
            if event.args in known:
                view.go(url(f"/console/compute/{event.args}"))

        select.on("change", picked, js_handler="(event) => emit(event.target.value)")


PAGES: Final = (console, manager)
