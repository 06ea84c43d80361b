"""The viewer's tasks: a list that its address narrows, and a page for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nicegui import ui

from farcall.console.components import (
    Column,
    DataTable,
    Empty,
    Tag,
    code_viewer,
    confirm,
    details,
    empty_state,
    error_box,
    identifier,
    link,
    section,
    when,
)
from farcall.console.components.form import Field, Form
from farcall.console.components.picture import timeline_picture
from farcall.console.components.stats import StatusDot
from farcall.console.formats import as_json, count, duration
from farcall.console.layout import Crumb
from farcall.console.login import login_path
from farcall.console.page import View, console_page, url
from farcall.console.pages.parts import more_of, notice
from farcall.console.views.states import TASK_STATES, is_over, state_word
from farcall.console.views.tasks import SPANS, TaskFilter, result_text, task_row
from farcall.console.views.timeline import timeline
from farcall.console.views.times import to_address
from farcall.console.views.values import short_id
from farcall.wire.auth import session_demand
from farcall.wire.errors import InvalidRequest

__all__ = ["PAGES", "task_table"]

_PAGE: Final = 50
_NO_TASKS: Final = Empty(title="No tasks.")
_FIRST_TASK: Final = (
    "from farcall import Executor\n"
    'with Executor(endpoint_id="ENDPOINT_ID") as executor:\n'
    "    print(executor.submit(sum, [1, 2, 3]).result())"
)


@console_page("/tasks", title="Tasks", section="tasks")
async def tasks(view: View) -> None:
    """What narrows the list, and the list."""
    asked = TaskFilter.from_address(view.query)
    fault: str | None = None
    found: Mapping[str, Any] = {"tasks": [], "next_cursor": None}
    try:
        found = await view.api.get("/v3/tasks", **asked.to_request(now=time.time(), limit=_PAGE))
    except InvalidRequest as exc:
        fault = str(exc)
    _filter(asked, fault)
    if found["tasks"] or fault:
        task_table(found["tasks"], caption="Tasks, newest first")
        more_of(view, found["next_cursor"])
    elif asked.is_narrowed or asked.cursor:
        empty_state("No task matches.", "Change the filters above, or clear them to see all of your tasks.")
        more_of(view, found["next_cursor"])
    else:
        empty_state("No tasks yet.", "Submit a function to an endpoint, and its task is listed here:", _FIRST_TASK)


def _filter(asked: TaskFilter, fault: str | None) -> None:
    spans = [("", "Any time"), *((name, title) for name, (title, _) in SPANS.items())]
    fields = [
        Field(
            name="state",
            label="State",
            kind="choice",
            options=[("", "Any"), *TASK_STATES.items()],
            value=asked.state or "",
        ),
        Field(name="last", label="Submitted in", kind="choice", options=spans, value=asked.last or ""),
        Field(name="since", label="Submitted from", kind="moment", value=to_address(asked.since) or ""),
        Field(name="until", label="Submitted before", kind="moment", value=to_address(asked.until) or ""),
        Field(name="endpoint_id", label="Endpoint ID", value=asked.endpoint_id or ""),
        Field(name="function_id", label="Function ID", value=asked.function_id or ""),
        Field(name="task_group_id", label="Task group ID", value=asked.task_group_id or ""),
    ]
    form = Form(fields, label="Filter tasks", send="Filter", address="/tasks", cancel="/tasks")
    if fault:
        form.tell({}, fault)


def task_table(
    documents: Sequence[Mapping[str, Any]], *, caption: str, empty: Empty = _NO_TASKS, with_endpoint: bool = True
) -> None:
    """Tasks, as the interface lists them."""
    now = time.time()
    columns = [
        Column(name="state", label="State", kind="status", show=state_word),
        Column(
            name="task_id",
            label="Task",
            kind="code",
            show=lambda text: short_id(text) or "",
            href=lambda row: url(f"/tasks/{row['task_id']}"),
        ),
        Column(name="function", label="Function", href=lambda row: _page_of("/functions", row["function_id"])),
        Column(name="endpoint", label="Endpoint", href=lambda row: _page_of("/compute/endpoints", row["endpoint_id"])),
        Column(name="submitted", label="Submitted", kind="time"),
        Column(name="took", label="Took", kind="number", show=duration),
        Column(name="error", label="Error"),
    ]
    rows = [task_row(each, now=now) for each in documents]
    shown = [each for each in columns if with_endpoint or each.name != "endpoint"]
    DataTable(shown, rows, caption=caption, empty=empty)


@console_page("/tasks/{task_id}", title="Task", section="tasks")
async def task(view: View, task_id: str) -> None:
    """What became of one task so far; of one that goes on, again whenever its endpoint has news."""
    shown = _TaskPage(view, f"/v3/tasks/{task_id}")
    await shown.read()
    told = shown.document
    view.set_title(f"Task {short_id(told['task_id'])}", Crumb("Tasks", "/tasks"))
    if not is_over(told["state"]):
        view.watch(told["user_endpoint_id"] or told["endpoint_id"], shown.hear)


class _TaskPage:
    def __init__(self, view: View, path: str) -> None:
        self._view = view
        self._path = path
        self._place = Tag("div")
        self._is_asking = False
        self.document: Mapping[str, Any] = {}

    async def read(self) -> None:
        """Ask the interface, and show what is new."""
        document = await self._view.api.get(self._path)
        if document != self.document:
            self.document = document
            self._place.clear()
            with self._place:
                self._build(document)

    def hear(self, _news: Mapping[str, Any]) -> None:
        """Something happened at the endpoint: perhaps to this task."""
        if not is_over(self.document["state"]) and not self._is_asking:
            self._is_asking = True
            ui.timer(0, self._read_again, once=True)

    async def _read_again(self) -> None:
        try:
            await self._view.attempt(self.read())
        finally:
            self._is_asking = False

    async def _cancel(self) -> None:
        with self._view.client.content:  # what is shown here may be replaced meanwhile
            is_meant = await confirm(
                "Cancel this task?",
                "It ends as cancelled at once, and what it has computed so far is lost.",
                "Cancel the task",
                dangerous=True,
            )
        if is_meant:
            await self._view.attempt(self._view.api.post(f"{self._path}/cancel"), "The task is cancelled.")
            await self._view.attempt(self.read())

    def _build(self, told: Mapping[str, Any]) -> None:
        with Tag("div").classes("fc-row"):
            _state(told["state"])
            if told["can_cancel"]:
                ui.button("Cancel task", on_click=self._cancel).props("outline no-caps color=negative")
        if told["waiting_because"]:
            notice("Why it waits", told["waiting_because"])
        if told["withheld"]:
            notice("Error and result are withheld", told["withheld"]["text"])
            demand = session_demand(told["withheld"])
            if demand is not None:
                link("Log in as it asks", login_path(self._view.here, **demand.to_query())).classes("fc-button")
        if told["error"]:
            _error(told["error"])
        with section("Timeline"):
            timeline_picture(timeline(told["timeline"], now=time.time()))
        with section("Details"):
            _facts(told)
        for title, member in (
            ("Resource specification", "resource_specification"),
            ("Options of the user endpoint", "user_endpoint_config"),
        ):
            if told[member]:
                with section(title):
                    code_viewer(as_json(told[member]), label=title)


def _state(state: str) -> None:
    dot = StatusDot(state)
    dot.set(state_word(state))


def _error(error: Mapping[str, Any]) -> None:
    error_box(error["code"] or "The task failed", error["text"])
    if error["traceback"]:
        with section("Traceback"):
            code_viewer(error["traceback"], label="Traceback")


def _facts(told: Mapping[str, Any]) -> None:
    with details() as facts:
        with facts.item("Task ID"):
            identifier(told["task_id"], label="Copy the task ID")
        with facts.item("Function"):
            link(told["function_name"] or told["function_id"], _page_of("/functions", told["function_id"]) or "#")
        with facts.item("Endpoint"):
            target = _page_of("/compute/endpoints", told["endpoint_id"])
            link(told["endpoint_name"] or told["endpoint_id"], target or "#")
        if told["user_endpoint_id"]:
            with facts.item("User endpoint"):
                identifier(told["user_endpoint_id"], label="Copy the user endpoint's ID")
        with facts.item("Task group"):
            link(told["task_group_id"], url("/tasks", task_group_id=told["task_group_id"]))
        with facts.item("Submitted"):
            when(told["submitted_at"], absolute=True)
        with facts.item("Ended"):
            when(told["ended_at"], absolute=True)
        facts.text("Result", result_text(told))
        facts.text("Attempts", None if told["attempts"] is None else count(told["attempts"]), "not told")


def _page_of(section: str, id: str | None) -> str | None:
    return url(f"{section}/{id}") if id else None


PAGES: Final = (tasks, task)
