"""The audit log: its filters in the address, its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from farcall.console.views.times import from_address, to_address
from farcall.console.views.values import number

__all__ = ["AuditFilter", "audit_row", "detail_text"]

_LONGEST_CHARS: Final = 255


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """What the audit page shows; its members are the parameters of its address.

    Attributes:
        action: one, or all that begin with it if it ends in a dot.
        actor: a user name or an id.
        object: an id.
        outcome: `done` or `refused`.
        since, until: Unix seconds.
    """

    action: str | None = None
    actor: str | None = None
    object: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: str | None = None

    @classmethod
    def from_address(cls, query: Mapping[str, str]) -> AuditFilter:
        """What an address asks for; parameters that make no sense do not count."""
        told = {name: value.strip()[:_LONGEST_CHARS] for name, value in query.items() if value.strip()}
        return cls(
            action=told.get("action"),
            actor=told.get("actor"),
            object=told.get("object"),
            outcome=told["outcome"] if told.get("outcome") in ("done", "refused") else None,
            since=from_address(told.get("since")),
            until=from_address(told.get("until")),
            cursor=told.get("cursor"),
        )

    def to_address(self) -> dict[str, str]:
        """Parameters of the address that asks for this."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told["since"], told["until"] = to_address(self.since), to_address(self.until)
        return {name: value for name, value in told.items() if value}

    def to_request(self, *, limit: int) -> dict[str, str]:
        """Parameters of `GET /v3/admin/audit`."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) for name, value in {**told, "limit": limit}.items() if value is not None}

    @property
    def is_narrowed(self) -> bool:
        """Whether there may be entries that this does not show."""
        return any(getattr(self, field.name) is not None for field in fields(self) if field.name != "cursor")


def audit_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `GET /v3/admin/audit` as a row."""
    return {
        "at": number(document.get("at")),
        "actor": document.get("actor_name"),
        "action": document.get("action"),
        "object_kind": document.get("object_kind"),
        "object_id": document.get("object_id"),
        "address": document.get("address"),
        "outcome": document.get("outcome"),
        "detail": detail_text(document.get("detail")),
    }


def detail_text(detail: Any) -> str:  # a member of a JSON document
    """What else was recorded, as `name: value` pairs; empty if nothing was."""
    if not isinstance(detail, Mapping):
        return "" if not detail else str(detail)
    return "; ".join(f"{name}: {_value(value)}" for name, value in detail.items())


def _value(value: Any) -> str:  # a member of a JSON document
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
