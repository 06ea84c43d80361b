"""What the agent itself tells a user about a task that got no answer from a worker. Pure.

Each text says what happened, when and where, and what to do next. Engine failures are framed as the ecosystem's
clients know it: one section per attempt. Source: wire protocol, result contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from farcall.wire.messages import ErrorDetails, Result, TaskTransition, pack_message
from farcall.wire.states import Actor

__all__ = [
    "CODE_ENDPOINT_LOST",
    "CODE_ENGINE_FAILED",
    "CODE_NOT_ALLOWED",
    "CODE_UNREADABLE",
    "engine_dead_text",
    "failure_message",
    "lost_in_restart_text",
    "not_allowed_text",
    "stored_copy_lost_text",
    "system_failure_text",
    "unreadable_text",
]

CODE_ENDPOINT_LOST = "ENDPOINT_LOST"
CODE_ENGINE_FAILED = "ENGINE_FAILED"
CODE_NOT_ALLOWED = "FUNCTION_NOT_ALLOWED"
CODE_UNREADABLE = "CouldNotExecuteUserTaskError"

_OPEN = "+" * 68
_CLOSE = "-" * 68


def failure_message(
    task_id: str, *, code: str, text: str, endpoint_id: str, unix_s: float, details: dict[str, str] | None = None
) -> bytes:
    """The packed result message of a task that failed without a worker's answer."""
    result = Result(
        task_id=task_id,
        data=text,
        details={"endpoint_id": endpoint_id, **(details or {})},
        error_details=ErrorDetails(code=code, user_message=_first_line(text)),
        task_statuses=(TaskTransition(timestamp=int(unix_s * 1e9), state="execution-end", actor=Actor.ENDPOINT.value),),
    )
    return pack_message(result)


def lost_in_restart_text(*, endpoint_name: str, started_s: float | None, attempts: int, retries: int) -> str:
    """The agent ended while the task may have been running, and may not run it again."""
    when = f"at {_time(started_s)} " if started_s is not None else ""
    return (
        f"The agent of endpoint '{endpoint_name}' ended while this task may have been running: it was given to a "
        f"worker {when}(attempt {attempts} of {retries + 1}), and no result was stored before the agent went away. "
        "Whether the function ran, in part or whole, is not known. " + _how_to_retry(retries)
    )


def system_failure_text(notes: Sequence[str], *, retries: int) -> str:
    """What became of every attempt. `notes`: one text per attempt, oldest first, not empty."""
    sections = [
        f"{_OPEN}\nAttempt {number} of {retries + 1}:\n{note}\n{_CLOSE}"
        if len(notes) > 1 or retries
        else f"{_OPEN}\n{note}\n{_CLOSE}"
        for number, note in enumerate(notes, 1)
    ]
    return f"{_first_line(notes[-1])}\n" + "\n".join(sections) + "\n" + _how_to_retry(retries)


def not_allowed_text(function_id: str, endpoint_name: str, endpoint_id: str) -> str:
    return (
        f"Function {function_id} is not permitted on endpoint '{endpoint_name}' ({endpoint_id}). Its administrator "
        "lists the permitted ones under `allowed_functions` in the endpoint's config.yaml."
    )


def unreadable_text(reason: str) -> str:
    return (
        f"The endpoint could not read this task: {reason}. It was not run. The service or the SDK that sent it may "
        "be of another release; compare `farcall version` with `farcall-endpoint version`."
    )


def stored_copy_lost_text(endpoint_name: str) -> str:
    return (
        f"Endpoint '{endpoint_name}' had accepted this task, but its stored copy on the endpoint's disk can no longer "
        "be read. Submit it again; the endpoint's administrator finds more in endpoint.log."
    )


def engine_dead_text(reason: str, endpoint_name: str) -> str:
    return (
        f"Endpoint '{endpoint_name}' cannot run tasks: its engine failed repeatedly. Last reason: {reason}\n"
        "This task was not run. The endpoint's administrator finds more in endpoint.log."
    )


def _how_to_retry(retries: int) -> str:
    if retries:
        return f"The endpoint runs a lost task again {retries} times (max_retries_on_system_failure); this is used up."
    return (
        "It is not run again on its own, because a function that has begun may have had effects. If yours may run "
        "twice, submit it again, or set `max_retries_on_system_failure: 1` in the `engine` section of the "
        "endpoint's config.yaml (of a multi-user endpoint: its administrator can, in the template)."
    )


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip() and set(line) != {"+"}), "")[:500]


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
