"""What counts as usage, and who may see whose. Decides only."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from farcall.service.accounts.rules import Identity
from farcall.service.endpoints.rules import Endpoint, is_manager
from farcall.service.relay.results import TaskRef
from farcall.wire.errors import EndpointAccessForbidden, EndpointNotFound, Forbidden, InvalidRequest
from farcall.wire.states import TaskState

__all__ = [
    "COLUMNS",
    "DAY_S",
    "DEFAULT_SPAN_DAYS",
    "DIMENSIONS",
    "LONGEST_SPAN_DAYS",
    "SCOPES",
    "SUMS",
    "Count",
    "Key",
    "UsageQuery",
    "add_up",
    "check_scope",
    "csv_text",
    "day_text",
    "days_between",
]

DAY_S: Final = 86400
_CLOCKS_DIFFER_S: Final = 60.0

DIMENSIONS: Final = ("day", "user", "account", "endpoint", "function")
SCOPES: Final = ("mine", "endpoint", "all")
DEFAULT_SPAN_DAYS: Final = 30
LONGEST_SPAN_DAYS: Final = 800
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "day": ("day",),
    "user": ("username",),
    "account": ("account",),
    "endpoint": ("endpoint_id", "endpoint_name"),
    "function": ("function_id", "function_name"),
}
"""The members of a row that each dimension has."""
SUMS: Final = ("tasks", "succeeded", "failed", "cancelled", "run_seconds")

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Key = tuple[int, str, str, str]
"""Day (UTC, days since 1970), whose task, at which endpoint, of which function."""


@dataclass(slots=True)
class Count:
    """Tasks that ended, and for how long workers ran them (s)."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    run_s: float = 0.0


def add_up(ends: Iterable[tuple[TaskRef, TaskState, float]], *, now: float) -> dict[Key, Count]:
    """Count what ends at `now`.

    Args:
        ends: tasks, their final states, and how long a worker says that each ran (s). A task cannot have run for
            longer than it exists, whatever an endpoint says.
    """
    day = int(now // DAY_S)
    counts: dict[Key, Count] = {}
    for task, state, run_s in ends:
        key = (day, task.owner_id, task.endpoint_id, task.function_id)
        count = counts.get(key)
        if count is None:
            count = counts[key] = Count()
        if state is TaskState.SUCCESS:
            count.succeeded += 1
        elif state is TaskState.CANCELLED:
            count.cancelled += 1
        else:
            count.failed += 1
        count.run_s += min(run_s, max(0.0, now - task.created_at) + _CLOCKS_DIFFER_S)
    return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageQuery:
    """Which usage is wanted.

    Attributes:
        first_day, last_day: days since 1970 (UTC), both included.
        by: of `DIMENSIONS`; none: one row for all.
        owner_ids: whose tasks; None: everybody's.
        endpoint_id: where they ran: an endpoint, a manager with its user endpoints, or a user endpoint; None: anywhere.
    """

    first_day: int
    last_day: int
    by: Sequence[str]
    owner_ids: frozenset[str] | None
    endpoint_id: str | None


def days_between(since: float | None, until: float | None, *, now: float) -> tuple[int, int]:
    """The first and the last day (UTC, days since 1970) of a span of time; whole days are counted.

    Args:
        since: Unix seconds; None: a month before the end.
        until: likewise, itself not included; None: now, itself included.

    Raises:
        InvalidRequest: that is no span, or a very long one.
    """
    last = int(now // DAY_S) if until is None else -int(-until // DAY_S) - 1
    first = last - DEFAULT_SPAN_DAYS + 1 if since is None else int(since // DAY_S)
    if first > last or (since is not None and until is not None and since >= until):
        raise InvalidRequest("query parameter 'until' must be later than 'since'.")
    if last - first >= LONGEST_SPAN_DAYS:
        raise InvalidRequest(f"query parameters 'since' and 'until' may be {LONGEST_SPAN_DAYS} days apart.")
    return first, last


def check_scope(
    scope: str,
    caller: Identity,
    endpoint_id: str | None,
    endpoint: Endpoint | None = None,
    manager: Endpoint | None = None,
) -> None:
    """Whether the caller may see the usage of others.

    Args:
        endpoint: that was named, deleted or not; `manager`: who starts it, if somebody does.

    Raises:
        InvalidRequest: no endpoint was named.
        EndpointNotFound, EndpointAccessForbidden: not of that endpoint.
        Forbidden: not of the whole service.
    """
    if scope == "all" and not caller.is_admin:
        raise Forbidden(
            f"Only an administrator of this service sees everybody's usage; you are {caller.username}. "
            "scope=mine is your own, scope=endpoint that of an endpoint which you manage."
        )
    if scope != "endpoint":
        return
    if endpoint_id is None:
        raise InvalidRequest("query parameter 'endpoint_id' must name the endpoint, since 'scope' is 'endpoint'.")
    if endpoint is None:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id} at this service.")
    is_allowed = is_manager(endpoint, caller) or (manager is not None and is_manager(manager, caller))
    if not (is_allowed or caller.is_admin):
        raise EndpointAccessForbidden(
            f"Only the owner and the admins of endpoint {endpoint_id} see its usage; you are {caller.username}. "
            "scope=mine is your own."
        )


def day_text(day: int) -> str:
    """A day as ISO 8601 writes it."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def csv_text(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> str:
    """Rows as RFC 4180 writes them, with a header.

    Names are other people's: what a spreadsheet would take for a formula has an apostrophe before it.
    """
    columns = [column for dimension in DIMENSIONS if dimension in by for column in COLUMNS[dimension]] + list(SUMS)
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return output.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value
