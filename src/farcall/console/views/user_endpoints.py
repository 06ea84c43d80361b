"""The administrator's table of user endpoints, and one of them: lines, order, CSV, and when the next news is due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from farcall.console.views.csvs import to_csv
from farcall.console.views.formats import UNKNOWN, count, duration, number, percent
from farcall.console.views.times import absolute

__all__ = [
    "COLUMNS",
    "UserEndpointLine",
    "data_time",
    "lines_of",
    "next_update",
    "start_of",
    "to_table",
    "user_endpoint_line",
    "user_endpoints_csv",
]

_SECONDS_UNTIL: Final = 10**11  # of the year 5138: whatever is larger was told in milliseconds


@dataclass(frozen=True, kw_only=True)
class UserEndpointLine:
    """One user endpoint. None: not reported.

    Attributes:
        is_active: it reports now.
        started_at, heard_at: Unix seconds; when it started, when it last reported.
        busy: workers that have a task.
        nodes: which its engine holds now.
    """

    user_endpoint_id: str
    is_active: bool
    pid: int | None
    account: str | None
    local_user: str | None
    queue: str | None
    started_at: float | None
    heard_at: float | None
    nodes: int | None
    workers: int | None
    idle: int | None
    executed: int | None
    running: int | None
    queued: int | None
    endpoint_version: str | None
    python_version: str | None
    engine: str | None
    provider: str | None
    config: str | None

    @property
    def busy(self) -> int | None:
        return None if self.workers is None or self.idle is None else max(0, self.workers - self.idle)

    @property
    def active(self) -> str:
        """Busy workers in per cent of all."""
        return percent(self.busy, self.workers)

    @property
    def active_share(self) -> float | None:
        return None if self.busy is None or not self.workers else self.busy / self.workers

    def running_for(self, now: float) -> str:
        """How long it runs; of one that is gone, how long it ran as far as is known."""
        until = now if self.is_active else self.heard_at
        return UNKNOWN if self.started_at is None or until is None else duration(until - self.started_at)


COLUMNS: Final = (
    ("pid", "PID"),
    ("account", "Account"),
    ("local_user", "Local User"),
    ("queue", "Queue"),
    ("running", "Running"),
    ("nodes", "Nodes"),
    ("workers", "Workers"),
    ("active", "Active %"),
    ("idle", "Idle"),
)
"""Of the table: name, title."""


def user_endpoint_line(document: Mapping[str, Any]) -> UserEndpointLine:
    """One entry of `user_endpoints` in `GET /v3/endpoints/{id}/console` and `…/live`."""

    def whole(member: str) -> int | None:
        known = number(document.get(member))
        return None if known is None else int(known)

    def told(member: str) -> str | None:
        value = document.get(member)
        return value if isinstance(value, str) and value else None

    return UserEndpointLine(
        user_endpoint_id=str(document.get("user_endpoint_id") or ""),
        is_active=bool(document.get("active")),
        pid=whole("posix_pid"),
        account=told("account"),
        local_user=told("posix_username"),
        queue=told("queue"),
        started_at=start_of(document),
        heard_at=number(document.get("last_heartbeat_unix")),
        nodes=whole("total_node_count"),
        workers=whole("total_worker_count"),
        idle=whole("idle_worker_count"),
        executed=whole("executed_task_count"),
        running=whole("running_task_count"),
        queued=whole("queued_task_count"),
        endpoint_version=told("endpoint_version"),
        python_version=told("python_version"),
        engine=told("engine_type"),
        provider=told("provider_type"),
        config=told("config"),
    )


def start_of(document: Mapping[str, Any]) -> float | None:
    """When a user endpoint started, Unix seconds. Agents that tell milliseconds are understood; a start in 1970 is not
    believed if the text says better."""
    told = number(document.get("start_time_unix"))
    if told is not None and told >= _SECONDS_UNTIL:
        told /= 1000
    if told is not None and told > 10**9 / 2:  # 1985: no endpoint is older
        return told
    try:
        moment = datetime.fromisoformat(str(document.get("start_time_iso")).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def lines_of(documents: Any) -> list[UserEndpointLine]:  # `user_endpoints` of a document
    """All lines, those with the most workers first, then the oldest."""
    found = [user_endpoint_line(each) for each in documents or () if isinstance(each, Mapping)]
    return sorted(found, key=lambda line: (-(line.workers or 0), line.started_at or 0.0, line.user_endpoint_id))


def to_table(lines: Iterable[UserEndpointLine], *, now: float) -> list[dict[str, Any]]:
    """Rows of a table: for each column the text, and what it is sorted by under `<column>_sort`."""
    return [
        {
            "id": line.user_endpoint_id,
            "is_active": line.is_active,
            "started_at": line.started_at,
            "pid": UNKNOWN if line.pid is None else str(line.pid),
            "pid_sort": _low(line.pid),
            "account": line.account or UNKNOWN,
            "account_sort": (line.account or "").casefold(),
            "local_user": line.local_user or UNKNOWN,
            "local_user_sort": (line.local_user or "").casefold(),
            "queue": line.queue or UNKNOWN,
            "queue_sort": (line.queue or "").casefold(),
            "running": line.running_for(now),
            "running_sort": _low(None if line.started_at is None else now - line.started_at),
            "nodes": count(line.nodes),
            "nodes_sort": _low(line.nodes),
            "workers": count(line.workers),
            "workers_sort": _low(line.workers),
            "active": line.active,
            "active_sort": _low(line.active_share),
            "idle": count(line.idle),
            "idle_sort": _low(line.idle),
        }
        for line in lines
    ]


def data_time(lines: Iterable[UserEndpointLine], last_report: Any) -> float | None:  # a member of a JSON document
    """Of when the newest of what is shown is, Unix seconds."""
    known = [number(last_report), *(line.heard_at for line in lines)]
    return max((each for each in known if each is not None), default=None)


def next_update(lines: Sequence[UserEndpointLine], last_report: Any, period_s: Any, *, now: float) -> float | None:
    """When the next report is due, Unix seconds; None: nobody there reports.

    Args:
        period_s: seconds between two reports of a user endpoint.
    """
    period = number(period_s)
    if not period or period <= 0:
        return None
    heard = [line.heard_at for line in lines if line.is_active] or [number(last_report)]
    due = [each + period for each in heard if each is not None]
    return max(now, min(due)) if due else None


def user_endpoints_csv(lines: Iterable[UserEndpointLine]) -> bytes:
    """All columns of the table and the ids; times in UTC."""
    titles = ["User Endpoint ID", "Online", "PID", "Account", "Local User", "Queue", "Started (UTC)"]
    titles += ["Last Report (UTC)", "Nodes", "Workers", "Active", "Active %", "Idle", "Executed", "Running", "Queued"]
    rows = [
        [
            line.user_endpoint_id,
            "yes" if line.is_active else "no",
            line.pid,
            line.account,
            line.local_user,
            line.queue,
            _in_utc(line.started_at),
            _in_utc(line.heard_at),
            line.nodes,
            line.workers,
            line.busy,
            None if line.active_share is None else round(100 * line.active_share, 1),
            line.idle,
            line.executed,
            line.running,
            line.queued,
        ]
        for line in lines
    ]
    return to_csv(titles, rows)


def _in_utc(at: float | None) -> str | None:
    return None if at is None else absolute(at, timezone.utc).removesuffix(" UTC")


def _low(value: float | None) -> float:
    """What is not known sorts below everything."""
    return -1.0 if value is None else float(value)
