"""When to connect again, and when to give up. Decides only; connection.py connects, and waits with its loop's timers.

The first retry comes almost at once, so that a restart of the service goes unnoticed; later ones back off with
jitter, so that a thousand endpoints do not return in step. Only a refused credential ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff", "GiveUp", "Reconnect", "Reopen", "Retry"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """How long to wait between attempts.

    Attributes:
        first_s: longest wait before the first retry; doubles with each further one.
        ceiling_s: longest wait of all.
        stable_s: a connection or channel that lived this long starts afresh when it is lost.
        refusals_limit: give up after this many refused logins in a row with one credential; at least 1.
    """

    first_s: float = 0.1
    ceiling_s: float = 10.0
    stable_s: float = 10.0
    refusals_limit: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.ceiling_s:
            raise ValueError(f"first_s must be positive and at most ceiling_s, got {self.first_s}")
        if self.refusals_limit < 1:
            raise ValueError(f"refusals_limit must be at least 1, got {self.refusals_limit}")

    def delay_s(self, retries: int, jitter: float) -> float:
        """The wait after `retries` earlier ones: between half and all of the doubled span.

        Args:
            retries: how many came before in this row, from 0.
            jitter: uniformly random in [0, 1).
        """
        # 2**64 first_s is beyond any ceiling; without the bound a long outage would overflow the float.
        span_s = min(self.ceiling_s, self.first_s * 2.0 ** min(retries, 64))
        return span_s * (0.5 + 0.5 * jitter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Connect again in `delay_s` seconds; `attempt` failures in a row so far."""

    delay_s: float
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Do not connect again."""

    refusals: int


class Reconnect:
    """The attempts of one connection. All times are seconds of one monotonic clock."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._attempt = 0
        self._opened_s: float | None = None
        self._refused: str | None = None
        self._refusals = 0

    def opened(self, *, now_s: float) -> None:
        """A login was accepted."""
        self._opened_s = now_s
        self._refused = None
        self._refusals = 0

    def lost(self, *, now_s: float, jitter: float) -> Retry:
        """An open connection was lost."""
        if self._opened_s is not None and now_s - self._opened_s >= self._backoff.stable_s:
            self._attempt = 0
        self._opened_s = None
        return self._retry(jitter)

    def failed(self, *, jitter: float) -> Retry:
        """An attempt failed for a reason that another try may not meet."""
        return self._retry(jitter)

    def refused(self, credential: str, *, may_change: bool, jitter: float) -> Retry | GiveUp:
        """A login was refused.

        Args:
            credential: the one that was refused.
            may_change: the next attempt may bring another one (the URL comes from a callable). It is asked for
                once more before giving up; a different credential starts the count again.
        """
        self._refusals = self._refusals + 1 if credential == self._refused else 1
        self._refused = credential
        if self._refusals >= self._backoff.refusals_limit + (1 if may_change else 0):
            return GiveUp(refusals=self._refusals)
        return self._retry(jitter)

    def _retry(self, jitter: float) -> Retry:
        delay_s = self._backoff.delay_s(self._attempt, jitter)
        self._attempt += 1
        return Retry(delay_s=delay_s, attempt=self._attempt)


class Reopen:
    """The channel of one consumer or publisher, where the broker closes it and the connection stays.

    The first two closes in a row are answered at once, further ones with back-off. A row ends when the channel
    stayed usable for `Backoff.stable_s`. Source: wire protocol, reconnect and failure (three closes in 10 s).
    """

    _AT_ONCE = 2

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._closes = 0
        self._ready_s: float | None = None

    def ready(self, *, now_s: float) -> None:
        """The channel became usable."""
        self._ready_s = now_s

    def detached(self) -> None:
        """The whole connection was lost: that is not the channel's fault."""
        self._closes = 0
        self._ready_s = None

    def closed(self, *, now_s: float, jitter: float) -> float:
        """The broker closed it. Returns the seconds to wait before it is opened again; 0 for at once."""
        if self._ready_s is not None and now_s - self._ready_s >= self._backoff.stable_s:
            self._closes = 0
        self._ready_s = None
        self._closes += 1
        if self._closes <= self._AT_ONCE:
            return 0.0
        return self._backoff.delay_s(self._closes - self._AT_ONCE - 1, jitter)
