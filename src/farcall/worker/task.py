"""What crosses from the endpoint's engine to a node for one task: a small tuple of plain values."""

from __future__ import annotations

from typing import NamedTuple

from farcall.wire.limits import RESULT_LIMIT_CHARS

__all__ = ["WorkerTask"]


class WorkerTask(NamedTuple):
    """One task, as a worker needs it. A tuple, because engines pickle one per call.

    Args:
        task_id: canonical text of a UUID.
        task_buffer: three framed texts: function, positional arguments, keyword arguments.
        endpoint_id: of the (user) endpoint, reported back; None if unknown.
        result_serializers: import paths of the formats that the caller accepts, in order; None: the defaults.
        python_version: of the Python that serialized the function and arguments ("3.11.7"), None if unknown.
            Payloads of our own SDK say it themselves; this is for those of other clients.
        working_dir: absolute path of the directory in which the task runs; None: where the worker is.
        sandbox: run in a directory of the task's own, `<working_dir>/<task id>`.
        allowed_serializers: import paths or wildcards that the endpoint accepts; None: all.
        result_limit_chars: a longer serialized result fails the task.
    """

    task_id: str
    task_buffer: str
    endpoint_id: str | None = None
    result_serializers: tuple[str, ...] | None = None
    python_version: str | None = None
    working_dir: str | None = None
    sandbox: bool = False
    allowed_serializers: tuple[str, ...] | None = None
    result_limit_chars: int = RESULT_LIMIT_CHARS
