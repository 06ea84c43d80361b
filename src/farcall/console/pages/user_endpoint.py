"""One user endpoint: what it is, what it does, how it was configured, and the button that ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from farcall.console.components import (
    Series,
    StatRow,
    Tag,
    code_viewer,
    details,
    identifier,
    section,
    time_chart,
    when,
)
from farcall.console.formats import count, duration, percent
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.pages.own_user_endpoints import stop_button
from farcall.console.views.user_endpoints import (
    data_time,
    next_update,
    running_text,
    user_endpoint_row,
)
from farcall.console.views.values import mappings, number, short_id, text
from farcall.wire.errors import ApiError, NotFound

__all__ = ["PAGES", "PERIOD_S", "Times", "name_of"]

PERIOD_S: Final = 30.0
"""Between two reports, if the endpoint does not say."""
_UTILISATION: Final = (
    Series(name="workers", label="Workers", filled=True),
    Series(name="busy", label="Active workers"),
)
_HOUR: Final = (3600, 60)


@console_page("/console/compute/{manager_id}/{user_endpoint_id}", title="User endpoint", section="console")
async def user_endpoint(view: View, manager_id: str, user_endpoint_id: str) -> None:
    """One process: what it is, what it does, how it was configured, and the button that ends it."""
    endpoint = await view.api.get(f"/v3/endpoints/{manager_id}")
    manager_id = endpoint["endpoint_id"]
    told = await view.api.get(
        f"/v3/endpoints/{manager_id}/console", user_endpoint_id=user_endpoint_id, include_fields="config"
    )
    found = mappings(told["user_endpoints"])
    if not found:
        raise NotFound(f"There is no user endpoint {user_endpoint_id} of this endpoint. Go back to the list.")
    document = found[0]
    row = user_endpoint_row(document)
    view.set_title(
        f"User endpoint {row['pid'] or short_id(row['id'])}",
        Crumb("Console", "/console/compute"),
        Crumb(name_of(endpoint), url(f"/console/compute/{manager_id}")),
    )
    page = _UserEndpointPage(view, row)
    _facts(document, row)
    await _history(view, row["id"])
    with section("Configuration"):
        code_viewer(text(document.get("config")), label="Configuration", missing="Not reported.")

    def hear(news: Mapping[str, Any]) -> None:
        for each in mappings(news["user_endpoints"]):
            if each.get("user_endpoint_id") == row["id"]:
                page.show(user_endpoint_row(each))

    view.watch(manager_id, hear)


class _UserEndpointPage:
    """What changes while one looks."""

    def __init__(self, view: View, row: dict[str, Any]) -> None:
        with Tag("div").classes("fc-row"):
            self._times = Times()
            self._stop = stop_button(view, row["id"])
        with section("Activity"):
            tasks = ("Status", "Running", "Executed tasks", "Running tasks", "Queued tasks")
            workers = ("Nodes", "Workers", "Active workers", "Worker utilization", "Idle workers")
            self._tasks = StatRow(tasks, label="What it does, live")
            self._workers = StatRow(workers, label="Its nodes and workers, live")
            with Tag("p"):
                Tag("span", "Start time: ").classes("fc-unknown")
                self._start = when(None, absolute=True)
        self.show(row)

    def show(self, row: dict[str, Any]) -> None:
        """Other figures."""
        self._times.show([row], None, PERIOD_S)
        self._start.set(row["started"])
        self._stop.show(row["status"], (row["running"] or 0) + (row["queued"] or 0))
        self._tasks.set(
            {
                "Status": row["status"],
                "Running": running_text(row, now=time.time()),
                "Executed tasks": count(row["executed"]),
                "Running tasks": count(row["running"]),
                "Queued tasks": count(row["queued"]),
            }
        )
        self._workers.set(
            {
                "Nodes": count(row["nodes"]),
                "Workers": count(row["workers"]),
                "Active workers": count(row["busy"]),
                "Worker utilization": percent(None if row["active"] is None else row["active"] / 100),
                "Idle workers": count(row["idle"]),
            }
        )


def _facts(document: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    with section("Details"), details() as facts:
        facts.text("PID", None if row["pid"] is None else str(row["pid"]), "not reported")
        facts.text("Local User", row["local_user"], "not reported")
        facts.text("Account", row["account"], "not reported")
        facts.text("Queue", row["queue"], "not reported")
        facts.text("Endpoint Version", text(document.get("endpoint_version")), "not reported")
        facts.text("Python", text(document.get("python_version")), "not reported")
        engines = [text(document.get(name)) for name in ("engine_type", "provider_type")]
        facts.text("Engine", ", ".join(each for each in engines if each), "not reported")
        with facts.item("User Endpoint ID"):
            identifier(row["id"], label="Copy the user endpoint's ID")


async def _history(view: View, user_endpoint_id: str) -> None:
    length_s, step_s = _HOUR
    now = time.time()
    with section("Worker utilization, the last hour"):
        try:
            told = await view.api.get(
                f"/v3/endpoints/{user_endpoint_id}/history", since=now - length_s, until=now, step_s=step_s
            )
        except ApiError as exc:
            Tag("p", str(exc)).classes("fc-unknown")
            return
        points = [_point(each) for each in mappings(told["points"])]
        label = f"Workers of the user endpoint over the last {duration(length_s)}"
        time_chart(_UTILISATION, points, label=label)


def _point(told: Mapping[str, Any]) -> dict[str, Any]:
    workers, idle = number(told.get("workers")), number(told.get("idle_workers"))
    busy = None if workers is None or idle is None else round(max(0.0, workers - idle), 2)
    return {"at": number(told.get("at")) or 0, "workers": workers, "busy": busy}


class Times:
    """Of when what is shown is, and when the next is due."""

    def __init__(self) -> None:
        with Tag("p").classes("fc-unknown"):
            Tag("span", "Data of ")
            self._data = when(None, absolute=True)
            Tag("span", ". Next update due ")
            self._next = when(None, absolute=True)
            Tag("span", ", or sooner.")

    def show(self, rows: list[dict[str, Any]], last_report: Any, period_s: Any) -> None:
        self._data.set(data_time(rows, last_report))
        self._next.set(next_update(rows, last_report, period_s, now=time.time()))


def name_of(endpoint: Mapping[str, Any]) -> str:
    """What an endpoint is called."""
    return str(endpoint["display_name"] or endpoint["name"])


PAGES: Final = (user_endpoint,)
