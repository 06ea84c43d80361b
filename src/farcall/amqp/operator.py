"""Makes and removes queues on one connection, one operation after the other. Nothing is kept over a lost connection:
whoever asked is told, and begins again when `OperatorReady` comes.
"""

from __future__ import annotations

import logging
from collections import deque

from farcall.amqp.events import OperatorLost, OperatorReady
from farcall.amqp.host import Host
from farcall.amqp.link import Link, NoChannel, OperatorChannel
from farcall.amqp.loop import Timer
from farcall.amqp.operations import Done, Failed, OnOutcome, Operation
from farcall.amqp.reconnect import Reopen

__all__ = ["QueueOperator"]

_log = logging.getLogger(__name__)
_NOT_CONNECTED = Failed(code=0, reason="there is no connection")


class QueueOperator:
    """Made by `AmqpConnection.operator`; see `interface.Operator` for what callers may do."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._reopen = Reopen(host.backoff)
        self._link: Link | None = None
        self._channel: OperatorChannel | None = None
        self._timer: Timer | None = None
        self._is_ready = False
        self._is_told = False  # whether the last event said that we are ready
        self._waiting: deque[tuple[Operation, OnOutcome | None]] = deque()
        self._under_way: tuple[Operation, OnOutcome | None] | None = None

    # From any thread

    def perform(self, operation: Operation, on_outcome: OnOutcome | None = None) -> None:
        if not self._host.post(self._put, operation, on_outcome):
            raise self._host.ended

    # On the connection's thread, called by the host

    def attach(self, link: Link) -> None:
        self._link = link
        self._open()

    def detach(self, blamed: bool) -> None:
        self._link = None
        self._reopen.detached()
        self._is_told = False
        self._forget_channel()
        self._fail_all("the connection was lost")

    def end(self) -> None:
        self._link = None
        self._forget_channel()
        self._fail_all("the connection has ended")

    def hand_over(self) -> None:
        """Operators take no input in batches."""

    def flush(self) -> None:
        if self._is_ready and self._channel is not None and self._under_way is None and self._waiting:
            self._under_way = self._waiting.popleft()
            self._channel.perform(self._under_way[0])

    # Called by the channel

    def channel_ready(self) -> None:
        self._is_ready = True
        self._reopen.ready(now_s=self._host.now_s())
        if not self._is_told:
            self._is_told = True
            self._host.emit(OperatorReady())
        self._host.has_output(self)

    def performed(self, outcome: Done) -> None:
        self._settle(outcome)
        self._host.has_output(self)

    def channel_closed(self, code: int, reason: str, blamed: bool) -> None:
        was_refusal = self._under_way is not None and blamed
        self._forget_channel()
        if was_refusal:  # the broker's way of saying no; the channel is as good as the one before
            self._settle(Failed(code=code, reason=reason))
            self._open()
            return
        self._is_told = False
        self._fail_all(reason)
        delay_s = self._reopen.closed(now_s=self._host.now_s(), jitter=self._host.jitter())
        self._timer = self._host.call_later(delay_s, self._open)
        self._host.emit(OperatorLost(code=code, reason=reason, retry_in_s=delay_s))

    # Helpers, on the connection's thread

    def _put(self, operation: Operation, on_outcome: OnOutcome | None) -> None:
        if self._link is None or self._timer is not None:
            self._tell(on_outcome, _NOT_CONNECTED)
            return
        self._waiting.append((operation, on_outcome))
        self._host.has_output(self)

    def _open(self) -> None:
        self._timer = None
        if self._link is None:
            return
        try:
            self._channel = self._link.operator_channel(self)
        except NoChannel as exc:
            self.channel_closed(0, str(exc), False)

    def _forget_channel(self) -> None:
        self._channel = None
        self._is_ready = False
        if self._timer is not None:
            self._timer.callback = None
            self._timer = None

    def _settle(self, outcome: Done | Failed) -> None:
        done, self._under_way = self._under_way, None
        if done is not None:
            self._tell(done[1], outcome)

    def _fail_all(self, reason: str) -> None:
        failed = Failed(code=0, reason=reason)
        self._settle(failed)
        waiting, self._waiting = self._waiting, deque()
        for _, on_outcome in waiting:
            self._tell(on_outcome, failed)

    def _tell(self, on_outcome: OnOutcome | None, outcome: Done | Failed) -> None:
        if on_outcome is None:
            return
        try:
            on_outcome(outcome)
        except Exception:
            _log.exception("An operator's callback raised.", extra={"event": "amqp.callback_failed"})
