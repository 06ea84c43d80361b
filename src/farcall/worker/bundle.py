"""What an engine on a batch system runs on a worker: one or several tasks that travel as one.

The bytes in both directions are opaque to what carries them (Parsl). Which tasks travel together is the engine's
decision (`farcall.endpoint.engines`).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from farcall.worker.run import run_task
from farcall.worker.task import WorkerTask

__all__ = ["pack_tasks", "run_packed", "unpack_results"]


def pack_tasks(tasks: Sequence[WorkerTask]) -> bytes:
    """The bytes that `run_packed` takes; readable by any supported Python version."""
    return pickle.dumps([tuple(task) for task in tasks], 5)


def run_packed(packed: bytes) -> bytes:
    """Run the tasks one after the other; one that fails does not touch the others.

    Args:
        packed: from `pack_tasks`.

    Returns:
        For `unpack_results`.
    """
    tasks = [WorkerTask(*members) for members in pickle.loads(packed)]  # noqa: S301  # from the agent that started us
    return pickle.dumps([run_task(task) for task in tasks], 5)


def unpack_results(packed: bytes) -> list[bytes]:
    """The packed result messages, in the order of the tasks."""
    results: list[bytes] = pickle.loads(packed)  # noqa: S301  # workers are started by, and run as, the agent's user
    return results
