"""Task messages: body and properties, made of what is stored. Payloads are copied, never looked into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from farcall.broker import Properties
from farcall.service.relay.store import StoredTask, SubmissionHeaders
from farcall.wire.messages import Result, TaskCancel, pack_message
from farcall.wire.topology import HEADER_FUNCTION, HEADER_HIGH_ASSURANCE, HEADER_TASK, task_headers

__all__ = [
    "CANCEL_SIZE",
    "CodeCache",
    "Outgoing",
    "cancel_message",
    "common_headers",
    "result_outgoing",
    "task_message",
]

CANCEL_SIZE: Final = 100
_PERSISTENT: Final = 2
_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message that is ready to be published."""

    body: bytes
    properties: Properties


def common_headers(shared: SubmissionHeaders) -> dict[str, Any]:
    """The headers that all tasks of a submission have in common (those of the task itself are still empty)."""
    resources, serializers = shared.resource_specification_json, shared.result_serializers_json
    return task_headers(
        task_id="",
        function_id="",
        resource_specification=None if resources is None else msgspec.json.decode(resources),
        result_serializers=() if serializers is None else msgspec.json.decode(serializers),
        python_version=shared.python_version,
    )


def task_message(task: StoredTask, code: str, headers: dict[str, Any]) -> Outgoing:
    """The message of one task. `headers`: of `common_headers`; copied.

    The worker's buffer is the function's and the arguments' frames one after the other, so nothing is decoded.
    Source: wire protocol, payloads.
    """
    data = {"task_id": task.id, "container_id": None, "container": None, "task_buffer": code + task.payload}
    return Outgoing(
        b"\x01" + _encoder.encode({"message_type": "task", "data": data}),
        Properties(
            headers={**headers, HEADER_TASK: task.id, HEADER_FUNCTION: task.function_id}, delivery_mode=_PERSISTENT
        ),
    )


def cancel_message(task_id: str) -> Outgoing:
    """Tells an endpoint not to start a task, or to stop it."""
    return Outgoing(pack_message(TaskCancel(task_id=task_id)), Properties(delivery_mode=_PERSISTENT))


def result_outgoing(task_id: str, body: bytes, completed_at: float, *, is_protected: bool) -> Outgoing:
    """What a task group is told of a task that has ended.

    Clients show the timestamp as the time of completion. A protected result is only announced: the header has
    clients fetch it over REST, where the policy is asked, and the body is one without a value, since clients want a
    result that can be read. Source: wire protocol, result consumer, and pitfall 23.

    Args:
        body: of the message, if it is not protected.
    """
    timestamp = int(completed_at)
    if not is_protected:
        return Outgoing(body, Properties(delivery_mode=_PERSISTENT, timestamp=timestamp))
    return Outgoing(
        pack_message(Result(task_id=task_id, data="")),
        Properties(delivery_mode=_PERSISTENT, timestamp=timestamp, headers={HEADER_HIGH_ASSURANCE: True}),
    )


class CodeCache:
    """The code of functions that ran lately, so that a task needs no look-up. Bounded; drops the least used.

    `in` may be asked from any thread; everything else from one.
    """

    def __init__(self, limit_chars: int) -> None:
        self._limit_chars = limit_chars
        self._codes: dict[str, str] = {}
        self._chars = 0

    def __contains__(self, function_id: object) -> bool:
        return function_id in self._codes

    def get(self, function_id: str) -> str | None:
        code = self._codes.pop(function_id, None)
        if code is not None:
            self._codes[function_id] = code  # now the most recently used
        return code

    def put(self, function_id: str, code: str) -> None:
        if function_id in self._codes or len(code) > self._limit_chars:
            return
        self._codes[function_id] = code
        self._chars += len(code)
        while self._chars > self._limit_chars:
            oldest = next(iter(self._codes))
            self._chars -= len(self._codes.pop(oldest))
