"""Why a task has not ended, in words that its owner can act on. Decides only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from farcall.wire.states import TaskState

__all__ = ["COUNT_LIMIT", "Place", "Situation", "why_waiting"]

COUNT_LIMIT: Final = 10_000
"""Tasks before one are counted up to this many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An endpoint, user endpoint or manager.

    Attributes:
        seen_at: when it last said something; None: never.
        workers, idle_workers: as it last reported; None: unknown.
    """

    id: str
    name: str
    is_online: bool
    is_deleted: bool = False
    seen_at: float | None = None
    workers: int | None = None
    idle_workers: int | None = None
    locked_until: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What is known of a task that has not ended. Times are Unix seconds.

    Attributes:
        endpoint: in whose queue it is.
        manager: who starts that; None: it starts by itself.
        ahead: tasks of the same queue that were submitted before it and have not ended; at most `COUNT_LIMIT` + 1.
        kept_until: when the service gives it up.
    """

    state: TaskState
    endpoint: Place
    manager: Place | None
    ahead: int
    kept_until: float


def why_waiting(situation: Situation, *, now: float) -> str | None:
    """What a task waits for; None if it has ended, or runs as far as is known."""
    state, endpoint, manager = situation.state, situation.endpoint, situation.manager
    if state.is_terminal:
        return None
    if endpoint.is_deleted or (manager is not None and manager.is_deleted):
        return "Its endpoint was deleted; the task is about to be ended."
    if not endpoint.is_online:
        if state is TaskState.RUNNING:
            return (
                f"It was running when {_who(endpoint, manager)} was last heard of ({_seen(endpoint)}). When the "
                f"endpoint is back it says what became of it. {_kept(situation)}"
            )
        return _nobody_there(situation, endpoint, manager, now)
    if state is TaskState.RUNNING:
        return None
    if state is TaskState.WAITING_FOR_NODES:
        return _no_worker(endpoint, situation)
    if situation.ahead:
        return f"It is queued behind {_count(situation.ahead)} of this endpoint, which takes them in order."
    return "It is on its way to the endpoint."


def _nobody_there(situation: Situation, endpoint: Place, manager: Place | None, now: float) -> str:
    if manager is None:
        if endpoint.locked_until is not None and now < endpoint.locked_until:
            return (
                f"Endpoint '{endpoint.name}' was stopped remotely, and may start again at {_at(endpoint.locked_until)}."
                f" {_kept(situation)}"
            )
        return (
            f"Endpoint '{endpoint.name}' is offline ({_seen(endpoint)}). Start it where it is installed: "
            f"`farcall-endpoint start {endpoint.name}`. {_kept(situation)}"
        )
    if not manager.is_online:
        return (
            f"The manager '{manager.name}' is offline ({_seen(manager)}), and nobody else starts your user endpoint "
            f"there. Its administrator can start it: `farcall-endpoint start {manager.name}`. {_kept(situation)}"
        )
    ahead = f" {_count(situation.ahead).capitalize()} wait there before it." if situation.ahead else ""
    return (
        f"Your user endpoint at '{manager.name}' is being started, which takes as long as its scheduler lets it wait; "
        f"if it cannot be started the task fails and says why.{ahead}"
    )


def _no_worker(endpoint: Place, situation: Situation) -> str:
    where = f"Endpoint '{endpoint.name}'" if situation.manager is None else "Your user endpoint"
    if endpoint.workers == 0:
        return (
            f"{where} has it, and has no worker yet: it waits for a node, as long as the scheduler there takes "
            "(its log names the job)."
        )
    if endpoint.workers and not endpoint.idle_workers:
        return (
            f"{where} has it; all its {endpoint.workers} workers were busy when it last reported ({_seen(endpoint)})."
        )
    return f"{where} has it, and gives it to the next worker that is free."


def _who(endpoint: Place, manager: Place | None) -> str:
    return f"endpoint '{endpoint.name}'" if manager is None else f"your user endpoint at '{manager.name}'"


def _count(number: int) -> str:
    if number > COUNT_LIMIT:
        return f"more than {COUNT_LIMIT:,} tasks"
    return "1 task" if number == 1 else f"{number:,} tasks"


def _kept(situation: Situation) -> str:
    return f"The task is kept for it until {_at(situation.kept_until)}."


def _seen(place: Place) -> str:
    return "never seen" if place.seen_at is None else f"last heard of {_at(place.seen_at)}"


def _at(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "an unknown time"
