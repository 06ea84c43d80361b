"""For operators: programs and groups."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from farcall.console.components import (
    Column,
    DataTable,
    Empty,
    Tag,
    confirm,
    details,
    identifier,
    section,
    when,
)
from farcall.console.components.form import Field, Form
from farcall.console.formats import plural
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.pages.operator_tabs import operator_tabs
from farcall.console.pages.parts import asked_in, more_of
from farcall.console.views.operators import client_row, group_row
from farcall.console.views.values import mappings, short_id
from farcall.wire.errors import NotFound

__all__ = ["PAGES"]

_PAGE: Final = 50
_WAY: Final = Crumb("Operator", "/operator")


@console_page("/operator/clients", title="Clients", section="operator", operators_only=True)
async def clients(view: View) -> None:
    """Registered programs, by name."""
    view.set_title("Clients", _WAY)
    operator_tabs("clients")
    asked = asked_in(view, revoked=("true", "false"))
    found = await view.api.get("/v3/admin/clients", limit=_PAGE, **asked)
    Form(
        [
            Field(name="search", label="Name contains", value=asked.get("search", "")),
            Field(
                name="revoked",
                label="State",
                kind="choice",
                options=(("", "Any"), ("false", "Enabled"), ("true", "Revoked")),
                value=asked.get("revoked", ""),
            ),
        ],
        label="Find clients",
        send="Find",
        address="/operator/clients",
        cancel="/operator/clients",
    )
    Tag("p", f"{plural(found['total'], 'client')} found")
    columns = (
        Column(name="name", label="Client", href=lambda row: url(f"/operator/clients/{row['client_id']}")),
        Column(name="client_id", label="Client ID", kind="code"),
        Column(name="state", label="State", kind="status"),
        Column(name="secret", label="Has a secret"),
        Column(name="redirects", label="Leads back to"),
        Column(name="owner", label="Answers for it"),
        Column(name="created", label="Created", kind="time"),
    )
    empty = Empty(
        title="No clients.",
        text="A program with a secret of its own is made on the service's machine:",
        commands='farcall-service client create "Nightly run"',
    )
    rows = [client_row(each) for each in found["clients"]]
    DataTable(columns, rows, caption="Clients, by name", empty=empty)
    more_of(view, found["next_cursor"], first="First", next="Next")


@console_page("/operator/clients/{client_id}", title="Client", section="operator", operators_only=True)
async def client(view: View, client_id: str) -> None:
    """One program, and the button that voids its secret."""
    found = await view.api.get("/v3/admin/clients", search=client_id, limit=10)
    told = next((each for each in mappings(found["clients"]) if each["client_id"] == client_id), None)
    if told is None:
        raise NotFound(f"There is no client {client_id} at this service. Go back to the list of clients.")
    row = client_row(told)
    view.set_title(told["name"], _WAY, Crumb("Clients", "/operator/clients"))
    with section("Details"), details() as facts:
        with facts.item("Client ID"):
            identifier(client_id, label="Copy the client ID")
        facts.text("State", row["state"])
        facts.text("Has a secret", row["secret"])
        facts.text("Leads back to", row["redirects"])
        facts.text("Answers for it", row["owner"])
        with facts.item("Created"):
            when(told["created_at"], absolute=True)
        with facts.item("Revoked"):
            when(told["revoked_at"], absolute=True)

    async def revoke() -> None:
        explanation = "Its secret and every token that it was given stop counting at once, for good."
        if not await confirm(f"Revoke {told['name']}?", explanation, "Revoke", dangerous=True):
            return
        if await view.attempt(view.api.post(f"/v3/admin/clients/{client_id}/revoke")) is not None:
            view.reload()

    if told["revoked_at"] is None:
        ui.button("Revoke this client", on_click=revoke).props("outline no-caps color=negative")


@console_page("/operator/groups", title="Groups", section="operator", operators_only=True)
async def groups(view: View) -> None:
    """Groups and who is in them, by name."""
    view.set_title("Groups", _WAY)
    operator_tabs("groups")
    asked = asked_in(view)
    found = await view.api.get("/v3/admin/groups", limit=_PAGE, **asked)
    Form(
        [Field(name="search", label="Name or description contains", value=asked.get("search", ""))],
        label="Find groups",
        send="Find",
        address="/operator/groups",
        cancel="/operator/groups",
    )
    Tag("p", f"{plural(found['total'], 'group')} found")
    columns = (
        Column(name="name", label="Group"),
        Column(name="description", label="Description"),
        Column(name="count", label="Members", kind="number"),
        Column(name="members", label="Who"),
        Column(name="id", label="Group ID", kind="code", show=lambda id: short_id(id) or ""),
        Column(name="created", label="Created", kind="time"),
    )
    empty = Empty(
        title="No groups.",
        text="Functions and endpoints can be shared with groups. They are made on the service's machine:",
        commands="farcall-service group create lab\nfarcall-service group add lab ada",
    )
    DataTable(columns, [group_row(each) for each in found["groups"]], caption="Groups, by name", empty=empty)
    more_of(view, found["next_cursor"], first="First", next="Next")


PAGES: Final = (clients, client, groups)
