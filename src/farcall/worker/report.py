"""The result message of a task: what is said about the worker, and how a failure is told.

Source: wire protocol, result contents. Additions of ours in `details`: `farcall_version`, `hostname`, `pid`,
`block`, `job` (of the batch system), and for failures `exception` (see `farcall.serialize.exceptions`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from farcall import __version__
from farcall.serialize.exceptions import EXCEPTION_KEY, dump_exception
from farcall.serialize.source import show_in_tracebacks
from farcall.wire.errors import FarcallError
from farcall.wire.messages import ErrorDetails, Result, TaskTransition, pack_message

__all__ = [
    "COMPATIBLE_SDK_VERSION",
    "TRACEBACK_LIMIT_CHARS",
    "add_hint",
    "failure_message",
    "success_message",
    "traceback_text",
]

COMPATIBLE_SDK_VERSION = "4.19.0"
"""The release of the other ecosystem whose formats we write; its SDK compares it with its own and warns."""

TRACEBACK_LIMIT_CHARS = 64 * 1024

_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "COBALT_JOBID", "JOB_ID")
"""Where batch systems tell a job's processes its id; the last is Grid Engine's."""

_MESSAGE_LIMIT_CHARS = 500
_OWN_FILES = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PICKLING_FILES = (os.sep + "pickle.py", os.path.join("dill", "_dill.py"))


def success_message(task_id: str, endpoint_id: str | None, data: str, started_ns: int, ended_ns: int) -> bytes:
    """The packed result of a task that returned a value; `data` is the value, serialized."""
    return pack_message(
        Result(
            task_id=task_id,
            data=data,
            details=_worker_details(endpoint_id),
            task_statuses=_transitions(started_ns, ended_ns),
        )
    )


def failure_message(
    task_id: str,
    endpoint_id: str | None,
    exc: BaseException,
    *,
    code: str,
    text: str,
    with_exception: bool,
    started_ns: int,
    ended_ns: int,
) -> bytes:
    """The packed result of a task that failed.

    Args:
        exc: why; its one-line form becomes the user message.
        code: of `error_details`.
        text: what the user reads, usually `traceback_text(exc)`; cut in the middle if it is too long.
        with_exception: whether the caller accepts the exception as an object too.
    """
    details = dict(_worker_details(endpoint_id))
    dumped = dump_exception(exc) if with_exception else None
    if dumped is not None:
        details[EXCEPTION_KEY] = dumped
    return pack_message(
        Result(
            task_id=task_id,
            data=_cut_middle(text, TRACEBACK_LIMIT_CHARS),
            details=details,
            error_details=ErrorDetails(code=code, user_message=_one_line(exc)),
            task_statuses=_transitions(started_ns, ended_ns),
        )
    )


def traceback_text(exc: BaseException) -> str:
    """The traceback from the user's function on: without the worker's own frames above it.

    Never raises, whatever the exception's own methods do.
    """
    try:
        import traceback

        show_in_tracebacks()
        told = traceback.TracebackException(type(exc), exc, exc.__traceback__, compact=True)
        _strip(told, is_ours=isinstance(exc, FarcallError))
        return "".join(told.format())
    except BaseException as inner:  # the exception's own code runs here
        return f"{type(exc).__name__}: (its traceback cannot be shown: {type(inner).__name__})\n"


def add_hint(exc: BaseException) -> str:
    """Advice on an exception that many meet first, as text to append to `traceback_text(exc)`.

    From Python 3.11 on it becomes a note of the exception instead, which travels with it and is part of its
    traceback; "" is returned then. Type and `args` stay as they are. Never raises.
    """
    try:
        hint = _missing_name_hint(exc)
        if hint and sys.version_info >= (3, 11):
            exc.add_note(hint)
            return ""
    except Exception:  # any: a subclass may forbid what it likes
        return ""
    return f"{hint}\n" if hint else ""


def _missing_name_hint(exc: BaseException) -> str:
    if not isinstance(exc, NameError) or isinstance(exc, UnboundLocalError) or exc.name is None:
        return ""
    last = exc.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or _is_of_installed_module(last.tb_frame.f_globals):
        return ""
    return (
        f"{exc.name!r} is not known inside the function on the worker: only the function's own code travels, not the "
        "imports and names around it. Import or define it inside the function, or pass it as an argument."
    )


def _is_of_installed_module(namespace: Mapping[str, Any]) -> bool:
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    # Functions of the caller's script get the worker's main module, which has other names in child processes.
    return module is not None and module is not sys.modules.get("__main__") and vars(module) is namespace


def _strip(told: Any, *, is_ours: bool) -> None:  # a traceback.TracebackException
    while told is not None:
        frames = told.stack or []
        while frames and frames[0].filename.startswith(_OWN_FILES):
            del frames[0]
        if is_ours:
            frames[:] = [frame for frame in frames if not frame.filename.endswith(_PICKLING_FILES)]
            if not frames:
                told.stack = None  # no "Traceback" line above nothing
        told = told.__cause__ or told.__context__


def _one_line(exc: BaseException) -> str:
    try:
        text = str(exc).strip()
    except BaseException:
        text = "(its message cannot be shown)"
    line = text.partition("\n")[0]
    return f"{type(exc).__name__}: {line}"[:_MESSAGE_LIMIT_CHARS] if line else type(exc).__name__


def _cut_middle(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2 - 50
    return f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"


def _transitions(started_ns: int, ended_ns: int) -> tuple[TaskTransition, TaskTransition]:
    return (
        TaskTransition(timestamp=started_ns, state="execution-start", actor="worker"),
        TaskTransition(timestamp=ended_ns, state="execution-end", actor="worker"),
    )


_details: tuple[int, dict[str, Any]] | None = None


def _worker_details(endpoint_id: str | None) -> dict[str, Any]:
    global _details
    pid = os.getpid()
    if _details is None or _details[0] != pid:  # a forked worker is another process
        _details = (pid, _describe(pid))
    details = _details[1]
    if details["endpoint_id"] != endpoint_id:
        details = {**details, "endpoint_id": endpoint_id}
        _details = (pid, details)
    return details


def _describe(pid: int) -> dict[str, Any]:
    import dill

    system = os.uname()
    return {
        "os": f"{system.sysname}-{system.release}-{system.machine}",
        "dill_version": dill.__version__,
        "python_version": sys.version.split()[0],
        "globus_compute_sdk_version": COMPATIBLE_SDK_VERSION,
        "farcall_version": __version__,
        "endpoint_id": None,
        "hostname": system.nodename,
        "pid": pid,
        "block": os.environ.get("PARSL_WORKER_BLOCK_ID"),
        "job": next((os.environ[name] for name in _JOB_VARIABLES if os.environ.get(name)), None),
    }
