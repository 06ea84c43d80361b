"""`/compute/endpoints/<id>`: one Compute Endpoint, live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from nicegui import ui

from farcall.console.components import (
    Empty,
    Series,
    StatRow,
    Tag,
    TimeChart,
    code_viewer,
    details,
    error_box,
    identifier,
    link,
    section,
    time_chart,
    when,
)
from farcall.console.formats import as_json, count
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page
from farcall.console.pages.own_user_endpoints import Hear, own_user_endpoint, own_user_endpoints
from farcall.console.pages.snippet_form import snippet_form
from farcall.console.pages.tasks import task_table
from farcall.wire.errors import ApiError, Unauthenticated

__all__ = ["PAGES"]

Endpoint = Mapping[str, Any]
_STATS: Final = ("Status", "Outstanding tasks", "Pending tasks", "Total workers", "Idle workers", "Managers")
_SPANS: Final = {"hour": (3600, 60), "day": (86400, 900)}
"""Name → how far back, and the step of the points; seconds."""
_WORKERS: Final = (
    Series(name="workers", label="Workers", filled=True),
    Series(name="idle_workers", label="Idle workers"),
)
_TASKS: Final = (
    Series(name="outstanding", label="Outstanding tasks"),
    Series(name="succeeded", label="Succeeded", filled=True),
    Series(name="failed", label="Failed"),
)
_NO_TASKS: Final = Empty(title="No tasks of yours yet.", text="Run the program above, and they are listed here.")


@console_page("/compute/endpoints/{endpoint_id}", title="Endpoint", section="compute")
async def endpoint(view: View, endpoint_id: str) -> None:
    """One endpoint."""
    path = f"/v3/endpoints/{endpoint_id}"
    found, history, tasks = await asyncio.gather(
        view.api.get(path),
        _history(view, endpoint_id),
        _or_fault(view.api.get("/v3/tasks", endpoint_id=endpoint_id, limit=20)),
    )
    view.set_title(found["display_name"] or found["name"], Crumb("Compute", "/compute"))
    stats = StatRow(_STATS, label="State of the endpoint, live")
    stats.set({"Status": found["status"], **_figures(found)})
    with Tag("p").classes("fc-unknown"):
        Tag("span", "Last report: ")
        reported = when(found["last_report"])

    def hear(document: Mapping[str, Any]) -> None:
        stats.set({"Status": document["status"], **_figures(document["details"])})
        if document.get("open_tasks") is not None:
            stats.set({"Outstanding tasks": count(document["open_tasks"])})
        reported.set(document["last_report"])

    own: list[Hear] = []
    if found["kind"] == "user" and found["can_manage"]:
        own.append(await own_user_endpoint(view, found))
    _facts(found)
    if found["kind"] == "manager":
        own.append(own_user_endpoints(view))
    for each in (hear, *own):
        view.watch(endpoint_id, each)
    _program(view, found)
    _charts(view, endpoint_id, history)
    if found["kind"] != "user":
        _configuration(found)
    with section("Your recent tasks here"):
        if isinstance(tasks, ApiError):
            error_box("Your tasks cannot be shown", str(tasks))
        else:
            task_table(tasks["tasks"], caption="Your recent tasks here", empty=_NO_TASKS, with_endpoint=False)
            if tasks["tasks"]:
                link("All of them", f"/tasks?endpoint_id={endpoint_id}")


def _figures(numbers: Mapping[str, Any]) -> dict[str, str | None]:
    names = {
        "Outstanding tasks": "outstanding_tasks",
        "Pending tasks": "pending_tasks",
        "Total workers": "total_workers",
        "Idle workers": "idle_workers",
        "Managers": "managers",
    }
    return {label: count(numbers[name]) if numbers.get(name) is not None else None for label, name in names.items()}


def _facts(found: Endpoint) -> None:
    with section("Details"), details() as facts:
        facts.text("Display name", found["display_name"])
        facts.text("Name", found["name"])
        with facts.item("ID"):
            identifier(found["endpoint_id"], label="Copy the endpoint's id")
        facts.text("Description", found["description"])
        facts.text("Kind", _kind(found))
        facts.text("Owner", found["owner"]["username"])
        facts.text("Hostname", found["hostname"], "not known")
        facts.text("IP address", found["ip_address"], "not known")
        facts.text("Local user", found["local_user"], "not known")
        facts.text("Version", found["endpoint_version"], "not known")
        facts.text("Python", found["python_version"], "not known")
        facts.text("Dill and SDK", found["sdk_version"], "not known")
        facts.text("High assurance", "Yes" if found["high_assurance"] else "No")
        with facts.item("Authentication policy"):
            policy = found["authentication_policy"]
            if policy:
                link(policy, f"/policies/{policy}")
            else:
                Tag("span", "(none)").classes("fc-unknown")
        with facts.item("Registered"):
            when(found["registered_at"])
        if found["multi_user"] and found["can_manage"]:
            with facts.item("User endpoints"):
                link("In the console", f"/console/compute/{found['endpoint_id']}")


def _kind(found: Endpoint) -> str:
    kinds = {
        "manager": "Multi-user: starts an endpoint for each user",
        "user": "A user's endpoint of a multi-user endpoint",
        "direct": "For its owner, and whom it is shared with",
    }
    return kinds.get(found["kind"], str(found["kind"]))


def _program(view: View, found: Endpoint) -> None:
    with section("Use it from Python"):
        if found["kind"] == "user":
            Tag("p", "Tasks are submitted to the multi-user endpoint, which starts this one.")
            if found.get("manager_id"):
                link("The multi-user endpoint", f"/compute/endpoints/{found['manager_id']}")
            return
        snippet_form(view, found["endpoint_id"], found["user_config_schema"] if found["multi_user"] else None)


def _configuration(found: Endpoint) -> None:
    schema = found["user_config_schema"]
    texts = {
        "User Config Schema": as_json(schema) if schema else None,
        "User Config Template": found["user_config_template"],
        "Config": found["endpoint_config"],
    }
    missing = "(not set)" if found["can_manage"] else "(not set, or for its administrators only)"
    with section("Configuration"):
        with ui.tabs().props("align=left no-caps inline-label outside-arrows mobile-arrows") as tabs:
            for name in texts:
                ui.tab(name)
        with ui.tab_panels(tabs, value="User Config Schema", animated=False):
            for name, text in texts.items():
                with ui.tab_panel(name):
                    code_viewer(text, label=name, missing=missing)


def _charts(view: View, endpoint_id: str, history: Any) -> None:
    span = "day" if view.query.get("span") == "day" else "hour"
    with section("Workers and tasks over time"):
        if isinstance(history, ApiError):
            error_box("The history cannot be shown", str(history))
            return
        choice = ui.toggle({"hour": "Last hour", "day": "Last day"}, value=span).props("no-caps unelevated dense")
        choice.props.update({"role": "group", "aria-label": "How far back"})
        with Tag("div").classes("fc-two"):
            workers = time_chart(_WORKERS, history, label="Workers over time")
            tasks = time_chart(_TASKS, history, label="Tasks over time")

        async def change() -> None:
            view.set_query(span="day" if choice.value == "day" else None)
            points = await view.attempt(_points(view, endpoint_id))
            if points is not None:
                _show(points, workers, tasks)

        choice.on_value_change(change)


def _show(points: list[Mapping[str, Any]], *charts: TimeChart) -> None:
    for chart in charts:
        chart.set_points(points)


async def _points(view: View, endpoint_id: str) -> list[Mapping[str, Any]]:
    back_s, step_s = _SPANS["day" if view.query.get("span") == "day" else "hour"]
    now = time.time()
    answer = await view.api.get(f"/v3/endpoints/{endpoint_id}/history", since=now - back_s, until=now, step_s=step_s)
    points: list[Mapping[str, Any]] = answer["points"]
    return points


async def _history(view: View, endpoint_id: str) -> list[Mapping[str, Any]] | ApiError:
    found: list[Mapping[str, Any]] | ApiError = await _or_fault(_points(view, endpoint_id))
    return found


async def _or_fault(asking: Awaitable[Any]) -> Any:
    """What is answered, or why it is not: one part of a page that fails is no reason to hide the others."""
    try:
        return await asking
    except Unauthenticated:
        raise
    except ApiError as exc:
        return exc


PAGES: Final = (endpoint,)
