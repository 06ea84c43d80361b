"""What users see of user endpoints that are theirs: on the page of the manager, and on the user endpoint's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from nicegui import ui

from farcall.console.components import Column, DataTable, Empty, Tag, code_viewer, confirm, section
from farcall.console.formats import as_json, plural
from farcall.console.page import View, url
from farcall.console.views.user_endpoints import user_endpoint_rows
from farcall.console.views.values import mapping, mappings, short_id, text, whole
from farcall.wire.errors import ApiError

__all__ = ["Hear", "own_user_endpoint", "own_user_endpoints", "stop_button"]

Hear = Callable[[Mapping[str, Any]], None]
_NONE_RUN: Final = Empty(title="None runs for you.", text="One starts when you submit a task.")


def own_user_endpoints(view: View) -> Hear:
    """A table of those of the viewer. Returns what takes the manager's news (`Live.watch`)."""
    columns = (
        Column(name="status", label="Status", kind="status"),
        Column(
            name="id",
            label="User endpoint",
            kind="code",
            show=lambda id: short_id(id) or "",
            href=lambda row: url(f"/compute/endpoints/{row['id']}"),
        ),
        Column(name="pid", label="PID"),
        Column(name="account", label="Account"),
        Column(name="queue", label="Queue"),
        Column(name="started", label="Running (since)", kind="time"),
        Column(name="running", label="Running tasks", kind="number"),
        Column(name="queued", label="Queued tasks", kind="number"),
        Column(name="workers", label="Workers", kind="number"),
        Column(name="idle", label="Idle", kind="number"),
    )
    with section("Your user endpoints"):
        Tag("p", "One runs for you with each set of options, on the machine's own account of yours.")
        table = DataTable(columns, [], caption="Your user endpoints", empty=_NONE_RUN)

    def hear(document: Mapping[str, Any]) -> None:
        found = mappings(document["user_endpoints"])
        table.set_rows(
            user_endpoint_rows([each for each in found if each.get("identity_id") == view.session.identity_id])
        )

    return hear


async def own_user_endpoint(view: View, found: Mapping[str, Any]) -> Hear:
    """How a user endpoint was started, and what ends it. Returns what takes its news."""
    config: str | None = None
    try:
        told = await view.api.get(f"/v3/endpoints/{found['endpoint_id']}/console", include_fields="config")
        config = next((text(each.get("config")) for each in mappings(told["user_endpoints"])), None)
    except ApiError:
        pass  # the rest of the page is no worse for it
    button = stop_button(view, found["endpoint_id"])
    with section("Configuration"), Tag("div").classes("fc-two"):
        with Tag("div"):
            Tag("h3", "Options it was started with")
            options = mapping(found.get("user_endpoint_config"))
            label = "Options it was started with"
            code_viewer(as_json(options) if options else None, label=label, missing="(none)")
        with Tag("div"):
            Tag("h3", "Configuration as it runs")
            code_viewer(config, label="Configuration as it runs", missing="Not reported.")

    def hear(document: Mapping[str, Any]) -> None:
        numbers = mapping(document["details"])
        button.show(document["status"], whole(document["open_tasks"]) or whole(numbers.get("outstanding_tasks")) or 0)

    button.show(found["status"], whole(found["outstanding_tasks"]) or 0)
    return hear


class _StopButton:
    def __init__(self, view: View, user_endpoint_id: str) -> None:
        self._view = view
        self._id = user_endpoint_id
        self._open_tasks = 0
        self._button = ui.button("Stop this user endpoint", on_click=self._ask)
        self._button.props("outline no-caps color=negative")

    def show(self, status: str, open_tasks: int) -> None:
        """Whether there is something to stop, and what that would end."""
        self._button.set_enabled(status == "online")
        self._open_tasks = open_tasks

    async def _ask(self) -> None:
        is_meant = await confirm(
            "Stop this user endpoint?",
            f"Its {plural(self._open_tasks, 'task')} that have not ended fail, and their submitters are told who "
            "stopped it. Another one starts when somebody submits again.",
            "Stop it",
            dangerous=True,
        )
        if is_meant:
            stopping = self._view.api.post(f"/v3/endpoints/{self._id}/stop")
            await self._view.attempt(stopping, "It has been told to stop.")


def stop_button(view: View, user_endpoint_id: str) -> _StopButton:
    """Ends the process of a user endpoint, after a question."""
    return _StopButton(view, user_endpoint_id)
