"""For operators: how the service goes, and who did what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from farcall.console.components import Column, DataTable, Empty, details, error_box, section, status_dot, when
from farcall.console.components.form import Field, Form
from farcall.console.components.text import Tag
from farcall.console.layout import Crumb
from farcall.console.page import View, console_page, url
from farcall.console.pages.operator_tabs import operator_tabs
from farcall.console.pages.parts import more_of
from farcall.console.views.audit import AuditFilter, audit_row
from farcall.console.views.operators import health_facts
from farcall.console.views.times import to_address
from farcall.console.views.values import mappings, short_id
from farcall.wire.errors import InvalidRequest

__all__ = ["PAGES"]

_PAGE: Final = 100


@console_page("/operator", title="Service health", section="operator", operators_only=True)
async def health(view: View) -> None:
    """What one process can find out in a moment."""
    operator_tabs("health")
    told = await view.api.get("/v3/admin/health")
    with Tag("div").classes("fc-row"):
        status_dot("ok" if told["ready"] else "degraded")
        with Tag("p").classes("fc-unknown"):
            Tag("span", "As of ")
            when(told["now"], absolute=True)
    for fault in told["faults"]:
        error_box("Not as it should be", fault, retry=True)
    with Tag("div").classes("fc-two"):
        for title, facts in health_facts(told).items():
            with section(title), details() as shown:
                for name, value in facts:
                    shown.text(name, value, "not known")
                if title == "Service" and told["certificate_expires_at"] is not None:
                    with shown.item("Certificate expires"):
                        when(told["certificate_expires_at"], absolute=True)
    _tables(told)


def _tables(told: Mapping[str, Any]) -> None:
    queues = mappings(told["broker"]["queues"])
    if queues:
        with section("Queues"):
            columns = (
                Column(name="kind", label="Kind of queue"),
                Column(name="waiting", label="Waiting", kind="number"),
                Column(name="unacknowledged", label="Unacknowledged", kind="number"),
            )
            DataTable(columns, queues, caption="Messages by kind of queue", empty=Empty(title="No queues."))
    relays = mappings(told["relays"])
    if relays:
        with section("Relays"):
            columns = (
                Column(name="host", label="Host"),
                Column(name="id", label="Relay", kind="code"),
                Column(name="silent_s", label="Silent for (s)", kind="number", show=lambda value: f"{value:.1f}"),
            )
            DataTable(columns, relays, caption="Relay processes", empty=Empty(title="No relays."))


@console_page("/operator/audit", title="Audit log", section="operator", operators_only=True)
async def audit(view: View) -> None:
    """Entries, newest first."""
    view.set_title("Audit log", Crumb("Operator", "/operator"))
    operator_tabs("audit")
    asked, fault = AuditFilter.from_address(view.query), None
    found: Mapping[str, Any] = {"entries": [], "next_cursor": None}
    try:
        found = await view.api.get("/v3/admin/audit", **asked.to_request(limit=_PAGE))
    except InvalidRequest as exc:
        fault = str(exc)
    _filter(asked, fault)
    columns = (
        Column(name="at", label="Time", kind="time"),
        Column(name="actor", label="Who"),
        Column(name="action", label="Action", kind="code"),
        Column(name="object_kind", label="Of what"),
        Column(
            name="object_id",
            label="Its ID",
            kind="code",
            show=lambda id: short_id(id) or "",
            href=lambda row: url("/operator/audit", object=row["object_id"]) if row["object_id"] else None,
        ),
        Column(name="outcome", label="Outcome", kind="status"),
        Column(name="address", label="Address", kind="code"),
        Column(name="detail", label="Detail"),
    )
    empty = Empty(title="No entry matches.", text="Change or clear the filters above.")
    rows = [audit_row(each) for each in found["entries"]]
    DataTable(columns, rows, caption="Audit log, newest first", empty=empty, csv_name="audit.csv")
    more_of(view, found["next_cursor"])


def _filter(asked: AuditFilter, fault: str | None) -> None:
    outcomes = (("", "Any"), ("done", "Done"), ("refused", "Refused"))
    form = Form(
        [
            Field(name="action", label="Action", value=asked.action or "", help="“user.” is all that begin so."),
            Field(name="actor", label="Who", value=asked.actor or "", help="A user name or an identity ID."),
            Field(name="object", label="ID of what it was done to", value=asked.object or ""),
            Field(name="outcome", label="Outcome", kind="choice", options=outcomes, value=asked.outcome or ""),
            Field(name="since", label="From", kind="moment", value=to_address(asked.since) or ""),
            Field(name="until", label="Before", kind="moment", value=to_address(asked.until) or ""),
        ],
        label="Filter the audit log",
        send="Filter",
        address="/operator/audit",
        cancel="/operator/audit",
    )
    if fault is not None:
        form.tell({}, fault)


PAGES: Final = (health, audit)
