"""For operators: users, and what can be done about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from farcall.console.components import (
    Column,
    DataTable,
    Empty,
    Tag,
    confirm,
    details,
    identifier,
    link,
    section,
    status_dot,
    when,
)
from farcall.console.components.form import Field, Form
from farcall.console.formats import plural
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.pages.operator_tabs import operator_tabs
from farcall.console.pages.parts import asked_in, more_of, notice
from farcall.console.views.operators import state_of_user, user_row
from farcall.console.views.values import mappings
from farcall.wire.errors import NotFound

__all__ = ["PAGES"]

_PAGE: Final = 50
_WAY: Final = Crumb("Operator", "/operator")
_STATES: Final = (("", "Any"), ("false", "Enabled"), ("true", "Disabled"))
_KINDS: Final = (("", "Any"), ("user", "People"), ("client", "Programs"))


@console_page("/operator/users", title="Users", section="operator", operators_only=True)
async def users(view: View) -> None:
    """Identities, by user name."""
    view.set_title("Users", _WAY)
    operator_tabs("users")
    asked = asked_in(view, kind=("user", "client"), disabled=("true", "false"), admin=("true", "false"))
    found = await view.api.get("/v3/admin/users", limit=_PAGE, **asked)
    Form(
        [
            Field(name="search", label="Name or e-mail contains", value=asked.get("search", "")),
            Field(name="kind", label="Kind", kind="choice", options=_KINDS, value=asked.get("kind", "")),
            Field(name="disabled", label="State", kind="choice", options=_STATES, value=asked.get("disabled", "")),
            Field(
                name="admin",
                label="Operator",
                kind="choice",
                options=(("", "Any"), ("true", "Yes"), ("false", "No")),
                value=asked.get("admin", ""),
            ),
        ],
        label="Find users",
        send="Find",
        address="/operator/users",
        cancel="/operator/users",
    )
    with Tag("div").classes("fc-row"):
        Tag("p", f"{plural(found['total'], 'identity', 'identities')} found")
        link("Add a user", "/operator/users/new").classes("fc-button")
    columns = (
        Column(name="username", label="User name", href=lambda row: url(f"/operator/users/{row['id']}")),
        Column(name="name", label="Name"),
        Column(name="email", label="E-mail"),
        Column(name="kind", label="Kind"),
        Column(name="provider", label="Vouched for by"),
        Column(name="state", label="State", kind="status"),
        Column(name="operator", label="Operator"),
        Column(name="second_factor", label="Second factor"),
        Column(name="last_login", label="Last login", kind="time"),
        Column(name="created", label="Created", kind="time"),
    )
    rows = [user_row(each) for each in found["users"]]
    empty = Empty(title="No user matches.", text="Change or clear the fields above.")
    DataTable(columns, rows, caption="Users, by name", empty=empty, csv_name="users.csv")
    more_of(view, found["next_cursor"], first="First", next="Next")


@console_page("/operator/users/new", title="Add a user", section="operator", operators_only=True)
async def new_user(view: View) -> None:
    """A local account, whose password is shown once."""
    view.set_title("Add a user", _WAY, Crumb("Users", "/operator/users"))
    place = Tag("div")

    async def send(values: Mapping[str, Any]) -> None:
        document = {name: str(value).strip() for name, value in values.items() if str(value or "").strip()}
        if "username" not in document:
            form.tell({"username": "Write a user name."})
            return
        made = await view.attempt(view.api.post("/v3/admin/users", document))
        if made:
            place.clear()
            with place:
                _password(made["user"]["username"], made["password"])
                link("To the user's page", url(f"/operator/users/{made['user']['id']}"))

    with place:
        form = Form(
            [
                Field(
                    name="username", label="User name", required=True, help="Without a domain: it is this service's."
                ),
                Field(name="display_name", label="Name"),
                Field(name="email", label="E-mail"),
                Field(name="organization", label="Organization"),
            ],
            label="New user",
            send="Add",
            cancel="/operator/users",
            on_send=send,
        )


@console_page("/operator/users/{identity_id}", title="User", section="operator", operators_only=True)
async def user(view: View, identity_id: str) -> None:
    """One identity, and what an operator can do about it."""
    page = _UserPage(view, await _find_user(view, identity_id))
    page.build()


async def _find_user(view: View, identity_id: str) -> Mapping[str, Any]:
    found = await view.api.get("/v3/admin/users", search=identity_id, limit=10)
    for each in mappings(found["users"]):
        if each["id"] == identity_id:
            return each
    raise NotFound(f"There is no user {identity_id} at this service. Go back to the list of users.")


class _UserPage:
    def __init__(self, view: View, told: Mapping[str, Any]) -> None:
        self._view = view
        self._told = told
        self._place = Tag("div")
        self._said = Tag("div")
        view.set_title(told["username"], _WAY, Crumb("Users", "/operator/users"))

    def build(self) -> None:
        """Show what is known now."""
        told = self._told
        self._place.clear()
        with self._place:
            with Tag("div").classes("fc-row"):
                status_dot(state_of_user(told))
                link("What they did", url("/operator/audit", actor=told["username"]))
            with section("Details"):
                _user_facts(told)
            with section("What you can do"), Tag("div").classes("fc-row"):
                self._buttons()

    def _buttons(self) -> None:
        told, name = self._told, self._told["username"]
        if told["disabled_at"] is None:
            self._button(
                "Disable",
                "disable",
                f"Disable {name}?",
                "They cannot log in; their tokens and programs stop working at once, and so do their endpoints. What "
                "they have stays, and they can be enabled again.",
            )
        else:
            self._button("Enable", "enable", f"Enable {name}?", "They can log in again.")
        self._button(
            "Log out everywhere", "log-out", f"Log {name} out?", "Every token of theirs stops counting at once."
        )
        if told["has_password"]:
            self._button(
                "Reset password",
                "reset-password",
                f"Give {name} a new password?",
                "The old one stops counting at once. You are shown a new one, which they have to change at the next "
                "login.",
            )
        if told["has_totp"]:
            self._button(
                "Remove second factor",
                "remove-factor",
                f"Remove the second factor of {name}?",
                "Do this for somebody who has lost their device, once you are sure who they are.",
            )
        if told["is_admin"]:
            self._button(
                "Take away operator rights", "revoke-admin", f"Make {name} an ordinary user?", "They lose these pages."
            )
        else:
            self._button(
                "Make operator",
                "grant-admin",
                f"Make {name} an operator?",
                "They see everybody's usage and the audit log, and can disable anybody, also you.",
            )

    def _button(self, text: str, action: str, question: str, explanation: str) -> None:
        async def act() -> None:
            with self._view.client.content:  # what is shown here is replaced
                is_meant = await confirm(question, explanation, text, dangerous=True)
            if is_meant:
                await self._act(action)

        ui.button(text, on_click=act).props("outline no-caps")

    async def _act(self, action: str) -> None:
        path = f"/v3/admin/users/{self._told['id']}/{action}"
        answer = await self._view.attempt(self._view.api.post(path), "Done.")
        if not answer:
            return
        self._told = answer.get("user", answer)
        self.build()
        self._said.clear()
        if answer.get("password"):
            with self._said:
                _password(self._told["username"], answer["password"])


def _password(username: str, password: str) -> None:
    notice(f"The password of {username}", "Shown only now. They have to change it at the next login.")
    identifier(password, label="Copy the password")


def _user_facts(told: Mapping[str, Any]) -> None:
    with details() as facts:
        with facts.item("Identity ID"):
            identifier(told["id"], label="Copy the identity ID")
        facts.text("Name", told["display_name"])
        facts.text("E-mail", told["email"])
        facts.text("Organization", told["organization"])
        facts.text("Kind", "Program" if told["kind"] == "client" else "Person")
        facts.text("Vouched for by", told["provider"] or "this service")
        facts.text("Operator", "Yes" if told["is_admin"] else "No")
        facts.text("Second factor", "Yes" if told["has_totp"] else "No")
        with facts.item("Created"):
            when(told["created_at"], absolute=True)
        with facts.item("Disabled"):
            when(told["disabled_at"], absolute=True)
        if told.get("last_login_at"):
            with facts.item("Last login"):
                when(told["last_login_at"])


PAGES: Final = (users, new_user, user)
