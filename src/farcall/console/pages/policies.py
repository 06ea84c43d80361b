"""Authentication policies: the list, making one, and changing one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from farcall.console.components import Column, DataTable, Empty, Tag, confirm, identifier, link, section
from farcall.console.components.form import Field, Form
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.views.policies import UNITS, PolicyForm, age_text, field_of_message, form_of, policy_row
from farcall.wire.errors import ApiError, LoginRequired, Unauthenticated

__all__ = ["PAGES"]

_WAY: Final = Crumb("Policies", "/policies")
_COLUMNS: Final = (
    Column(name="name", label="Policy", href=lambda row: url(f"/policies/{row['id']}")),
    Column(name="description", label="Description"),
    Column(name="high_assurance", label="High assurance"),
    Column(name="timeout", label="Authentication timeout", show=age_text),
    Column(name="included", label="Included domains"),
    Column(name="excluded", label="Excluded domains"),
    Column(name="whose", label="Belongs to"),
)


@console_page("/policies", title="Policies", section="policies")
async def policies(view: View) -> None:
    """Those that the viewer may use."""
    found = await view.api.get("/v3/policies")
    Tag(
        "p",
        "An authentication policy says which logins an endpoint insists on. Name it in the endpoint's configuration, "
        "authentication_policy.",
    )
    with Tag("div").classes("fc-row"):
        link("Create a policy", "/policies/new").classes("fc-button fc-primary")
    empty = Empty(
        title="No policies yet.",
        text="Create one above, or together with an endpoint:",
        commands='farcall-endpoint configure my-endpoint --allowed-domains "example.edu" --auth-timeout 3600',
    )
    DataTable(
        _COLUMNS, [policy_row(each) for each in found["policies"]], caption="Authentication policies", empty=empty
    )


@console_page("/policies/new", title="Create Policy", section="policies")
async def new_policy(view: View) -> None:
    """An empty form."""
    view.set_title("Create Policy", _WAY)
    _PolicyPage(view, PolicyForm(), None)


@console_page("/policies/{policy_id}", title="Edit Policy Details", section="policies")
async def policy(view: View, policy_id: str) -> None:
    """The form of one that there is."""
    document = await view.api.get(f"/v3/policies/{policy_id}")
    view.set_title("Edit Policy Details", _WAY, Crumb(document["display_name"], url(f"/policies/{document['id']}")))
    _PolicyPage(view, form_of(document), document["id"])


class _PolicyPage:
    def __init__(self, view: View, shown: PolicyForm, policy_id: str | None) -> None:
        self._view = view
        self._id = policy_id
        if policy_id is not None:
            with Tag("p"):
                Tag("span", "Policy ID ").classes("fc-unknown")
                identifier(policy_id, label="Copy the policy ID")
        fields = _fields(shown)
        if policy_id is None and view.session.is_operator:
            fields.append(
                Field(
                    name="of_site",
                    label="For the whole site",
                    kind="yes",
                    help="Everybody may name it for their endpoints; only operators change it.",
                )
            )
        self._form = Form(
            fields,
            label="Policy",
            send="Save" if policy_id else "Create",
            cancel="/policies",
            on_send=self._send,
        )
        if policy_id is not None:
            with section("Delete"):
                Tag("p", "A policy that an endpoint uses cannot be deleted.")
                ui.button("Delete policy", on_click=self._delete).props("outline no-caps color=negative")

    async def _send(self, values: Mapping[str, Any]) -> None:
        form = _form_from(values)
        errors = form.errors()
        if errors:
            self._form.tell(errors)
            return
        document = form.document()
        if values.get("of_site"):
            document["of_site"] = True
        if await self._view.attempt(self._save(document)):
            self._view.go("/policies")

    async def _save(self, document: Mapping[str, Any]) -> bool:
        """Whether the service took it; if not, the form says why."""
        try:
            if self._id is None:
                await self._view.api.post("/v3/policies", document)
            else:
                await self._view.api.put(f"/v3/policies/{self._id}", document)
        except (Unauthenticated, LoginRequired):
            raise
        except ApiError as exc:
            field = field_of_message(str(exc))
            self._form.tell({field: str(exc)} if field else {}, None if field else str(exc))
            return False
        return True

    async def _delete(self) -> None:
        if not await confirm("Delete this policy?", "It is gone for good.", "Delete the policy", dangerous=True):
            return
        if await self._view.attempt(self._view.api.delete(f"/v3/policies/{self._id}")) is not None:
            self._view.go("/policies")


def _fields(shown: PolicyForm) -> list[Field]:
    domains = "One a line, what stands behind the @ of user names; * stands for anything, as in *.example.edu."
    return [
        Field(name="display_name", label="Display Name", value=shown.display_name, required=True),
        Field(name="description", label="Description", value=shown.description, kind="lines", required=True),
        Field(
            name="high_assurance",
            label="High Assurance",
            kind="yes",
            value=shown.high_assurance,
            help="For protected data. People must have proved an identity of an included domain in the very login that "
            "their program uses, and the policy is asked again whenever a result is fetched. An endpoint for high "
            "assurance needs a policy for high assurance.",
        ),
        Field(
            name="timeout",
            label="Authentication Timeout",
            kind="number",
            value=shown.timeout,
            help="How old a login may be before people have to log in again. Empty: any age.",
        ),
        Field(
            name="unit",
            label="Unit",
            kind="choice",
            options=[(each, each) for each in UNITS],
            value=shown.unit,
            beside=True,
        ),
        Field(
            name="required_mfa",
            label="Second factor",
            kind="yes",
            value=shown.required_mfa,
            help="People must have given a second factor with their login.",
        ),
        Field(
            name="include",
            label="Included Domains",
            kind="lines",
            value=shown.include,
            help=f"{domains} Empty: any.",
        ),
        Field(name="exclude", label="Excluded Domains", kind="lines", value=shown.exclude, help=domains),
    ]


def _form_from(values: Mapping[str, Any]) -> PolicyForm:
    def typed(name: str) -> str:
        value = values.get(name)
        return value if isinstance(value, str) else ""

    unit = typed("unit")
    return PolicyForm(
        display_name=typed("display_name"),
        description=typed("description"),
        high_assurance=values.get("high_assurance") is True,
        timeout=typed("timeout"),
        unit=unit if unit in UNITS else "minutes",
        include=typed("include"),
        exclude=typed("exclude"),
        required_mfa=values.get("required_mfa") is True,
    )


PAGES: Final = (policies, new_policy, policy)
