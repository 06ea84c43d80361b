"""What counts as usage, and who may see whose. Decides only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from farcall.service.relay.results import TaskRef
from farcall.wire.states import TaskState

__all__ = ["DAY_S", "Count", "Key", "add_up"]

DAY_S: Final = 86400
_CLOCKS_DIFFER_S: Final = 60.0

Key = tuple[int, str, str, str]
"""Day (UTC, days since 1970), whose task, at which endpoint, of which function."""


@dataclass(slots=True)
class Count:
    """Tasks that ended, and for how long workers ran them (s)."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    run_s: float = 0.0


def add_up(ends: Iterable[tuple[TaskRef, TaskState, float]], *, now: float) -> dict[Key, Count]:
    """Count what ends at `now`.

    Args:
        ends: tasks, their final states, and how long a worker says that each ran (s). A task cannot have run for
            longer than it exists, whatever an endpoint says.
    """
    day = int(now // DAY_S)
    counts: dict[Key, Count] = {}
    for task, state, run_s in ends:
        key = (day, task.owner_id, task.endpoint_id, task.function_id)
        count = counts.get(key)
        if count is None:
            count = counts[key] = Count()
        if state is TaskState.SUCCESS:
            count.succeeded += 1
        elif state is TaskState.CANCELLED:
            count.cancelled += 1
        else:
            count.failed += 1
        count.run_s += min(run_s, max(0.0, now - task.created_at) + _CLOCKS_DIFFER_S)
    return counts
