"""What several pages show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from farcall.console.components import Column

__all__ = ["task_columns"]


def task_columns(*, with_endpoint: bool = True) -> Sequence[Column]:
    """A list of tasks, as `GET /v3/tasks` has them."""
    columns = [
        Column(name="task_id", label="Task", kind="code", show=_short, href=lambda row: f"/tasks/{row['task_id']}"),
        Column(name="state", label="State", kind="status"),
        Column(name="function_name", label="Function", href=_function),
        Column(name="endpoint_name", label="Endpoint", href=_endpoint),
        Column(name="submitted_at", label="Submitted", kind="time"),
        Column(name="ended_at", label="Ended", kind="time"),
        Column(name="error_code", label="Error"),
    ]
    return columns if with_endpoint else [each for each in columns if each.name != "endpoint_name"]


def _short(task_id: str) -> str:
    return task_id[:8]


def _function(row: Mapping[str, Any]) -> str | None:
    return f"/functions/{row['function_id']}" if row.get("function_id") else None


def _endpoint(row: Mapping[str, Any]) -> str | None:
    return f"/compute/endpoints/{row['endpoint_id']}" if row.get("endpoint_id") else None
