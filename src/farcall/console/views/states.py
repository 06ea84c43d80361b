"""How states look: a word, a tone and a sign for each, so that none is told by its colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["TASK_STATES", "Shown", "Tone", "endpoint_state", "is_over", "outcome", "task_state"]

Tone = Literal["good", "bad", "busy", "waiting", "quiet"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A state as it is shown.

    Attributes:
        word: what to say.
        tone: which colour it has in both schemes; the layout's styles know them.
        icon: name of a Material icon, shown beside the word.
    """

    word: str
    tone: Tone
    icon: str


TASK_STATES: Final = {
    "received": Shown(word="Received", tone="waiting", icon="inbox"),
    "waiting-for-nodes": Shown(word="Waiting for a worker", tone="waiting", icon="hourglass_empty"),
    "running": Shown(word="Running", tone="busy", icon="play_circle"),
    "success": Shown(word="Succeeded", tone="good", icon="check_circle"),
    "failed": Shown(word="Failed", tone="bad", icon="error"),
    "cancelled": Shown(word="Cancelled", tone="quiet", icon="cancel"),
}
"""By their names in the interface, in the order of a task's life."""

_ENDED: Final = frozenset({"success", "failed", "cancelled"})
_OTHER_WORDS: Final = {
    # What agents of the ecosystem report besides. Source: wire protocol, enumerations.
    "waiting-for-ep": Shown(word="Waiting for the endpoint", tone="waiting", icon="inbox"),
    "waiting-for-launch": Shown(word="Waiting for a worker", tone="waiting", icon="hourglass_empty"),
    "execution-start": Shown(word="Running", tone="busy", icon="play_circle"),
    "execution-end": Shown(word="Executed", tone="busy", icon="done"),
    "result-received": Shown(word="Result received", tone="busy", icon="done"),
    "result-enqueued": Shown(word="Result on its way", tone="busy", icon="done"),
}


def task_state(state: Any) -> Shown:  # a member of a JSON document
    """How a task's state is shown; one that nobody here knows is shown by its own name."""
    known = TASK_STATES.get(state) or _OTHER_WORDS.get(state) if isinstance(state, str) else None
    return known or Shown(word=str(state or "Unknown"), tone="quiet", icon="help")


def is_over(state: Any) -> bool:  # a member of a JSON document
    """Whether a task in this state has ended."""
    return isinstance(state, str) and state in _ENDED


def endpoint_state(is_online: bool | None) -> Shown:
    """How an endpoint's being there is shown; None: nobody knows."""
    if is_online is None:
        return Shown(word="Unknown", tone="quiet", icon="help")
    if is_online:
        return Shown(word="Online", tone="good", icon="check_circle")
    return Shown(word="Offline", tone="quiet", icon="cloud_off")


def outcome(value: Any) -> Shown:  # a member of a JSON document
    """How the outcome of an audited act is shown."""
    if value == "done":
        return Shown(word="Done", tone="good", icon="check_circle")
    if value == "refused":
        return Shown(word="Refused", tone="bad", icon="block")
    return Shown(word=str(value or "Unknown"), tone="quiet", icon="help")
