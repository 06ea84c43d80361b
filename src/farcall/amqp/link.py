"""The seam below a connection: one open link to a broker and its channels, without threads and without retries.

`pika_link` implements it with pika, `memory` without any network. All calls in both directions happen on the loop's
thread. An owner that was told of an end (`link_failed`, `link_lost`, `channel_closed`), or that called `close` or
`abandon`, hears nothing more from that object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from farcall.amqp.envelope import OutMessage
from farcall.amqp.loop import Loop
from farcall.tls import Trust

__all__ = [
    "ChannelOwner",
    "ConsumerChannel",
    "ConsumerOwner",
    "Link",
    "LinkFactory",
    "LinkOwner",
    "NoChannel",
    "PublisherChannel",
    "PublisherOwner",
    "Target",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where to connect.

    Attributes:
        url: `amqp[s]://user:password@host[:port]/vhost[?heartbeat=seconds]`, parts percent-encoded.
        port: replaces the URL's port, if not None.
        trust: for `amqps`, whose certificates are accepted; None as the environment says.
        name: shown by the broker to its operators.
        timeout_s: for one attempt, from name resolution to accepted login.
    """

    url: str
    port: int | None
    trust: Trust | None
    name: str
    timeout_s: float


class LinkOwner(Protocol):
    def link_opened(self) -> None:
        """The login was accepted."""

    def link_failed(self, reason: str, refused: bool) -> None:
        """It did not open. `refused`: the broker itself said no to user, password or vhost."""

    def link_lost(self, reason: str, blamed: bool) -> None:
        """It was open and is gone. `blamed`: the broker closed it because of something that we sent."""


class ChannelOwner(Protocol):
    def channel_ready(self) -> None:
        """Subscribed, or in confirm mode."""

    def channel_closed(self, code: int, reason: str, blamed: bool) -> None:
        """The broker closed the channel, or cancelled the subscription (code 0), while the link stays."""


class ConsumerOwner(ChannelOwner, Protocol):
    def delivered(
        self,
        body: bytes,
        headers: Mapping[str, Any],
        tag: int,
        redelivered: bool,
        timestamp: int | None,
        content_type: str | None,
        routing_key: str,
    ) -> None: ...

    def consume_stopped(self) -> None:
        """The broker has sent the last delivery after `stop_consuming`."""


class PublisherOwner(ChannelOwner, Protocol):
    def confirmed(self, tag: int, multiple: bool, ok: bool) -> None: ...

    def returned(self, exchange: str, routing_key: str, body: bytes) -> None: ...


class ConsumerChannel(Protocol):
    """A channel with one subscription."""

    def ack(self, tag: int, multiple: bool) -> None: ...

    def nack(self, tag: int, requeue: bool) -> None: ...

    def stop_consuming(self) -> None: ...

    def close(self) -> None: ...


class PublisherChannel(Protocol):
    """A channel in confirm mode."""

    def send(self, messages: Sequence[OutMessage]) -> None:
        """Publish; the tags are consecutive, from 1 on a new channel."""

    def close(self) -> None: ...


class NoChannel(Exception):
    """The link cannot open a channel now: it has as many as the broker allows, or is about to close."""


class Link(Protocol):
    """One login. Opening a channel raises NoChannel."""

    def consumer_channel(self, owner: ConsumerOwner, queue: str, prefetch: int, exclusive: bool) -> ConsumerChannel: ...

    def publisher_channel(self, owner: PublisherOwner, exchange: str, queue: str) -> PublisherChannel: ...

    def close(self) -> None:
        """Close politely, or stop opening; `link_lost` or `link_failed` follows."""

    def abandon(self) -> None:
        """Drop it at once, without a word to the peer; nothing follows."""

    def close_socket(self) -> None:
        """In a forked child: give up this process's copy of the descriptor, and touch nothing else."""


class LinkFactory(Protocol):
    def __call__(self, loop: Loop, target: Target, owner: LinkOwner) -> Link:
        """Begin to open a link. Raises ValueError if the URL is malformed; other ends are told to the owner."""
        ...
