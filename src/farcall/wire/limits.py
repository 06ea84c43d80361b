"""Limits and timings that more than one part must agree on. Units are in the names.

Source: wire protocol, limits and timings.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "DEFAULT_HEARTBEAT_PERIOD_S",
    "ENDPOINT_NAME_LIMIT_CHARS",
    "HEARTBEAT_TOLERANCE",
    "MIN_HEARTBEAT_PERIOD_S",
    "PAYLOAD_LIMIT_BYTES",
    "REQUEST_LIMIT_BYTES",
    "RESULT_LIMIT_CHARS",
    "RESULT_RETENTION_S",
    "SUBMIT_BATCH_LIMIT_TASKS",
    "TASK_LIFETIME_S",
]

PAYLOAD_LIMIT_BYTES: Final = 10 * 1024 * 1024
"""Of one function, and of one task's packed arguments, in UTF-8 (they are ASCII but for source text)."""

REQUEST_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Of one HTTP request's body: one payload at the limit plus JSON escapes and the rest of the document."""

RESULT_LIMIT_CHARS: Final = 10 * 1024 * 1024
"""Of one serialized result; enforced on the worker."""

TASK_LIFETIME_S: Final = 14 * 24 * 3600
"""A task that has not ended this long after its submission is failed by the service."""

RESULT_RETENTION_S: Final = 14 * 24 * 3600
"""A result is kept this long after the task ended."""

SUBMIT_BATCH_LIMIT_TASKS: Final = 4096
"""Tasks in one submission."""

DEFAULT_HEARTBEAT_PERIOD_S: Final = 30
MIN_HEARTBEAT_PERIOD_S: Final = 5

HEARTBEAT_TOLERANCE: Final = 2.5
"""An endpoint counts as online for this many announced periods after its last report."""

ENDPOINT_NAME_LIMIT_CHARS: Final = 128
