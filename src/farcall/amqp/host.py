"""What consumers and publishers need of the connection they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from farcall.amqp.errors import ConnectionEnded
from farcall.amqp.events import Event
from farcall.amqp.link import Link
from farcall.amqp.loop import Timer
from farcall.amqp.reconnect import Backoff

__all__ = ["Host", "Member"]


class Host(Protocol):
    """The connection, as its members see it."""

    @property
    def backoff(self) -> Backoff: ...

    # From any thread
    def check_usable(self) -> None:
        """Raises ConnectionEnded or UsedAfterFork."""

    @property
    def ended(self) -> ConnectionEnded:
        """The error that says why it has ended."""

    def post(self, callback: Callable[..., Any], *args: Any) -> bool:
        """Call this on the connection's thread. False: never, the connection has ended."""

    @property
    def is_own_thread(self) -> bool: ...

    # On the connection's thread
    def emit(self, event: Event) -> None: ...

    def next_epoch(self) -> int: ...

    def has_input(self, member: Member) -> None:
        """Call `hand_over` once in this turn."""

    def has_output(self, member: Member) -> None:
        """Call `flush` once at the end of this turn."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...

    def now_s(self) -> float: ...

    def jitter(self) -> float: ...

    def dismiss(self, member: Member) -> None:
        """It is done for good; forget it."""


class Member(Protocol):
    """A consumer or a publisher, on the connection's thread."""

    def attach(self, link: Link) -> None:
        """There is a link: open a channel."""

    def detach(self, blamed: bool) -> None:
        """The link is gone, the channel with it."""

    def hand_over(self) -> None: ...

    def flush(self) -> None: ...

    def end(self) -> None:
        """The connection has ended for good."""
