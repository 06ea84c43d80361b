"""The documents in which tasks are shown, and how they are made of what is stored."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import msgspec

from farcall.service.tasks.rules import Group
from farcall.service.tasks.store import GroupTask, StoredResult, TaskRow
from farcall.wire.states import TaskState

__all__ = [
    "BatchStatus",
    "BatchStatusRequest",
    "CancelAnswer",
    "GroupDocument",
    "GroupEntry",
    "SubmitAnswerV2",
    "SubmitRequestV2",
    "SubmitResultV2",
    "TaskDocument",
    "group_document",
    "task_document",
]


class TaskDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A task. `completion_t` is there once it has ended; then either `result` or `exception` is, never both."""

    task_id: str
    status: str
    result: str | None = None
    exception: str | None = None
    completion_t: str | None = None
    reason: str | None = None
    details: dict[str, Any] | None = None


class BatchStatusRequest(msgspec.Struct, kw_only=True):
    """POST /v2/batch_status."""

    task_ids: list[str]


class BatchStatus(msgspec.Struct, kw_only=True):
    """Answer to it: documents by task id. Tasks that are unknown, or somebody else's, are left out."""

    response: str
    results: dict[str, TaskDocument]


class GroupEntry(msgspec.Struct, kw_only=True):
    """A task of a group; `created_at` in ISO 8601, UTC."""

    id: str
    created_at: str


class GroupDocument(msgspec.Struct, kw_only=True):
    """GET /v2/taskgroup/{id}."""

    taskgroup_id: str
    create_websockets_queue: bool
    tasks: list[GroupEntry]


class CancelAnswer(msgspec.Struct, kw_only=True):
    """POST /v3/tasks/{id}/cancel: `status` is `cancelled`, or how the task ended before."""

    task_id: str
    status: str


class SubmitRequestV2(msgspec.Struct, kw_only=True):
    """POST /v2/submit: function id, endpoint id and packed arguments per task."""

    tasks: list[tuple[str, str, str]]
    task_group_id: str | None = None
    create_websocket_queue: bool = True


class SubmitResultV2(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of one task of a v2 submission."""

    status: str
    http_status_code: int
    task_uuid: str | None = None
    reason: str | None = None


class SubmitAnswerV2(msgspec.Struct, kw_only=True):
    """Answer to a v2 submission, in the order of the request."""

    response: str
    task_group_id: str
    results: list[SubmitResultV2]


def task_document(task: TaskRow, result: StoredResult | None) -> TaskDocument:
    """A task as REST shows it. Source: wire protocol, REST, tasks.

    A cancelled task has failed for clients of the protocol; `reason` begins with the code for those who know it.
    """
    if not task.state.is_terminal or result is None:
        return TaskDocument(task_id=task.id, status=task.state.rest_status)
    document = TaskDocument(
        task_id=task.id,
        status=task.state.rest_status,
        completion_t=str(task.completed_at),
        details={**(result.details or {}), "task_transitions": result.transitions or {}},
    )
    if task.state is TaskState.SUCCESS:
        document.result = result.data
    else:
        document.exception = result.data
        document.reason = f"{result.error_code}: {result.error_message}"
    return document


def group_document(group: Group, tasks: list[GroupTask]) -> GroupDocument:
    """A task group as REST shows it."""
    return GroupDocument(
        taskgroup_id=group.id,
        create_websockets_queue=group.has_queue,
        tasks=[
            GroupEntry(id=task.id, created_at=datetime.fromtimestamp(task.created_at, timezone.utc).isoformat())
            for task in tasks
        ],
    )
