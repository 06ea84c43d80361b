"""A task's life as a picture: each state with how long it lasted. Decides widths and words; a page draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farcall.console.formats import duration
from farcall.console.views.states import is_over, state_word
from farcall.console.views.values import mappings, number

__all__ = ["Step", "Timeline", "timeline"]

_THINNEST: Final = 2.0  # per cent: what was short must still be seen


@dataclass(frozen=True, kw_only=True)
class Step:
    """One state of a task.

    Attributes:
        word: what the state is called.
        at: when it was entered, Unix seconds; None if nobody told.
        by: who reported it.
        lasted_s: until the next, or until now; None for the end.
        lasted: the same in words; empty for the end.
        width_percent: of the bar; 0 for the end, and for what lasted no time.
        is_now: the task is in it, and it goes on.
    """

    state: str
    word: str
    at: float | None
    by: str
    lasted_s: float | None
    lasted: str
    width_percent: float
    is_now: bool


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The steps in their order, how long all of it took so far, and a sentence that tells the picture."""

    steps: Sequence[Step]
    total: str
    sentence: str


def timeline(entries: Any, *, now: float) -> Timeline:  # `timeline` of a task's document
    """Lay out the transitions of a task.

    Args:
        entries: `{state, at, by}`, oldest first.
        now: Unix seconds, for a task that has not ended.

    Returns:
        The widths of all steps make 100 per cent, or 0 if no time passed. Where the clock of a reporter went ahead
        of the next one's, the step lasted no time.
    """
    told = mappings(entries)
    lengths = [_length(told, place, now) for place in range(len(told))]
    widths = _widths([length or 0.0 for length in lengths])
    steps = [
        Step(
            state=str(entry.get("state") or ""),
            word=state_word(entry.get("state")),
            at=number(entry.get("at")),
            by=str(entry.get("by") or ""),
            lasted_s=length,
            lasted="" if length is None else duration(length),
            width_percent=width,
            is_now=entry is told[-1] and not is_over(entry.get("state")),
        )
        for entry, length, width in zip(told, lengths, widths, strict=True)
    ]
    total = duration(sum(length or 0.0 for length in lengths))
    return Timeline(steps=steps, total=total, sentence=_sentence(steps, total))


def _length(told: Sequence[Mapping[str, Any]], place: int, now: float) -> float | None:
    start = number(told[place].get("at"))
    if place + 1 < len(told):
        end = number(told[place + 1].get("at"))
    elif is_over(told[place].get("state")):
        return None
    else:
        end = now
    return None if start is None or end is None else max(0.0, end - start)


def _widths(lengths_s: Sequence[float]) -> list[float]:
    """Shares of 100 in proportion, but none of what lasted is thinner than can be seen."""
    total = sum(lengths_s)
    if total <= 0:
        return [0.0 for _ in lengths_s]
    widths = [max(_THINNEST, 100 * length / total) if length > 0 else 0.0 for length in lengths_s]
    room = sum(widths)
    return [100 * width / room for width in widths]


def _sentence(steps: Sequence[Step], total: str) -> str:
    if not steps:
        return "No transitions are recorded."
    parts = [f"{step.word} for {step.lasted}" if step.lasted else step.word for step in steps]
    return f"{', then '.join(parts)}. {total} in all."
