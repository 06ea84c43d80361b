"""The words for states. Colours are `components.stats`' business: a word is always there too."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["TASK_STATES", "is_over", "state_word"]

TASK_STATES: Final = {
    "received": "Received",
    "waiting-for-nodes": "Waiting for a worker",
    "running": "Running",
    "success": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
"""States of tasks by their names in the interface, in the order of a task's life."""

_ENDED: Final = frozenset({"success", "failed", "cancelled"})
_REPORTED: Final = {
    # What endpoints report beyond these. Source: wire protocol, enumerations.
    "waiting-for-ep": "Waiting for the endpoint",
    "waiting-for-launch": "Waiting for a worker",
    "execution-start": "Executing",
    "execution-end": "Executed",
    "result-received": "Result received",
    "result-enqueued": "Result on its way",
}


def state_word(state: Any) -> str:  # a member of a JSON document
    """What a state is called; one that nobody here knows by its own name."""
    name = str(state or "Unknown")
    return TASK_STATES.get(name) or _REPORTED.get(name) or name


def is_over(state: Any) -> bool:  # a member of a JSON document
    """Whether a task in this state has ended."""
    return isinstance(state, str) and state in _ENDED
