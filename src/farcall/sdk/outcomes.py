"""What became of a task: reading result messages and task documents, and making values and exceptions of them.

Pure: bytes and documents in, values out. Who waits for an outcome is the business of `ledger` and `stream`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from farcall.serialize import ComputeSerializer, DillDataBase64, SerializationStrategy, StrategyLike, strategy_from
from farcall.serialize.base import strategy_by_payload
from farcall.serialize.exceptions import load_exception
from farcall.wire.errors import (
    DeserializationError,
    EndpointLost,
    MaxResultSizeExceeded,
    MessageError,
    SerializationError,
    TaskCancelled,
    TaskExecutionFailed,
    WorkerLost,
)
from farcall.wire.messages import Result, unpack_message
from farcall.wire.versions import python_minor

__all__ = ["Announced", "Ended", "ResultReader", "ended_from_document", "ended_from_message"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A task that has ended.

    Attributes:
        data: the serialized value, or if it failed the text for the user.
        error_code: None iff it succeeded.
        details: about the worker, as it sent them.
        completion_t: unix seconds as text, "" if unknown.
    """

    task_id: str
    data: str
    error_code: str | None = None
    details: Mapping[str, Any] | None = None
    completion_t: str = ""


@dataclass(frozen=True, slots=True)
class Announced:
    """A task that has ended, and whose outcome must be asked for: those for high assurance are not streamed."""

    task_id: str


def ended_from_message(body: bytes, timestamp: int | None = None) -> Ended:
    """Read the body of a message from a result queue.

    Raises:
        MessageError: it is no result.
    """
    message = unpack_message(body)
    if not isinstance(message, Result):
        raise MessageError(f"a message of type {message.message_type!r} is in a result queue")
    error = message.error_details
    return Ended(
        task_id=message.task_id,
        # A failure without text would be an exception without message.
        data=message.data or (error.user_message if error else ""),
        error_code=error.code if error else None,
        details=message.details,
        completion_t="" if timestamp is None else str(timestamp),
    )


_CODE_OF_REASON = re.compile(r"([A-Za-z][A-Za-z_]{2,63}):\s*")


def ended_from_document(document: Mapping[str, Any]) -> Ended | None:
    """Read a task's REST document; None if the task has not ended.

    A failed task's `reason` may begin with the error's code and a colon (ours). Source: wire protocol, tasks.
    """
    status = str(document.get("status", "")).lower()
    if status not in ("success", "failed"):
        return None
    details = document.get("details")
    common: dict[str, Any] = {
        "task_id": str(document.get("task_id", "")).lower(),
        "details": details if isinstance(details, Mapping) else None,
        "completion_t": str(document.get("completion_t") or ""),
    }
    if status == "success":
        result = document.get("result")
        return Ended(data=result if isinstance(result, str) else "", **common)
    reason = str(document.get("reason") or "")
    match = _CODE_OF_REASON.match(reason)
    text = str(
        document.get("exception") or reason[match.end() if match else 0 :] or "The task failed without a reason."
    )
    return Ended(data=text, error_code=match[1] if match else TaskExecutionFailed.code, **common)


_CLASS_BY_CODE: dict[str, type[TaskExecutionFailed]] = {
    cls.code: cls for cls in (MaxResultSizeExceeded, WorkerLost, EndpointLost)
}
_OF_SERIALIZATION = re.compile(r"dill|pickl|serializ|bytecode|opcode|marshal", re.IGNORECASE)


class ResultReader:
    """Makes values and exceptions of outcomes, within what its owner allows to be loaded.

    Args:
        serializer: reads values; its allow-list holds for results too.
        result_serializers: what workers were asked to answer in; if not empty, nothing else is read.

    Raises:
        ValueError: an entry is no serialization strategy.
    """

    def __init__(self, serializer: ComputeSerializer, result_serializers: Iterable[StrategyLike] = ()) -> None:
        self._serializer = serializer
        self._expected = frozenset(type(strategy_from(entry)) for entry in result_serializers)
        allowed = serializer.allowed_deserializer_types
        self._allow_dill = _permits_dill(allowed) and _permits_dill(self._expected)

    def read(self, ended: Ended) -> tuple[Any, BaseException | None]:
        """(value, None) or (None, error). Never raises."""
        if ended.error_code is not None:
            return None, self._error_of(ended)
        try:
            self._refuse_unexpected(ended.data)
            return self._serializer.deserialize(ended.data, python_version=_python_of(ended)), None
        except DeserializationError as exc:
            return None, exc
        except BaseException as exc:  # any: the user's classes run here, and must not end the thread of all results
            error = DeserializationError(
                f"The result of task {ended.task_id} arrived, but cannot be loaded here: "
                f"{type(exc).__name__}: {exc}.{_version_hint(ended)}"
            )
            error.__cause__ = exc
            return None, error

    def _refuse_unexpected(self, data: str) -> None:
        if self._expected and (found := type(strategy_by_payload(data))) not in self._expected:
            names = ", ".join(sorted(cls.__name__ for cls in self._expected))
            raise DeserializationError(
                f"The worker answered in {found.__name__}, though the result_serializers are {names}. "
                "The result was not loaded."
            )

    def _error_of(self, ended: Ended) -> BaseException:
        code, text = ended.error_code, ended.data
        if code == TaskCancelled.code:
            by = text.removeprefix(f"Task {ended.task_id} was cancelled").lstrip(": ")  # the error says that itself
            return TaskCancelled(ended.task_id, by)
        original = load_exception(ended.details, text, task_id=ended.task_id, allow_dill=self._allow_dill)
        if original is not None:
            return original
        if _OF_SERIALIZATION.search(text):
            text += _version_hint(ended)
        if code == DeserializationError.code:
            return DeserializationError(text)
        if code == SerializationError.code:
            return SerializationError(text)
        return _CLASS_BY_CODE.get(code or "", TaskExecutionFailed)(text, ended.completion_t)


def _permits_dill(strategies: frozenset[type[SerializationStrategy]]) -> bool:
    return not strategies or DillDataBase64 in strategies


def _python_of(ended: Ended) -> str | None:
    version = (ended.details or {}).get("python_version")
    return version if isinstance(version, str) else None


def _version_hint(ended: Ended) -> str:
    """A sentence that names both versions if the worker's Python is another minor version than ours."""
    theirs = python_minor(_python_of(ended) or "")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if theirs is None or theirs == ours:
        return ""
    return (
        f"\nThe worker runs Python {theirs}, this client Python {ours}; code that is sent as bytecode needs the same "
        "minor version on both sides. Use the same, or send source: "
        "Executor(serializer=ComputeSerializer(strategy_code=PureSourceTextInspect()))."
    )
