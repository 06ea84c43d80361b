"""What a message on the result queue says, and what becomes of the task. Decides only; nothing is unpickled.

The first result of a task wins (invariant 3), and only the task's own endpoint may send it. A message that cannot
be understood, but says whose it is, ends its task as failed: an accepted task always ends (invariant 2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

import msgspec

from farcall.wire.errors import MaxResultSizeExceeded, MessageError
from farcall.wire.limits import RESULT_LIMIT_CHARS
from farcall.wire.messages import (
    ErrorDetails,
    Result,
    TaskTransition,
    is_uuid_text,
    pack_message,
    unpack_message,
)
from farcall.wire.states import TaskState

__all__ = [
    "MALFORMED_RESULT",
    "Accepted",
    "Dropped",
    "ParsedResult",
    "Reason",
    "TaskRef",
    "Unreadable",
    "decide",
    "failure_result",
    "parse_result",
    "result_message",
]

MALFORMED_RESULT: Final = "MALFORMED_RESULT"
_CODE_LIMIT_CHARS: Final = 128
_LIMIT_SLACK_CHARS: Final = 64 * 1024
"""Beside the value, the worker's own limit; a traceback may come on top."""


@dataclass(frozen=True, slots=True)
class TaskRef:
    """What is needed of a stored task to end it.

    Attributes:
        is_protected: its result is for high assurance: it is read from the service, never streamed.
        function_id, created_at: for whom and how long is counted.
    """

    seq: int
    id: str
    group_id: str
    owner_id: str
    endpoint_id: str
    state: TaskState
    is_protected: bool = False
    function_id: str = ""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ParsedResult:
    """A result that can be stored.

    Attributes:
        sender: routing key, which the broker has checked against the login; None if the service itself speaks.
        body: of the message, to be forwarded as it is.
        data: one serialized value, or text for the user if `error_code` is set.
        details_json, transitions_json: JSON objects; the latter maps states to Unix seconds.
        run_s: how long a worker says that it took; None: nothing was said that could be true.
        is_again: the broker has delivered this message before.
    """

    sender: str | None
    body: bytes
    task_id: str
    data: str
    error_code: str | None = None
    error_message: str | None = None
    details_json: str | None = None
    transitions_json: str | None = None
    run_s: float | None = None
    is_again: bool = False

    @property
    def state(self) -> TaskState:
        return TaskState.SUCCESS if self.error_code is None else TaskState.FAILED


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message from which not even the task can be told."""

    sender: str | None
    fault: str


class Reason(str, Enum):
    """Why a result is dropped."""

    DUPLICATE = "duplicate"
    """The task has ended already."""
    FOREIGN = "foreign"
    """The sender is not the task's endpoint."""
    UNKNOWN = "unknown"
    """There is no such task (any more)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Store this as the end of the task."""

    task: TaskRef
    result: ParsedResult


@dataclass(frozen=True, slots=True)
class Dropped:
    """Do nothing but count and log. `task`: if it is known and the sender's."""

    result: ParsedResult
    reason: Reason
    task: TaskRef | None = None


_LONGEST_RUN_S: Final = 366 * 86400.0


class _Error(msgspec.Struct):
    code: str
    user_message: str


class _Transition(msgspec.Struct):
    timestamp: int
    state: str
    actor: str


class _Data(msgspec.Struct):
    task_id: str
    data: str
    details: msgspec.Raw = msgspec.Raw(b"null")
    error_details: _Error | None = None
    task_statuses: list[_Transition] | None = None


class _Envelope(msgspec.Struct):
    message_type: str
    data: _Data


_decoder: Final = msgspec.json.Decoder(_Envelope)
_details_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_encoder: Final = msgspec.json.Encoder()


def parse_result(body: bytes, sender: str | None) -> ParsedResult | Unreadable:
    """Read one message of the result queue. Never raises: endpoints write these, and one must not stop the others.

    Returns:
        The result; a failure that names the fault if only the task id can be read, or if the value is over the
        limit; `Unreadable` if not even the task can be told.
    """
    try:
        parsed = _parse(body, sender)
    except Exception as exc:  # any: see above
        parsed = _unusable(body, sender, f"{type(exc).__name__}: {str(exc)[:200]}")
    if isinstance(parsed, ParsedResult) and len(parsed.data) > RESULT_LIMIT_CHARS + _LIMIT_SLACK_CHARS:
        text = (
            f"The endpoint sent a result of {len(parsed.data)} characters for task {parsed.task_id}; "
            f"the limit is {RESULT_LIMIT_CHARS}. Write large results to a file, and return its path."
        )
        return replace(failure_result(parsed.task_id, MaxResultSizeExceeded.code, text), sender=sender)
    return parsed


def _parse(body: bytes, sender: str | None) -> ParsedResult | Unreadable:
    if body[:1] != b"\x01":
        return Unreadable(sender, f"starts with {body[:1]!r} in place of version byte 0x01")
    try:
        envelope = _decoder.decode(memoryview(body)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        return _parse_leniently(body, sender, str(exc))
    data = envelope.data
    task_id = data.task_id if is_uuid_text(data.task_id) else data.task_id.lower()
    if envelope.message_type != "result" or not is_uuid_text(task_id):
        return Unreadable(sender, f"message type {envelope.message_type[:40]!r}, task id {data.task_id[:40]!r}")
    details = bytes(data.details)
    if details[:1] not in (b"{", b"n"):
        return _unusable(body, sender, "member 'details' is neither an object nor null")
    if data.error_details is None and "\0" in data.data:
        return _unusable(body, sender, "the value contains the character NUL, which no serialization strategy writes")
    return ParsedResult(
        sender=sender,
        body=body,
        task_id=task_id,
        data=_storable(data.data),
        error_code=None if data.error_details is None else _storable(data.error_details.code)[:_CODE_LIMIT_CHARS],
        error_message=None if data.error_details is None else _storable(data.error_details.user_message),
        details_json=_storable_details(_details_decoder.decode(details)) if details[:1] == b"{" else None,
        transitions_json=_transitions_json(data.task_statuses),
        run_s=_run_s(data.task_statuses),
    )


def decide(results: Iterable[ParsedResult], tasks: Mapping[str, TaskRef]) -> list[Accepted | Dropped]:
    """What becomes of each result.

    Args:
        results: in the order of arrival.
        tasks: by id; those of `results` that exist.

    Returns:
        One verdict per result, in their order.
    """
    verdicts: list[Accepted | Dropped] = []
    ended: set[str] = set()
    for result in results:
        task = tasks.get(result.task_id)
        if task is None:
            verdicts.append(Dropped(result, Reason.UNKNOWN))
        elif result.sender is not None and result.sender != f"{task.endpoint_id}.results":
            verdicts.append(Dropped(result, Reason.FOREIGN))
        elif task.state.is_terminal or task.id in ended:
            verdicts.append(Dropped(result, Reason.DUPLICATE, task))
        else:
            ended.add(task.id)
            verdicts.append(Accepted(task, result))
    return verdicts


def failure_result(task_id: str, code: str, text: str) -> ParsedResult:
    """The result of a task that the service itself ends."""
    body = pack_message(Result(task_id=task_id, data=text, error_details=ErrorDetails(code=code, user_message=text)))
    return ParsedResult(sender=None, body=body, task_id=task_id, data=text, error_code=code, error_message=text)


def result_message(
    task_id: str, data: str, error_code: str | None, error_message: str | None, details_json: str | None
) -> bytes:
    """A result message made again from what is stored, without its transitions."""
    members: dict[str, Any] = {
        "task_id": task_id,
        "data": data,
        "details": None if details_json is None else msgspec.Raw(details_json.encode()),
        "error_details": None if error_code is None else {"code": error_code, "user_message": error_message or ""},
        "task_statuses": [],
    }
    return b"\x01" + _encoder.encode({"message_type": "result", "data": members})


def _parse_leniently(body: bytes, sender: str | None, fault: str) -> ParsedResult | Unreadable:
    """Read with the standard library what msgspec refused: it takes lone surrogates, and so do the clients.

    They come from paths in tracebacks; what is stored has question marks in their place.
    """
    try:
        message = unpack_message(body)
    except (MessageError, RecursionError):
        return _unusable(body, sender, fault)
    if not isinstance(message, Result):
        return Unreadable(sender, f"message type {message.message_type!r}")
    error = message.error_details
    if error is None and message.data != _storable(message.data):
        return _unusable(body, sender, "the value contains characters that no serialization strategy writes")
    return ParsedResult(
        sender=sender,
        body=body,
        task_id=message.task_id,
        data=_storable(message.data),
        error_code=None if error is None else _storable(error.code)[:_CODE_LIMIT_CHARS],
        error_message=None if error is None else _storable(error.user_message),
        details_json=None if message.details is None else _storable_details(message.details),
        transitions_json=_transitions_json(message.task_statuses),
        run_s=_run_s(message.task_statuses),
    )


def _unusable(body: bytes, sender: str | None, fault: str) -> ParsedResult | Unreadable:
    """The failure of the task that the message is about, if that can be told."""
    try:
        task_id = json.loads(body[1:].decode(errors="replace"))["data"]["task_id"].lower()
    except Exception:  # any: what is looked for may be anything
        return Unreadable(sender, fault)
    if not is_uuid_text(task_id):
        return Unreadable(sender, fault)
    text = (
        f"The endpoint sent a result for task {task_id} that cannot be read: {fault}. "
        "Whether the function ran, and what it returned, is not known here; see the endpoint's log."
    )
    return replace(failure_result(task_id, MALFORMED_RESULT, text), sender=sender)


def _transitions_json(transitions: Sequence[_Transition] | Sequence[TaskTransition] | None) -> str | None:
    if not transitions:
        return None
    return _encoder.encode({_storable(each.state): each.timestamp / 1e9 for each in transitions}).decode()


def _run_s(transitions: Sequence[_Transition] | Sequence[TaskTransition] | None) -> float | None:
    """From the last start of an execution to its end."""
    times = {each.state: each.timestamp for each in transitions or ()}
    try:
        run_s = (times["execution-end"] - times["execution-start"]) / 1e9
    except (KeyError, OverflowError):
        return None
    return run_s if 0 <= run_s < _LONGEST_RUN_S else None


def _storable_details(details: Mapping[str, Any]) -> str | None:
    """As JSON that can be read again; None if there is none (infinite numbers, lone surrogates, depth)."""
    try:
        encoded = _encoder.encode(details)
        _details_decoder.decode(encoded)
        return encoded.decode()
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None


def _storable(text: str) -> str:
    """No database stores lone surrogates, and PostgreSQL no NUL; in a text for people a symbol does as well."""
    if "\0" in text:
        text = text.replace("\0", "\u2400")
    return text if text.isascii() else text.encode(errors="replace").decode()
