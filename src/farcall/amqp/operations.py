"""What can be asked of a broker beside messages: exchanges, queues and bindings made, emptied, removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BindQueue",
    "DeclareExchange",
    "DeclareQueue",
    "DeleteQueue",
    "Done",
    "Failed",
    "OnOutcome",
    "Operation",
    "Outcome",
    "PurgeQueue",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclareExchange:
    """Make an exchange, durable, unless it is there. `passive`: only look."""

    name: str
    kind: str = "direct"
    passive: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclareQueue:
    """Make a queue, unless it is there. `passive`: only look.

    Attributes:
        exclusive: of this connection, and gone with it; else durable.
        arguments: as in AMQP, for example `x-expires` in milliseconds.
    """

    name: str
    passive: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class BindQueue:
    """Have an exchange put messages with this key (a pattern, if it is a topic exchange) into a queue."""

    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PurgeQueue:
    """Remove what waits in a queue."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteQueue:
    """Remove a queue; one that is not there is no fault. `if_unused`: refused while it has consumers."""

    name: str
    if_unused: bool = False


Operation = DeclareExchange | DeclareQueue | BindQueue | PurgeQueue | DeleteQueue


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The broker has done it.

    Attributes:
        messages: that wait in the queue (declared), or were removed (purged, deleted).
        consumers: of the queue (declared).
    """

    messages: int = 0
    consumers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The broker has not done it, or it is not known whether it has.

    Attributes:
        code: AMQP reply code of the refusal (404 no such thing, 403 not permitted, 406 it is there and differs);
            0: the connection was lost, or was not there.
    """

    code: int
    reason: str


Outcome = Done | Failed

OnOutcome = Callable[[Outcome], None]
"""Called on the connection's thread, exactly once."""
