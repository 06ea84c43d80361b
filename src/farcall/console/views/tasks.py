"""The list of tasks and one task: filters that live in the address, lines of the table, facts of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from farcall.console.views.formats import UNKNOWN, count, duration, number, short_id, size, text
from farcall.console.views.states import TASK_STATES, Shown, is_over, task_state
from farcall.console.views.times import from_address, to_address

__all__ = ["SPANS", "TaskFilter", "TaskLine", "kind_of_result", "result_text", "task_line"]

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
        endpoint, function, group: ids.
        last: one of `SPANS`, counted back from when the page is opened; `since` and `until` count if it is not there.
        since, until: Unix seconds; when tasks were submitted.
        cursor: where the page begins, as the interface gave it.
    """

    state: str | None = None
    endpoint: str | None = None
    function: str | None = None
    group: str | None = None
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
            endpoint=told.get("endpoint"),
            function=told.get("function"),
            group=told.get("group"),
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
            "endpoint_id": self.endpoint,
            "function_id": self.function,
            "task_group_id": self.group,
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


@dataclass(frozen=True, kw_only=True)
class TaskLine:
    """A line of a table of tasks. Texts; times in Unix seconds."""

    task_id: str
    state: Shown
    function_id: str | None
    function: str
    endpoint_id: str | None
    endpoint: str
    group_id: str | None
    submitted_at: float | None
    took: str
    error_code: str


def task_line(document: Mapping[str, Any], *, now: float) -> TaskLine:
    """One entry of `GET /v3/tasks`. `took` counts to now for a task that has not ended."""
    submitted, ended = number(document.get("submitted_at")), number(document.get("ended_at"))
    if ended is None and not is_over(document.get("state")):
        ended = now
    function_id, endpoint_id = document.get("function_id"), document.get("endpoint_id")
    return TaskLine(
        task_id=str(document.get("task_id") or ""),
        state=task_state(document.get("state")),
        function_id=function_id,
        function=_named(document.get("function_name"), function_id),
        endpoint_id=endpoint_id,
        endpoint=_named(document.get("endpoint_name"), endpoint_id),
        group_id=document.get("task_group_id"),
        submitted_at=submitted,
        took=UNKNOWN if submitted is None or ended is None else duration(ended - submitted),
        error_code=str(document.get("error_code") or ""),
    )


def result_text(document: Mapping[str, Any]) -> str:
    """Size and kind of a task's result; what there is to say if there is none."""
    result = document.get("result")
    if isinstance(result, Mapping):
        return f"{size(result.get('size_bytes'))}, {kind_of_result(result.get('kind'))}"
    state = document.get("state")
    if not is_over(state):
        return "Not there yet."
    return "None: the task ended without a result." if state != "success" else "No longer kept."


def kind_of_result(kind: Any) -> str:  # a member of a JSON document
    """What the interface says of a result that it never opens."""
    return "kind unknown" if not kind else str(kind)


def attempts_text(document: Mapping[str, Any]) -> str:
    """How often a task was handed to a worker."""
    return count(document.get("attempts"))


def _named(name: Any, id_: Any) -> str:  # members of a JSON document
    return str(name) if name else short_id(id_) if id_ else text(None)
