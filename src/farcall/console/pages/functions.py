"""Functions: the viewer's own and those that others share, and a page for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from farcall.console.components import (
    Column,
    DataTable,
    Empty,
    Tag,
    code_viewer,
    details,
    empty_state,
    identifier,
    link,
    section,
    when,
)
from farcall.console.components.form import Field, Form
from farcall.console.formats import as_json, count
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.pages.parts import more_of, tabs
from farcall.console.pages.tasks import task_table
from farcall.console.views.functions import function_row, run_snippet, source_of, versions_text, who_may_run
from farcall.console.views.values import mappings

__all__ = ["PAGES"]

_PAGE: Final = 50
_FIRST_FUNCTION: Final = (
    "from farcall import Client\ndef double(x):\n    return 2 * x\nprint(Client().register_function(double))"
)
_COLUMNS: Final = (
    Column(name="name", label="Function", href=lambda row: url(f"/functions/{row['function_id']}")),
    Column(name="description", label="Description"),
    Column(name="owner", label="Owner"),
    Column(name="shared", label="Who may run it"),
    Column(name="registered", label="Registered", kind="time"),
    Column(name="last_run", label="Last run", kind="time"),
    Column(name="runs", label="Runs", kind="number"),
)


@console_page("/functions", title="Functions", section="functions")
async def functions(view: View) -> None:
    """One's own, or others'; newest first."""
    is_shared = view.query.get("role") == "shared"
    search = view.query.get("search", "")[:200]
    role = "shared" if is_shared else "mine"
    found = await view.api.get("/v3/functions", role=role, search=search, limit=_PAGE, cursor=view.query.get("cursor"))
    tabs(
        "Whose functions",
        [("Mine", "/functions", not is_shared), ("Shared with me", url("/functions", role="shared"), is_shared)],
    )
    Form(
        [Field(name="search", label="Name contains", value=search)],
        label="Find functions",
        send="Find",
        address="/functions",
        keep={"role": "shared"} if is_shared else {},
        cancel=url("/functions", role="shared" if is_shared else None),
    )
    if found["functions"]:
        rows = [function_row(each) for each in found["functions"]]
        DataTable(_COLUMNS, rows, caption="Functions, newest first", empty=Empty(title="No functions."))
    elif search or "cursor" in view.query:
        empty_state("No function matches.", "Look for another part of the name, or clear the field.")
    elif is_shared:
        empty_state(
            "Nobody shares a function with you.",
            "Functions are listed here that are public, or for a group that you are in.",
        )
    else:
        empty_state("No functions yet.", "Submitting a function registers it; so does this:", _FIRST_FUNCTION)
    more_of(view, found["next_cursor"])


@console_page("/functions/{function_id}", title="Function", section="functions")
async def function(view: View, function_id: str) -> None:
    """What it is, what it says, and the viewer's last runs of it."""
    told = await view.api.get(f"/v3/functions/{function_id}")
    function_id = told["function_id"]
    view.set_title(function_row(told)["name"], Crumb("Functions", "/functions"))
    if told["description"]:
        Tag("p", told["description"]).classes("fc-description")
    with section("Details"):
        _facts(told)
    source, note = source_of(told)
    with section("Source"):
        if note:
            Tag("p", note).classes("fc-unknown")
        if source is not None:
            code_viewer(source, label="Source of the function")
    if told["metadata"]:
        with section("Metadata"):
            code_viewer(as_json(told["metadata"]), label="Metadata")
    with section("Run it"):
        code_viewer(run_snippet(function_id), label="A program that runs the function")
    with section("Your recent runs"):
        if told["recent_tasks"]:
            task_table(told["recent_tasks"], caption="Your recent runs, newest first")
            link("All of them", url("/tasks", function_id=function_id))
        else:
            Tag("p", "None yet. The program above makes one.").classes("fc-unknown")


def _facts(told: Mapping[str, Any]) -> None:
    with details() as facts:
        with facts.item("Function ID"):
            identifier(told["function_id"], label="Copy the function ID")
        facts.text("Owner", "you" if told["is_mine"] else told["owner"]["username"])
        with facts.item("Who may run it"):
            Tag("span", who_may_run(told))
            groups = [each["name"] or each["id"] for each in mappings(told["shared_with"]) if each["kind"] == "group"]
            if groups:
                Tag("div", ", ".join(groups)).classes("fc-unknown")
        if told["ha_endpoint_id"]:
            with facts.item("Only at"):
                link(told["ha_endpoint_id"], url(f"/compute/endpoints/{told['ha_endpoint_id']}"))
        with facts.item("Registered"):
            when(told["registered_at"], absolute=True)
        with facts.item("Last run"):
            when(told["last_run_at"])
        facts.text("Runs", count(told["runs"]))
        for name, version in versions_text(told).items():
            facts.text(name, version)


PAGES: Final = (functions, function)
