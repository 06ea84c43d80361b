"""What Parsl's errors mean for a task. Decides only."""

from __future__ import annotations

import traceback
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper
from parsl.executors.high_throughput.errors import ManagerLost, VersionMismatch, WorkerLost
from parsl.serialize import deserialize

from farcall.endpoint.engines.base import CODE_NOT_STARTED, CODE_WORKER_LOST, EngineFailure
from farcall.endpoint.engines.texts import not_started_text

__all__ = ["blocks_failed", "failure_of", "interchange_lost", "load_exception"]

_FRAME_TOP, _FRAME_BOTTOM = "+" * 68, "-" * 68


def load_exception(serialized: bytes) -> BaseException:
    """The exception that Parsl sent instead of a result; never raises."""
    try:
        value: Any = deserialize(serialized)
        if isinstance(value, RemoteExceptionWrapper):
            value = value.get_exception()
    except Exception as exc:
        return exc
    return value if isinstance(value, BaseException) else RuntimeError(f"not an exception but {type(value).__name__}")


def failure_of(exc: BaseException, log_dir: str) -> EngineFailure:
    """What becomes of a task for which Parsl sent this instead of a result.

    Args:
        log_dir: the engine's, to name where the worker's log is.
    """
    if isinstance(exc, WorkerLost):
        text = (
            f"The worker that ran this task is gone: worker {exc.worker_id} on {exc.hostname} was killed or ended. "
            "Out of memory? The node's kernel log (`dmesg`) and the batch system's accounting tell. "
            f"Its log is worker_{exc.worker_id}.log below {log_dir}."
        )
        return EngineFailure(code=CODE_WORKER_LOST, text=text, is_system_failure=True)
    if isinstance(exc, ManagerLost):
        text = (
            f"The node that ran this task is gone: nothing more was heard from {exc.hostname}. Its job may have "
            "reached its time limit or been cancelled, or the node or its network failed. "
            f"The batch system's accounting tells; the node's log is manager.log below {log_dir}."
        )
        return EngineFailure(code=CODE_WORKER_LOST, text=text, is_system_failure=True)
    if isinstance(exc, ModuleNotFoundError) and (exc.name or "").partition(".")[0] in ("farcall", "dill"):
        reason = (
            f"the worker's Python environment has no module '{exc.name}'. The site must install farcall in the "
            "environment that the endpoint's `worker_init` activates, in the same release as the endpoint's."
        )
        return EngineFailure(
            code=CODE_NOT_STARTED, text=not_started_text(reason), is_system_failure=False, may_have_run=False
        )
    text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    return EngineFailure(
        code=CODE_NOT_STARTED,
        text=f"The engine could not run this task.\n{_FRAME_TOP}\n{text}{_FRAME_BOTTOM}",
        is_system_failure=False,
    )


def interchange_lost(how: str, log_dir: str) -> EngineFailure:
    """The interchange ended while it had the task."""
    text = (
        f"The endpoint's connection to its workers is gone: the interchange was {how}. The task may have been "
        f"running. The endpoint starts a new one by itself; the log is interchange.log in {log_dir}."
    )
    return EngineFailure(code=CODE_WORKER_LOST, text=text, is_system_failure=True)


def blocks_failed(exc: BaseException, scripts_dir: str) -> str:
    """Why no worker can be started, for users and site: with the end of the jobs' own output."""
    if isinstance(exc, VersionMismatch):
        return (
            f"Workers and endpoint do not fit together: {exc}. The environment of `worker_init` needs the same Parsl."
        )
    return (
        "No worker could be started: every block (batch job) has failed. What the jobs said:\n"
        f"{_FRAME_TOP}\n{str(exc).strip()}\n{_FRAME_BOTTOM}\nJob scripts and their whole output are in {scripts_dir}."
    )
