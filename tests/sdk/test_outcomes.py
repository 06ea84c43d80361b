from __future__ import annotations

import sys
from uuid import uuid4

import pytest

from farcall.sdk.outcomes import Ended, ResultReader, ended_from_document, ended_from_message
from farcall.serialize import ComputeSerializer, DillDataBase64, JSONData
from farcall.serialize.exceptions import dump_exception
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
from farcall.wire.messages import ErrorDetails, Result, Task, pack_message

TASK = str(uuid4())
READER = ResultReader(ComputeSerializer())
OTHER_PYTHON = f"3.{sys.version_info.minor + 1}.2"


def failed(code: str, text: str = "text", **details) -> Ended:
    return Ended(task_id=TASK, data=text, error_code=code, details=details or None, completion_t="7")


def test_a_result_message_is_an_outcome() -> None:
    body = pack_message(Result(task_id=TASK, data="11\n42", details={"os": "x"}))
    assert ended_from_message(body, 1700000000) == Ended(
        task_id=TASK, data="11\n42", details={"os": "x"}, completion_t="1700000000"
    )
    assert READER.read(ended_from_message(body)) == (42, None)


def test_a_failure_without_text_uses_the_users_message() -> None:
    error = ErrorDetails(code="WORKER_LOST", user_message="signal 9")
    ended = ended_from_message(pack_message(Result(task_id=TASK, data="", error_details=error)))
    assert (ended.data, ended.error_code) == ("signal 9", "WORKER_LOST")


def test_another_message_is_no_outcome() -> None:
    with pytest.raises(MessageError, match="'task'"):
        ended_from_message(pack_message(Task(task_id=TASK, task_buffer="x")))


@pytest.mark.parametrize("status", ["received", "waiting-for-nodes", "running", "anything", ""])
def test_a_task_that_has_not_ended_has_no_outcome(status: str) -> None:
    assert ended_from_document({"task_id": TASK, "status": status}) is None


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"status": "SUCCESS", "result": "11\n1", "completion_t": "12.5", "details": {"os": "x"}},
            Ended(task_id=TASK, data="11\n1", completion_t="12.5", details={"os": "x"}),
        ),
        (
            {"status": "failed", "exception": "Traceback", "completion_t": "12"},
            Ended(task_id=TASK, data="Traceback", error_code="RemoteExecutionError", completion_t="12"),
        ),
        (
            {"status": "failed", "exception": "the text", "reason": "WORKER_LOST: killed"},
            Ended(task_id=TASK, data="the text", error_code="WORKER_LOST"),
        ),
        (
            {"status": "failed", "reason": "TASK_CANCELLED: by its owner"},
            Ended(task_id=TASK, data="by its owner", error_code="TASK_CANCELLED"),
        ),
        (
            {"status": "failed"},
            Ended(task_id=TASK, data="The task failed without a reason.", error_code="RemoteExecutionError"),
        ),
    ],
)
def test_a_task_document_is_an_outcome(document, expected) -> None:
    assert ended_from_document({"task_id": TASK, **document}) == expected


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("RemoteExecutionError", TaskExecutionFailed),
        ("MaxResultSizeExceeded", MaxResultSizeExceeded),
        ("WORKER_LOST", WorkerLost),
        ("ENDPOINT_LOST", EndpointLost),
        ("TASK_CANCELLED", TaskCancelled),
        ("SERIALIZATION_ERROR", SerializationError),
        ("DESERIALIZATION_ERROR", DeserializationError),
        ("SOMETHING_NEW", TaskExecutionFailed),
    ],
)
def test_the_code_decides_the_class(code: str, kind: type[Exception]) -> None:
    value, error = READER.read(failed(code))
    assert value is None
    assert type(error) is kind
    assert "text" in str(error)


def test_only_a_traceback_begins_on_a_line_of_its_own() -> None:
    words = "The configuration of the user endpoint cannot be used:\n  line 1: no key `max_wokers`"
    _, error = READER.read(failed("ENDPOINT_START_FAILED", words))
    assert str(error) == words
    traceback = "Traceback (most recent call last):\n  ...\nValueError: wrong"
    assert str(TaskExecutionFailed(traceback)) == f"\n{traceback}"


def test_a_cancelled_task_is_said_to_be_cancelled_once() -> None:
    _, error = READER.read(failed("TASK_CANCELLED", f"Task {TASK} was cancelled by ada."))
    assert str(error) == f"Task {TASK} was cancelled: by ada."


def test_an_exception_that_can_be_loaded_arrives_as_itself() -> None:
    _, error = READER.read(
        failed("RemoteExecutionError", "remote traceback", exception=dump_exception(ValueError("x", 1)))
    )
    assert isinstance(error, ValueError)
    assert error.args == ("x", 1)
    assert "remote traceback" in str(error.__cause__)


@pytest.mark.parametrize(
    "reader",
    [
        ResultReader(ComputeSerializer(), [JSONData]),
        ResultReader(ComputeSerializer(allowed_deserializer_types=[JSONData, "farcall.*Code"])),
    ],
    ids=["result_serializers", "allow-list"],
)
def test_who_does_not_accept_dill_gets_the_text(reader: ResultReader) -> None:
    dumped = dump_exception(ValueError("x"))
    _, error = reader.read(failed("RemoteExecutionError", "remote traceback", exception=dumped))
    assert type(error) is TaskExecutionFailed
    value, error = reader.read(Ended(task_id=TASK, data=ComputeSerializer().serialize(1)))
    assert value is None
    assert isinstance(error, DeserializationError)
    assert reader.read(Ended(task_id=TASK, data="11\n1")) == (1, None)


def test_who_accepts_dill_among_others_gets_the_exception() -> None:
    reader = ResultReader(ComputeSerializer(), [JSONData, DillDataBase64])
    _, error = reader.read(failed("RemoteExecutionError", exception=dump_exception(KeyError("k"))))
    assert isinstance(error, KeyError)


def test_a_mismatch_of_python_versions_is_named_where_it_can_be_the_cause() -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    _, error = READER.read(failed("RemoteExecutionError", "TypeError: unpickling failed", python_version=OTHER_PYTHON))
    assert f"Python 3.{sys.version_info.minor + 1}" in str(error)
    assert f"Python {ours}" in str(error)
    _, error = READER.read(failed("RemoteExecutionError", "ZeroDivisionError", python_version=OTHER_PYTHON))
    assert ours not in str(error)


class _Explodes:
    def __reduce__(self):
        return (_explode, ())


def _explode():
    raise SystemExit(3)


def test_a_value_whose_loading_fails_is_an_error_and_never_an_exit() -> None:
    data = ComputeSerializer().serialize(_Explodes())
    value, error = READER.read(Ended(task_id=TASK, data=data))
    assert value is None
    assert isinstance(error, DeserializationError)
    assert READER.read(Ended(task_id=TASK, data="zz\nnonsense"))[1] is not None
    assert READER.read(Ended(task_id=TASK, data=""))[1] is not None
