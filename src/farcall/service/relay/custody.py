"""Which tasks an agent without a journal has taken into its hands, and when they must be sent again. Decides only.

Agents of ours keep a journal and are sent everything that is open whenever they attach (invariant 4). Agents of the
other ecosystem acknowledge a task as soon as their engine has it, remember nothing of it, and would run a second copy.
So what such an agent has acknowledged is in its custody, and stays there while the same process of it lives: a lost
connection, or a restart of this service, sends it nothing twice. A process that did not take the tasks cannot have
them: when another one reports, they are given up as lost with the one before, and sent again.

Which process works is known by its status report (`start_unix`, `posix_pid`), which comes on another connection than
the acknowledgements, sooner or later than they.
Source: wire protocol, task consumer (acknowledged at hand-over) and `global_state`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farcall.wire.messages import HAS_JOURNAL

__all__ = ["Adopt", "Command", "Custody", "FeedAll", "Incarnation", "NoteTaken", "speaker"]


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One process of an agent. `started_at`: Unix seconds by its own clock."""

    started_at: float
    pid: int

    def __str__(self) -> str:
        return f"{self.started_at:.6f}/{self.pid}"


@dataclass(frozen=True, slots=True)
class Adopt:
    """Note in the store who works now. If another process did, nobody has what it had taken: feed that again."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class NoteTaken:
    """Note in the store that the tasks with these numbers are in the agent's custody, after whatever was noted
    before."""

    seqs: Sequence[int]


@dataclass(frozen=True, slots=True)
class FeedAll:
    """The agent keeps a journal after all: begin anew, with everything that is open."""


Command = Adopt | NoteTaken | FeedAll


def speaker(global_state: Mapping[str, Any]) -> Incarnation | None:
    """Which process a status report is from; None if it does not say."""
    started_at, pid = global_state.get("start_unix"), global_state.get("posix_pid")
    if isinstance(started_at, bool) or not isinstance(started_at, (int, float)):
        return None
    if isinstance(pid, bool) or not isinstance(pid, int):
        return None
    return Incarnation(float(started_at), pid)


class Custody:
    """One attachment of an agent that, as far as is known, keeps no journal. Commands are to be done in order.

    Attributes:
        has_journal: the agent said that it keeps one; then this decides nothing any more.
        unnoted: the numbers of tasks that were taken before it was known by whom.
    """

    def __init__(self) -> None:
        self.has_journal = False
        self.unnoted: list[int] = []
        self._by: Incarnation | None = None

    def reported(self, global_state: Mapping[str, Any]) -> list[Command]:
        """A status report has come: since the attachment, or since the detachment before it."""
        if self.has_journal:
            return []
        if global_state.get(HAS_JOURNAL) is True:
            self.has_journal = True
            self.unnoted.clear()
            return [FeedAll()]
        by = speaker(global_state)
        # Of two that report at once, which they should not, the one that started last is believed: to believe the
        # other might leave tasks with nobody, and this may at worst run them twice.
        if by is None or by == self._by or (self._by is not None and by.started_at < self._by.started_at):
            return []
        self._by = by
        commands: list[Command] = [Adopt(by)]
        if self.unnoted:
            commands.append(NoteTaken(self.unnoted))
            self.unnoted = []
        return commands

    def taken(self, seqs: Sequence[int]) -> list[Command]:
        """The agent acknowledged the tasks with these numbers."""
        if self.has_journal:
            return []
        if self._by is not None:
            return [NoteTaken(seqs)]
        self.unnoted += seqs
        return []
