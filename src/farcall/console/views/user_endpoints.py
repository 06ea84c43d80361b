"""The administrator's table of user endpoints, and one of them: rows, words, and when the next news is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from farcall.console.formats import MISSING, duration, share
from farcall.console.views.values import mappings, number, text, whole

__all__ = ["data_time", "next_update", "running_text", "start_of", "user_endpoint_row", "user_endpoint_rows"]

_SECONDS_UNTIL: Final = 10**11  # of the year 5138: whatever is larger was told in milliseconds
_OLDEST: Final = 10**9 / 2  # of 1985: no endpoint is older
_NOT_YET: Final = float("inf")


def user_endpoint_rows(documents: Any) -> list[dict[str, Any]]:  # `user_endpoints` of a document
    """All of them, those with the most workers first, then the oldest."""
    found = [user_endpoint_row(each) for each in mappings(documents)]
    return sorted(found, key=lambda row: (-(row["workers"] or 0), row["started"] or _NOT_YET, row["id"]))


def user_endpoint_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `user_endpoints` in `GET /v3/endpoints/{id}/console` and `…/live`. None: not reported.

    `started` and `heard` are Unix seconds, `active` the busy workers in per cent of all.
    """
    workers, idle = whole(document.get("total_worker_count")), whole(document.get("idle_worker_count"))
    busy = None if workers is None or idle is None else max(0, workers - idle)
    of_all = share(busy, workers)
    return {
        "id": str(document.get("user_endpoint_id") or ""),
        "status": "online" if document.get("active") else "offline",
        "pid": whole(document.get("posix_pid")),
        "account": text(document.get("account")),
        "local_user": text(document.get("posix_username")),
        "queue": text(document.get("queue")),
        "started": start_of(document),
        "heard": number(document.get("last_heartbeat_unix")),
        "nodes": whole(document.get("total_node_count")),
        "workers": workers,
        "busy": busy,
        "active": None if of_all is None else round(100 * of_all, 1),
        "idle": idle,
        "executed": whole(document.get("executed_task_count")),
        "running": whole(document.get("running_task_count")),
        "queued": whole(document.get("queued_task_count")),
    }


def start_of(document: Mapping[str, Any]) -> float | None:
    """When a user endpoint started, Unix seconds. Agents that tell milliseconds are understood; a start in 1970 is not
    believed if the text says better."""
    told = number(document.get("start_time_unix"))
    if told is not None and told >= _SECONDS_UNTIL:
        told /= 1000
    if told is not None and told > _OLDEST:
        return told
    try:
        moment = datetime.fromisoformat(str(document.get("start_time_iso")).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def running_text(row: Mapping[str, Any], *, now: float) -> str:
    """How long one runs; of one that is gone, how long it ran as far as is known."""
    until = now if row["status"] == "online" else row["heard"]
    return MISSING if row["started"] is None or until is None else duration(max(0.0, until - row["started"]))


def data_time(rows: Sequence[Mapping[str, Any]], last_report: Any) -> float | None:  # a member of a JSON document
    """Of when the newest of what is shown is, Unix seconds."""
    known = [number(last_report), *(row["heard"] for row in rows)]
    return max((each for each in known if each is not None), default=None)


def next_update(rows: Sequence[Mapping[str, Any]], last_report: Any, period_s: Any, *, now: float) -> float | None:
    """When the next report is due, Unix seconds; None: nobody there reports.

    Args:
        last_report: of the manager.
        period_s: seconds between two reports of an endpoint.
    """
    period = number(period_s)
    if not period or period <= 0:
        return None
    heard = [row["heard"] for row in rows if row["status"] == "online"] or [number(last_report)]
    due = [each + period for each in heard if each is not None]
    return max(now, min(due)) if due else None
