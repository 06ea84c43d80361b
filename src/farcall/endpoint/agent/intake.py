"""What a delivery from the task queue is: a task, the wish to cancel one, or something unreadable.

Pure. The message is kept as it came (that is what the journal stores), and read again with `read_task` after a
restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from farcall.endpoint.engines.base import EngineTask
from farcall.wire.errors import MessageError
from farcall.wire.messages import Task, TaskCancel, is_uuid_text, unpack_message
from farcall.wire.topology import (
    HEADER_FUNCTION,
    HEADER_PYTHON_VERSION,
    HEADER_RESOURCES,
    HEADER_RESULT_SERIALIZERS,
    HEADER_TASK,
)

__all__ = ["CancelWish", "Incoming", "Unreadable", "read_delivery", "read_task"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Incoming:
    """A task that was delivered. `headers` (JSON text) and `body` are what the journal keeps.

    Args:
        token: what acknowledges the delivery; opaque here.
    """

    task: EngineTask
    headers: str
    body: bytes
    token: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelWish:
    """The service says that this task is cancelled."""

    task_id: str
    token: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A delivery that is no task. `task_id` is None if not even that could be read; `reason` is for people."""

    task_id: str | None
    function_id: str
    reason: str
    token: Any = None


def read_delivery(headers: Mapping[str, Any], body: bytes, token: Any = None) -> Incoming | CancelWish | Unreadable:
    """Read one delivery. Never raises.

    Source: wire protocol, task consumer: the headers task_uuid and function_uuid are mandatory.
    """
    try:
        message = unpack_message(body)
    except MessageError as exc:
        return _unreadable(headers, str(exc), token)
    if isinstance(message, TaskCancel):
        return CancelWish(task_id=message.task_id, token=token)
    if not isinstance(message, Task):
        return _unreadable(headers, f"a message of type '{message.message_type}' is no task", token)
    try:
        task = _task(headers, message)
    except MessageError as exc:
        return _unreadable(headers, str(exc), token, message.task_id)
    return Incoming(task=task, headers=_kept_headers(headers), body=body, token=token)


def read_task(headers: str, body: bytes) -> EngineTask:
    """Read again what the journal kept of a task.

    Raises:
        MessageError: it cannot be read (any more).
    """
    try:
        members = json.loads(headers)
    except ValueError as exc:
        raise MessageError(f"stored headers are not JSON: {exc}") from exc
    message = unpack_message(body)
    if not isinstance(message, Task) or not isinstance(members, dict):
        raise MessageError("what is stored is no task")
    return _task(members, message)


def _task(headers: Mapping[str, Any], message: Task) -> EngineTask:
    if headers.get(HEADER_TASK) != message.task_id:
        task_id = _id_header(headers, HEADER_TASK)
        if task_id != message.task_id:
            raise MessageError(f"header {HEADER_TASK} says {task_id}, the message says {message.task_id}")
    python_version = headers.get(HEADER_PYTHON_VERSION)
    return EngineTask(
        task_id=message.task_id,
        function_id=_id_header(headers, HEADER_FUNCTION),
        task_buffer=message.task_buffer,
        resource_specification=_resources(headers.get(HEADER_RESOURCES)),
        result_serializers=_serializers(headers.get(HEADER_RESULT_SERIALIZERS)),
        python_version=python_version if isinstance(python_version, str) else None,
    )


def _id_header(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    text = _canonical_id(value) if isinstance(value, str) else None
    if text is None:
        raise MessageError(f"mandatory header '{name}' is missing or not a UUID")
    return text


@lru_cache(maxsize=1024)  # few functions, many tasks
def _canonical_id(text: str) -> str | None:
    return text.lower() if is_uuid_text(text.lower()) else None


def _resources(value: object) -> Mapping[str, Any]:
    if value is None or value == "":
        return {}
    try:
        members = json.loads(value) if isinstance(value, (str, bytes)) else None
    except ValueError:
        members = None
    if members is None and value in ("null", b"null"):
        return {}
    if not isinstance(members, dict):
        raise MessageError(f"header '{HEADER_RESOURCES}' is not the JSON text of an object")
    return members


def _serializers(value: object) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise MessageError(f"header '{HEADER_RESULT_SERIALIZERS}' is not an array of texts")
    return tuple(value)


_KEPT = (HEADER_TASK, HEADER_FUNCTION, HEADER_RESOURCES, HEADER_RESULT_SERIALIZERS, HEADER_PYTHON_VERSION)


def _kept_headers(headers: Mapping[str, Any]) -> str:
    kept = {name: headers[name] for name in _KEPT if headers.get(name) is not None}
    return json.dumps(kept, default=bytes.decode, separators=(",", ":"))


def _unreadable(headers: Mapping[str, Any], reason: str, token: Any, task_id: str | None = None) -> Unreadable:
    header = headers.get(HEADER_TASK)
    if task_id is None and isinstance(header, str) and is_uuid_text(header.lower()):
        task_id = header.lower()
    function = headers.get(HEADER_FUNCTION)
    return Unreadable(
        task_id=task_id, function_id=function if isinstance(function, str) else "", reason=reason, token=token
    )
