"""The messages that travel over AMQP, and their codec.

A message is the byte 0x01 followed by JSON `{"message_type": …, "data": {…}}` in UTF-8 on one line. Unknown
members are ignored (additive changes are allowed); an unknown version byte or type is an error. Values are
frozen dataclasses; ids are kept as the canonical lower-case text of a UUID, because they are only ever
compared and copied on the way of a task. Source: wire protocol, messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from farcall.wire.errors import MessageError

__all__ = [
    "ERROR_IS_FINAL",
    "HAS_JOURNAL",
    "EndpointStatusReport",
    "ErrorDetails",
    "Message",
    "Result",
    "Task",
    "TaskCancel",
    "TaskTransition",
    "is_uuid_text",
    "pack_message",
    "unpack_message",
]

_VERSION = b"\x01"
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTransition:
    """That a task entered a state: `timestamp` in integer nanoseconds since 1970, who says so in `actor`."""

    timestamp: int
    state: str
    actor: str

    def to_data(self) -> dict[str, Any]:
        return {"timestamp": self.timestamp, "state": self.state, "actor": self.actor}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TaskTransition:
        timestamp = _need(data, "timestamp", int)
        return cls(timestamp=timestamp, state=_need(data, "state", str), actor=_need(data, "actor", str))


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorDetails:
    """Why a task failed: a stable code and one line for the user."""

    code: str
    user_message: str


ERROR_IS_FINAL: Final = "error_is_final"
"""Ours: member of an error notice's `global_state` beside `error`. True: what waits for the user endpoint has no hope,
and fails with the text, also while an agent of it still seems to be attached (an administrator has stopped it, its
configuration cannot be used). False: its process died without a word; it is to be started again as long as tasks wait,
and only if it dies again and again do they fail. Absent (the other ecosystem's managers): final unless it is attached.
"""

HAS_JOURNAL: Final = "has_journal"
"""Ours: member of a status report's `global_state`; true if the agent remembers tasks, and may be sent them again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Service → endpoint: run this. `task_buffer` is three framed texts: function, arguments, keywords."""

    message_type: ClassVar[str] = "task"
    task_id: str
    task_buffer: str
    container_id: str | None = None

    def to_data(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "container_id": self.container_id,
            "container": None,
            "task_buffer": self.task_buffer,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Task:
        return cls(
            task_id=_need_uuid(data, "task_id"),
            task_buffer=_need(data, "task_buffer", str),
            container_id=data.get("container_id"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Endpoint → service → SDK: what became of a task.

    It failed iff `error_details` is set; `data` is then text for the user, else one serialized value. `details`
    describes the worker's environment and is free for additions; ours: `exception` (the exception object,
    serialized), `hostname`, `pid`.
    """

    message_type: ClassVar[str] = "result"
    task_id: str
    data: str
    details: Mapping[str, Any] | None = None
    error_details: ErrorDetails | None = None
    task_statuses: tuple[TaskTransition, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.error_details is not None

    def to_data(self) -> dict[str, Any]:
        error = self.error_details
        return {
            "task_id": self.task_id,
            "data": self.data,
            "details": dict(self.details) if self.details is not None else None,
            "error_details": {"code": error.code, "user_message": error.user_message} if error else None,
            "task_statuses": [status.to_data() for status in self.task_statuses],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Result:
        error = data.get("error_details")
        if error is not None and not isinstance(error, Mapping):
            raise MessageError("member 'error_details' of a result is neither an object nor null")
        details = data.get("details")
        if details is not None and not isinstance(details, Mapping):
            raise MessageError("member 'details' of a result is neither an object nor null")
        statuses = data.get("task_statuses") or ()
        if not isinstance(statuses, (list, tuple)):
            raise MessageError("member 'task_statuses' of a result is neither a list nor null")
        return cls(
            task_id=_need_uuid(data, "task_id"),
            data=_need(data, "data", str),
            details=details,
            error_details=None
            if error is None
            else ErrorDetails(code=_need(error, "code", str), user_message=_need(error, "user_message", str)),
            task_statuses=tuple(TaskTransition.from_data(_object(item)) for item in statuses),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointStatusReport:
    """Endpoint → service: I am here, and this is how I am (heartbeat).

    `global_state` members: wire protocol, `global_state`. `task_statuses` maps task ids to transitions that
    happened since the last report; the official agent always sends it empty, ours fills it.
    """

    message_type: ClassVar[str] = "ep_status_report"
    endpoint_id: str
    global_state: Mapping[str, Any]
    task_statuses: Mapping[str, tuple[TaskTransition, ...]] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        return {
            "endpoint_id": self.endpoint_id,
            "global_state": dict(self.global_state),
            "task_statuses": {
                task_id: [transition.to_data() for transition in transitions]
                for task_id, transitions in self.task_statuses.items()
            },
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> EndpointStatusReport:
        state = data.get("global_state", data.get("ep_status_report"))
        if not isinstance(state, Mapping):
            raise MessageError("member 'global_state' of a status report is not an object")
        statuses = _object(data.get("task_statuses") or {})
        return cls(
            endpoint_id=_need_uuid(data, "endpoint_id"),
            global_state=state,
            task_statuses={
                task_id: tuple(TaskTransition.from_data(_object(item)) for item in _list(transitions))
                for task_id, transitions in statuses.items()
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskCancel:
    """Service → endpoint: do not start this task, or stop it if you can. Official agents ignore it."""

    message_type: ClassVar[str] = "task_cancel"
    task_id: str

    def to_data(self) -> dict[str, Any]:
        return {"task_id": self.task_id}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TaskCancel:
        return cls(task_id=_need_uuid(data, "task_id"))


Message = Task | Result | EndpointStatusReport | TaskCancel

_TYPES: dict[str, type[Task] | type[Result] | type[EndpointStatusReport] | type[TaskCancel]] = {
    cls.message_type: cls for cls in (Task, Result, EndpointStatusReport, TaskCancel)
}


def pack_message(message: Message) -> bytes:
    """The bytes of one AMQP message body."""
    envelope = {"message_type": message.message_type, "data": message.to_data()}
    try:
        return _VERSION + json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # lone surrogates (os.fsdecode) have no UTF-8; as JSON escapes they travel
        return _VERSION + json.dumps(envelope, separators=(",", ":")).encode()


def unpack_message(body: bytes) -> Message:
    """Read one AMQP message body.

    Raises:
        MessageError: other version byte, no JSON, unknown type, or a required member is missing or wrong.
    """
    if body[:1] != _VERSION:
        raise MessageError(f"a message starts with version byte {body[:1]!r}; this release reads only 0x01")
    try:
        envelope = json.loads(body[1:])
    except ValueError as exc:
        raise MessageError(f"a message of {len(body)} bytes is not JSON: {exc}") from exc
    if not isinstance(envelope, dict) or not isinstance(envelope.get("data"), dict):
        raise MessageError("a message is no object with the members 'message_type' and 'data'")
    message_type = envelope.get("message_type")
    cls = _TYPES.get(message_type) if isinstance(message_type, str) else None
    if cls is None:
        raise MessageError(f"unknown message type {str(message_type)[:64]!r}")
    return cls.from_data(envelope["data"])


_T = TypeVar("_T")


def _need(data: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MessageError(f"member '{name}' is missing or not of type {kind.__name__}")
    return value


def _need_uuid(data: Mapping[str, Any], name: str) -> str:
    text = _need(data, name, str).lower()
    if not is_uuid_text(text):
        raise MessageError(f"member '{name}' is not a UUID: {text[:64]!r}")
    return text


def is_uuid_text(text: str) -> bool:
    """Whether `text` is a UUID in canonical form: lower-case hexadecimal digits, 8-4-4-4-12."""
    return _UUID.fullmatch(text) is not None


def _list(value: Any) -> list[Any]:  # any decoded JSON value
    if not isinstance(value, list):
        raise MessageError("a list was expected inside a message")
    return value


def _object(value: Any) -> Mapping[str, Any]:  # any decoded JSON value
    if not isinstance(value, Mapping):
        raise MessageError("an object was expected inside a message")
    return value
