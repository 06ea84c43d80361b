"""What a connection tells its owner, as small values given to `on_event` on the connection's thread.

None of them needs an answer: the connection goes on by itself, except after `CredentialRefused`, its last one.
`retry_in_s` says when it will try again (0: at once).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ConnectFailed",
    "Connected",
    "ConsumerLost",
    "ConsumerReady",
    "CredentialRefused",
    "Disconnected",
    "Event",
    "OperatorLost",
    "OperatorReady",
    "PublisherLost",
    "PublisherReady",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Connected:
    """The login was accepted. Consumers and publishers follow, each with its own event.

    Attributes:
        count: 1 the first time, then how often this object has connected.
    """

    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectFailed:
    """An attempt to connect failed: nobody listens, the URL callable raised, the handshake broke.

    Attributes:
        attempt: 1 for the first failure in a row.
    """

    reason: str
    attempt: int
    retry_in_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Disconnected:
    """An open connection was lost. What is not confirmed will be published again, what is not acknowledged
    delivered again."""

    reason: str
    retry_in_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialRefused:
    """The broker does not take the credential, and no other is to be had. The connection has ended."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerReady:
    """The broker took the subscription; deliveries carry this epoch, and acknowledgements of earlier ones are void."""

    queue: str
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerLost:
    """The broker ended or refused the subscription while the connection stayed.

    Attributes:
        code: AMQP reply code: 403 not permitted, or another consumer holds the queue exclusively; 404 no such
            queue; 0 if the broker cancelled it (the queue was deleted), or has no channel left for it.
    """

    queue: str
    code: int
    reason: str
    retry_in_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PublisherReady:
    """Exchange and queue exist, confirms are on; what waits is being sent."""

    exchange: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PublisherLost:
    """The broker closed the publisher's channel while the connection stayed; `code` is its AMQP reply code, 0 if
    there is no channel left for it."""

    exchange: str
    code: int
    reason: str
    retry_in_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorReady:
    """Operations can be performed. Whatever was asked before has been answered: begin anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorLost:
    """The operator's channel is gone while the connection stayed, not because of an operation."""

    code: int
    reason: str
    retry_in_s: float


Event = (
    Connected
    | ConnectFailed
    | Disconnected
    | CredentialRefused
    | ConsumerReady
    | ConsumerLost
    | PublisherReady
    | PublisherLost
    | OperatorReady
    | OperatorLost
)
