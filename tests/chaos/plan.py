"""What breaks when: a pure function of the seed. Faults come at a progress of the work, not at a time of day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

__all__ = ["Action", "Fault", "Victim", "draw_plan", "seconds_of_call"]


class Action(Enum):
    """What is done to a victim."""

    KILL = "kill"
    """SIGKILL; a supervisor starts it again after `hold_s`."""
    FREEZE = "freeze"
    """SIGSTOP, and SIGCONT after `hold_s`."""
    CUT = "cut"
    """The cable is pulled, and plugged in after `hold_s`."""


class Victim(Enum):
    """A part of the system; the runner chooses which one, where there are several, by `Fault.which`."""

    SERVICE = "service"
    API = "api"
    RELAY = "relay"
    AGENT = "agent"
    INTERCHANGE = "interchange"
    WORKER = "worker"
    CLIENT = "client"
    RABBITMQ = "rabbitmq"
    POSTGRESQL = "postgresql"
    LINK = "link"

    @property
    def actions(self) -> Sequence[Action]:
        return (Action.CUT,) if self is Victim.LINK else (Action.KILL, Action.FREEZE)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that breaks.

    Attributes:
        number: from 1, in the order of `after_ended`.
        after_ended: comes when this many tasks have ended in the sight of their clients.
        which: an index; modulo the number of victims of that kind.
        hold_s: how long it lasts, see `Action`.
    """

    number: int
    after_ended: int
    action: Action
    victim: Victim
    which: int
    hold_s: float

    def __str__(self) -> str:
        return f"{self.action.value} {self.victim.value}"


_KILL_S = (0.1, 3.0)
_FREEZE_S = (2.0, 5.0, 14.0)  # the longest is longer than every time-out by which others take a process for dead
_CUT_S = (3.0, 20.0)


def draw_plan(seed: int, victims: Sequence[Victim], *, tasks: int, faults: int) -> list[Fault]:
    """The faults of a run.

    Args:
        victims: kinds that this system has. Each is hit with each of its actions, as far as `faults` suffices,
            before one is hit twice.
        tasks: how many will end.
        faults: how many break, between 3 % and 90 % of the tasks.

    Returns:
        In the order in which they come.
    """
    random = Random(f"chaos {seed}")
    pairs = [(victim, action) for victim in victims for action in victim.actions]
    chosen: list[tuple[Victim, Action]] = []
    while len(chosen) < faults and pairs:
        chosen += random.sample(pairs, min(len(pairs), faults - len(chosen)))
    places = sorted(random.randint(tasks * 3 // 100, tasks * 90 // 100) for _ in chosen)
    return [
        Fault(
            number=number,
            after_ended=place,
            action=action,
            victim=victim,
            which=random.randrange(1000),
            hold_s=_hold_s(action, random),
        )
        for number, (place, (victim, action)) in enumerate(zip(places, chosen, strict=True), 1)
    ]


def _hold_s(action: Action, random: Random) -> float:
    if action is Action.KILL:
        return round(random.uniform(*_KILL_S), 1)
    return random.choice(_FREEZE_S if action is Action.FREEZE else _CUT_S)


def seconds_of_call(seed: int, call: int) -> float:
    """How long a call takes: mostly some milliseconds; one in twenty so long that a fault finds it under way."""
    random = Random(f"call {seed} {call}")
    return round(random.uniform(0.5, 1.5) if random.random() < 0.05 else random.uniform(0.0, 0.02), 4)
