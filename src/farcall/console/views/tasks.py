"""The list of tasks and one task: filters that live in the address, rows of the table, words of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from farcall.console.formats import size
from farcall.console.views.states import TASK_STATES, is_over
from farcall.console.views.times import from_address, to_address
from farcall.console.views.values import mapping, number, short_id

__all__ = ["SPANS", "TaskFilter", "result_text", "task_row"]

SPANS: Final = {
    "1h": ("Last hour", 3600),
    "24h": ("Last 24 hours", 86400),
    "7d": ("Last 7 days", 7 * 86400),
    "30d": ("Last 30 days", 30 * 86400),
}
"""What `last` in the address may be: name, seconds."""

_LONGEST_CHARS: Final = 200


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """What the list of tasks shows; its members are the parameters of the page's address.

    Attributes:
        state: one of `TASK_STATES`.
        endpoint_id, function_id, task_group_id: as the interface names them.
        last: one of `SPANS`, counted back from when the page is opened; `since` and `until` count if it is not there.
        since, until: Unix seconds; when tasks were submitted.
        cursor: where the page begins, as the interface gave it.
    """

    state: str | None = None
    endpoint_id: str | None = None
    function_id: str | None = None
    task_group_id: str | None = None
    last: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: str | None = None

    @classmethod
    def from_address(cls, query: Mapping[str, str]) -> TaskFilter:
        """What an address asks for; parameters that make no sense do not count."""
        told = {name: value.strip()[:_LONGEST_CHARS] for name, value in query.items() if value.strip()}
        last = told.get("last")
        return cls(
            state=told["state"] if told.get("state") in TASK_STATES else None,
            endpoint_id=told.get("endpoint_id"),
            function_id=told.get("function_id"),
            task_group_id=told.get("task_group_id"),
            last=last if last in SPANS else None,
            since=None if last in SPANS else from_address(told.get("since")),
            until=None if last in SPANS else from_address(told.get("until")),
            cursor=told.get("cursor"),
        )

    def to_address(self) -> dict[str, str]:
        """Parameters of the address that asks for this."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told["since"], told["until"] = to_address(self.since), to_address(self.until)
        return {name: value for name, value in told.items() if value}

    def to_request(self, *, now: float, limit: int) -> dict[str, str]:
        """Parameters of `GET /v3/tasks`."""
        since = now - SPANS[self.last][1] if self.last in SPANS else self.since
        wanted = {
            "state": self.state,
            "endpoint_id": self.endpoint_id,
            "function_id": self.function_id,
            "task_group_id": self.task_group_id,
            "since": since,
            "until": self.until,
            "limit": limit,
            "cursor": self.cursor,
        }
        return {name: str(value) for name, value in wanted.items() if value is not None}

    @property
    def is_narrowed(self) -> bool:
        """Whether there may be tasks that this does not show."""
        return any(getattr(self, field.name) is not None for field in fields(self) if field.name != "cursor")


def task_row(document: Mapping[str, Any], *, now: float) -> dict[str, Any]:
    """One entry of `GET /v3/tasks` as a row: what it is sorted by. `took` counts to now for a task that goes on."""
    submitted, ended = number(document.get("submitted_at")), number(document.get("ended_at"))
    if ended is None and not is_over(document.get("state")):
        ended = now
    return {
        "task_id": document.get("task_id"),
        "state": document.get("state"),
        "function_id": document.get("function_id"),
        "function": document.get("function_name") or short_id(document.get("function_id")),
        "endpoint_id": document.get("endpoint_id"),
        "endpoint": document.get("endpoint_name") or short_id(document.get("endpoint_id")),
        "submitted": submitted,
        "took": None if submitted is None or ended is None else max(0.0, ended - submitted),
        "error": document.get("error_code"),
    }


def result_text(document: Mapping[str, Any]) -> str:
    """Size and kind of a task's result, which nobody opens here; what there is to say if there is none."""
    result = mapping(document.get("result"))
    if result:
        kind = result.get("kind_meaning") or "of a kind that is unknown here"
        return f"{size(number(result.get('size_bytes')))}, {kind}"
    if mapping(document.get("withheld")):
        return "Withheld, see above."
    if not is_over(document.get("state")):
        return "Not there yet."
    return "No longer kept." if document.get("state") == "success" else "None: the task ended without a result."
