"""How far tasks are that have not ended, as their endpoints report it. Decides only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from farcall.wire.states import TaskState

__all__ = ["Move", "after_report"]

_STATES: Final = {state.value: state for state in TaskState if not state.is_terminal} | {
    "execution-start": TaskState.RUNNING,
    "waiting-for-launch": TaskState.WAITING_FOR_NODES,
}


@dataclass(frozen=True, slots=True)
class Move:
    """Where a task is now.

    Attributes:
        taken_at, started_at: when it came to wait at the endpoint, and when a worker began it, by the endpoint's clock
            (Unix seconds); None: nothing was said of that.
    """

    state: TaskState
    taken_at: float | None = None
    started_at: float | None = None


def after_report(before: Move | None, told: Sequence[tuple[str, int]]) -> Move | None:
    """What is known of a task after a report; None if nothing can be made of it.

    Args:
        before: what earlier reports said that nobody has written down yet.
        told: states, as the protocol names them, with their times (Unix nanoseconds), in the order of the report.
    """
    move = before
    for name, at_ns in told:
        state = _STATES.get(name)
        if state is None:
            continue
        at = at_ns / 1e9
        move = Move(
            state,
            at if state is TaskState.WAITING_FOR_NODES else move.taken_at if move else None,
            at if state is TaskState.RUNNING else move.started_at if move else None,
        )
    return move
