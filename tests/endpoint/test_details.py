"""What stands beside the value in a worker's result."""

from __future__ import annotations

from typing import Any

import pytest

from farcall.endpoint.agent.details import Place, place_of, with_attempts
from farcall.wire.messages import ErrorDetails, Result, pack_message, unpack_message

TASK = "01a2073a-abbd-71b9-9a71-415c878f195a"
MISLEADING = '"details":{"attempts":9,"block":"7","job":"x"}, \\"details\\":{"block":"7"}'


def packed(details: dict[str, Any] | None, error: ErrorDetails | None = None) -> bytes:
    return pack_message(Result(task_id=TASK, data=MISLEADING, details=details, error_details=error))


def details_of(body: bytes) -> Any:
    message = unpack_message(body)
    assert isinstance(message, Result)
    assert message.data == MISLEADING
    return message.details


ERROR = ErrorDetails(code="RemoteExecutionError", user_message=MISLEADING)


@pytest.mark.parametrize("error", [None, ERROR])
def test_attempts_are_added_and_nothing_else_is_changed(error: ErrorDetails | None) -> None:
    assert details_of(with_attempts(packed({"block": "ü0", "exception": MISLEADING}, error), 3)) == {
        "attempts": 3,
        "block": "ü0",
        "exception": MISLEADING,
    }
    assert details_of(with_attempts(packed({}, error), 0)) == {"attempts": 0}


def test_a_result_without_details_stays_as_it_is() -> None:
    assert with_attempts(packed(None), 1) == packed(None)
    assert place_of(packed(None)) == place_of(b"") == place_of(b'\x01"details":{[') == Place()


@pytest.mark.parametrize(
    ("details", "place"),
    [
        ({"block": "0", "job": "4711", "hostname": "n1"}, Place(block="0", job="4711")),
        ({"block": None, "job": "12[3].head"}, Place(job="12_3_.head")),
        ({"block": 7, "job": "1 EXEC_END\nuid=0"}, Place(job="1_EXEC_END_uid_0")),
        ({"exception": MISLEADING, "block": "x" * 99}, Place(block="x" * 64)),
    ],
)
def test_where_a_task_ran_is_a_word_each_whatever_a_worker_says(details: dict[str, Any], place: Place) -> None:
    assert place_of(packed(details, ERROR)) == place
