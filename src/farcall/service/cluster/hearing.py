"""What other processes announced, passed on to the parts of this one that it concerns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from farcall.service.cluster.shares import RelayShares
from farcall.service.cluster.signals import (
    CredentialRevoked,
    EndpointChange,
    EndpointChanged,
    Signal,
    TasksAdded,
    TasksEnded,
    TasksWithdrawn,
    TokenRevoked,
    unpack,
)

__all__ = ["Hearing", "Relaying"]

_logger = logging.getLogger(__name__)


class Relaying(Protocol):
    """The relay, as far as other processes concern it."""

    def added_elsewhere(self, endpoint_id: str) -> None:
        """An endpoint has new tasks."""
        ...

    def ended_elsewhere(self, endpoint_id: str, seqs: Sequence[int]) -> None:
        """Tasks of an endpoint have ended."""
        ...

    def withdrawn_elsewhere(self, endpoint_id: str, tasks: Sequence[tuple[int, str]]) -> None:
        """Tasks of an endpoint were ended by the service: (number, id)."""
        ...

    def endpoint_changed_elsewhere(self, endpoint_id: str, generation: int, why: EndpointChange) -> None: ...

    def credential_revoked_elsewhere(self, identity_id: str, generation: int) -> None: ...


class Hearing:
    """Implements `db.listener.Listening`. All on the event loop.

    Args:
        me: as what this process announces; it has acted on that already.
        forget: drops what is remembered of a token, by its hash, or of all (None).
        counted: told of tasks that came to an endpoint, or ended (negative).
    """

    def __init__(
        self,
        me: str,
        *,
        relay: Relaying,
        forget: Callable[[str | None], None],
        counted: Callable[[str, int], None],
    ) -> None:
        self._me = me
        self._relay = relay
        self.shares: RelayShares | None = None
        """To be set before the first call, if this process feeds endpoints."""
        self._forget = forget
        self._counted = counted

    def on_joined(self) -> None:
        self._forget(None)
        if self.shares is not None:
            self.shares.on_joined()

    def on_left(self) -> None:
        if self.shares is not None:
            self.shares.on_left()

    def on_heard(self, texts: Sequence[str]) -> None:
        for text in texts:
            try:
                sender, signals = unpack(text)
            except ValueError as exc:
                _logger.warning(
                    "Something that no service said was heard", extra={"event": "cluster.unheard", "reason": str(exc)}
                )
                continue
            if sender != self._me:
                self._hear(signals)

    def _hear(self, signals: Sequence[Signal]) -> None:
        for signal in signals:
            try:
                self._hear_one(signal)
            except Exception:
                _logger.exception("What another process said could not be followed", extra={"event": "cluster.failed"})
        if self.shares is not None:
            self.shares.on_signals(signals)

    def _hear_one(self, signal: Signal) -> None:
        relay = self._relay
        if isinstance(signal, TasksAdded):
            self._counted(signal.endpoint_id, signal.count)
            relay.added_elsewhere(signal.endpoint_id)
        elif isinstance(signal, TasksEnded):
            self._counted(signal.endpoint_id, -len(signal.seqs))
            relay.ended_elsewhere(signal.endpoint_id, signal.seqs)
        elif isinstance(signal, TasksWithdrawn):
            relay.withdrawn_elsewhere(signal.endpoint_id, signal.tasks)
        elif isinstance(signal, EndpointChanged):
            relay.endpoint_changed_elsewhere(signal.endpoint_id, signal.generation, signal.why)
        elif isinstance(signal, CredentialRevoked):
            relay.credential_revoked_elsewhere(signal.identity_id, signal.generation)
        elif isinstance(signal, TokenRevoked):
            self._forget(signal.token_hash)
