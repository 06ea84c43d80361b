"""How the relays of a service divide the endpoints among them. Decides only; `shares` does.

Each endpoint belongs to one of 64 slots, each slot to at most one relay: whoever holds its lock in the database,
which ends with the relay's session. Every relay decides for itself, from the same facts: each is due its equal
part; who has more gives some back, and who has less takes what is free. So a relay that comes or goes moves only what
must move.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["SLOTS", "Member", "Pace", "Plan", "plan", "slot_of"]

SLOTS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast relays notice each other's end, in seconds.

    Attributes:
        beat_s: how often each says that it lives.
        gone_s: one that has not been heard of for so long is taken for dead, and its session is ended.
        fence_s: one that has not been able to say so for so long does not act on its slots any more; below `gone_s`.
    """

    beat_s: float = 2.0
    fence_s: float = 8.0
    gone_s: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A relay process as the database knows it.

    Attributes:
        backend: process number of its session's backend.
        is_connected: this session is there.
        silent_s: since it was last heard of.
    """

    id: str
    backend: int
    is_connected: bool
    silent_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a relay does now, in this order.

    Attributes:
        forget: members that are gone, by id.
        end: backends whose relay has stopped.
        release: slots to be given back.
        take: slots to be tried for.
    """

    forget: Sequence[str] = ()
    end: Sequence[int] = ()
    release: Sequence[int] = ()
    take: Sequence[int] = ()


def slot_of(endpoint_id: str) -> int:
    """The slot of an endpoint."""
    return zlib.crc32(endpoint_id.encode()) % SLOTS


def plan(
    me: str, members: Sequence[Member], held: frozenset[int], taken: frozenset[int], *, gone_s: float = 10.0
) -> Plan:
    """Decide what relay `me` does.

    Args:
        members: all that the database knows, `me` among them, in any order.
        held: the slots of `me`.
        taken: the slots that anybody holds.
        gone_s: see `Pace`.
    """
    gone = [each for each in members if each.id != me and not each.is_connected]
    stopped = [each for each in members if each.id != me and each.is_connected and each.silent_s > gone_s]
    there = sorted({me} | {each.id for each in members} - {each.id for each in (*gone, *stopped)})
    rank = there.index(me)
    due = SLOTS // len(there) + (rank < SLOTS % len(there))
    free = sorted(set(range(SLOTS)) - taken)
    # Relays that look for free ones at the same time begin at different ones.
    start = rank * len(free) // len(there)
    return Plan(
        forget=[each.id for each in (*gone, *stopped)],
        end=[each.backend for each in stopped],
        release=sorted(held)[due:],
        take=(free[start:] + free[:start])[: max(0, due - len(held))],
    )
