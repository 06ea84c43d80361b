"""What a committed transaction tells the other processes of a service, and how that is written. Values only.

A process acts on its own commits at once (`then` of `Database.write`); these are for the others. They travel in the
transaction itself, so they are told exactly if it is committed, in the order of the commits. Who could not listen
for a while must take it that anything may have changed.

A text is a JSON array: version, sender, then one array per signal: a letter and the values of its fields.
Source: PostgreSQL manual, NOTIFY (a payload is shorter than 8000 bytes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import msgspec

from farcall.service.relay.results import TaskRef

__all__ = [
    "CredentialRevoked",
    "EndpointChange",
    "EndpointChanged",
    "SharesChanged",
    "SharesDoubted",
    "Signal",
    "TasksAdded",
    "TasksEnded",
    "TasksWithdrawn",
    "TokenRevoked",
    "of_ends",
    "pack",
    "unpack",
]

EndpointChange = Literal["registered", "managing", "locked", "deleted"]
"""The second: registered as a manager, which reads commands in place of tasks."""


@dataclass(frozen=True, slots=True)
class TasksAdded:
    """An endpoint has `count` new tasks."""

    endpoint_id: str
    count: int


@dataclass(frozen=True, slots=True)
class TasksEnded:
    """These tasks of an endpoint, by number, have ended, however."""

    endpoint_id: str
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TasksWithdrawn:
    """Tasks of an endpoint were ended by the service, and the endpoint may know them: (number, id) of each. There is a
    `TasksEnded` of them as well.
    """

    endpoint_id: str
    tasks: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class EndpointChanged:
    """Broker logins of an endpoint older than `generation` are void."""

    endpoint_id: str
    generation: int
    why: EndpointChange


@dataclass(frozen=True, slots=True)
class CredentialRevoked:
    """Broker logins of an identity older than `generation` are void."""

    identity_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """A token, by its hash, does not count any more."""

    token_hash: str


@dataclass(frozen=True, slots=True)
class SharesChanged:
    """A relay came, went, or gave slots away: look again."""


@dataclass(frozen=True, slots=True)
class SharesDoubted:
    """A relay that had these slots acted on them when it had lost them already: who has them begins anew."""

    slots: tuple[int, ...]


Signal = (
    TasksAdded
    | TasksEnded
    | TasksWithdrawn
    | EndpointChanged
    | CredentialRevoked
    | TokenRevoked
    | SharesChanged
    | SharesDoubted
)

_VERSION: Final = 1
_LIMIT_BYTES: Final = 7500
_TASKS_AT_ONCE: Final = 100
_SEQS_AT_ONCE: Final = 350
_LETTERS: Final[dict[str, type[Any]]] = {
    "a": TasksAdded,
    "e": TasksEnded,
    "w": TasksWithdrawn,
    "c": EndpointChanged,
    "r": CredentialRevoked,
    "t": TokenRevoked,
    "s": SharesChanged,
    "d": SharesDoubted,
}
_LETTER_OF: Final = {kind: letter for letter, kind in _LETTERS.items()}
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(list[Any])


def of_ends(tasks: Iterable[TaskRef], *, withdrawn: bool = False) -> list[Signal]:
    """What is told of tasks that have ended.

    Args:
        withdrawn: by the service itself, not by a result of their endpoint.
    """
    by_endpoint: dict[str, list[TaskRef]] = {}
    for task in tasks:
        by_endpoint.setdefault(task.endpoint_id, []).append(task)
    signals: list[Signal] = []
    for endpoint_id, ended in by_endpoint.items():
        signals.append(TasksEnded(endpoint_id, tuple(task.seq for task in ended)))
        if withdrawn:
            signals.append(TasksWithdrawn(endpoint_id, tuple((task.seq, task.id) for task in ended)))
    return signals


def pack(signals: Iterable[Signal], sender: str) -> list[str]:
    """The signals of one transaction as texts; counts of the same endpoint are added up."""
    texts: list[str] = []
    body = b""
    head = _encoder.encode([_VERSION, sender])[:-1]
    for signal in _split(_merged(signals)):
        piece = b"," + _encoder.encode([_LETTER_OF[type(signal)], *(getattr(signal, f.name) for f in fields(signal))])
        if body and len(head) + len(body) + len(piece) >= _LIMIT_BYTES:
            texts.append((head + body + b"]").decode())
            body = b""
        body += piece
    if body:
        texts.append((head + body + b"]").decode())
    return texts


def unpack(text: str) -> tuple[str, Sequence[Signal]]:
    """Who sent it, and what. Signals of a kind that a newer release made up are left out.

    Raises:
        ValueError: it is not one of our texts.
    """
    try:
        version, sender, *pieces = _decoder.decode(text)
        if version != _VERSION:
            return str(sender), ()
        signals: list[Signal] = []
        for letter, *values in pieces:
            kind = _LETTERS.get(letter)
            if kind is not None:
                signals.append(kind(*map(_tuples, values)))
    except (msgspec.MsgspecError, TypeError, ValueError) as exc:
        raise ValueError(f"cannot be understood: {text[:100]!r}") from exc
    return sender, signals


def _merged(signals: Iterable[Signal]) -> list[Signal]:
    """In order of first appearance; what is said twice is said once."""
    merged: dict[Any, Signal] = {}
    for signal in signals:
        key: Any = signal
        if isinstance(signal, (TasksAdded, TasksEnded)):
            key = (type(signal), signal.endpoint_id)
            before = merged.get(key)
            if isinstance(before, TasksAdded) and isinstance(signal, TasksAdded):
                signal = replace(before, count=before.count + signal.count)
            elif isinstance(before, TasksEnded) and isinstance(signal, TasksEnded):
                signal = replace(before, seqs=before.seqs + signal.seqs)
        merged[key] = signal
    return list(merged.values())


def _split(signals: Iterable[Signal]) -> Iterable[Signal]:
    """None of them too long for a text."""
    for signal in signals:
        if isinstance(signal, TasksWithdrawn):
            for at in range(0, len(signal.tasks), _TASKS_AT_ONCE):
                yield replace(signal, tasks=signal.tasks[at : at + _TASKS_AT_ONCE])
        elif isinstance(signal, TasksEnded):
            for at in range(0, len(signal.seqs), _SEQS_AT_ONCE):
                yield replace(signal, seqs=signal.seqs[at : at + _SEQS_AT_ONCE])
        else:
            yield signal


def _tuples(value: Any) -> Any:  # JSON's arrays, all the way down
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
