"""One connection to a broker: a thread with its loop, the link of the moment, and its members over all links.

When to connect again is decided by `reconnect`; what a link is, by `link` (pika, or memory for tests). Consumers and
publishers keep their own state and are attached to each new link in the order in which they were made.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from farcall.amqp.consumer import QueueConsumer
from farcall.amqp.errors import ConnectionEnded, UsedAfterFork
from farcall.amqp.events import Connected, ConnectFailed, CredentialRefused, Disconnected, Event
from farcall.amqp.host import Member
from farcall.amqp.interface import OnEvent, OnMessages, Url
from farcall.amqp.link import Link, LinkFactory, Target
from farcall.amqp.loop import THREAD_PREFIX, Loop, Timer
from farcall.amqp.publisher import ConfirmPublisher
from farcall.amqp.reconnect import Backoff, GiveUp, Reconnect
from farcall.tls import Trust
from farcall.wire import errors as wire_errors

__all__ = ["AmqpConnection"]

_log = logging.getLogger(__name__)

_live: weakref.WeakSet[AmqpConnection] = weakref.WeakSet()
_hook_lock = threading.Lock()
_has_fork_hook = False


class AmqpConnection:
    """A connection that is kept up until `close`; see `interface.Connection` for its methods.

    Args:
        url: of the broker, or a callable that returns it: called on the connection's thread at each attempt, for a
            credential that changes. If it raises, that is a failed attempt; `farcall.wire.errors.CredentialRefused`
            from it ends the connection.
        name: for the thread, the log and the broker's operators; for example "endpoint tasks".
        on_event: told what happens, on the connection's thread.
        port: replaces the URL's port (setting `amqp_port`).
        trust: for `amqps`, whose certificates are accepted; None as the environment says (`farcall.tls.find_trust`).
            Read anew at each attempt. The host name is always checked.
        backoff: waits between attempts, and how many refused logins end it.
        connect_timeout_s: for one attempt.
    """

    def __init__(
        self,
        url: Url,
        *,
        name: str,
        on_event: OnEvent | None = None,
        port: int | None = None,
        trust: Trust | None = None,
        backoff: Backoff = Backoff(),
        connect_timeout_s: float = 15.0,
    ) -> None:
        self._url = url
        self._name = name
        self._on_event = on_event
        self._port = port
        self._trust = trust
        self._backoff = backoff
        self._connect_timeout_s = connect_timeout_s
        self._pid = os.getpid()
        self._loop = Loop(self._hand_over, self._flush, self._on_crash)
        self._reconnect = Reconnect(backoff)
        self._link: Link | None = None
        self._attempted_url = ""
        self._timer: Timer | None = None
        self._epochs = itertools.count(1)
        self._connects = itertools.count(1)
        self._members: list[Member] = []
        self._inputs: dict[Member, None] = {}
        self._outputs: dict[Member, None] = {}
        self._is_connected = threading.Event()
        """Set while connected, and for good at the end, so that nobody waits for ever."""
        self._is_closing = False
        self._end_reason: str | None = None
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    # For callers, from any thread

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_connected(self) -> bool:
        return self._is_connected.is_set() and self._end_reason is None

    def start(self) -> None:
        self.check_usable()
        with self._start_lock:
            if self._thread is not None:
                return
            _close_sockets_in_forked_children(self)
            self._thread = threading.Thread(target=self._run, name=f"{THREAD_PREFIX}{self._name}", daemon=True)
            self._thread.start()

    def consume(self, queue: str, on_messages: OnMessages, prefetch: int = 0, exclusive: bool = False) -> QueueConsumer:
        self.check_usable()
        consumer = QueueConsumer(self, queue, on_messages, prefetch=prefetch, exclusive=exclusive)
        self._add(consumer)
        return consumer

    def publisher(self, exchange: str, queue: str | None = None) -> ConfirmPublisher:
        self.check_usable()
        publisher = ConfirmPublisher(self, exchange, queue or "")
        self._add(publisher)
        return publisher

    def wait_connected(self, timeout_s: float) -> bool:
        self.check_usable()
        return self._is_connected.wait(timeout_s) and self.is_connected

    def retry_now(self) -> None:
        self._loop.post(self._retry_now)

    def close(self, timeout_s: float = 5.0) -> None:
        if os.getpid() != self._pid:
            return  # the parent's; its socket was closed here when we were forked
        with self._start_lock:
            is_first, self._is_closing = not self._is_closing, True
            thread = self._thread
        if thread is None:
            if is_first:
                self._end("closed before it was started")
                self._loop.close()
            return
        if is_first:
            self._loop.post(self._begin_close, timeout_s)
        if not self._loop.is_own_thread:
            thread.join(timeout_s + 1.0)  # the thread itself keeps to timeout_s

    # For members; see host.Host

    @property
    def backoff(self) -> Backoff:
        return self._backoff

    @property
    def ended(self) -> ConnectionEnded:
        return ConnectionEnded(self._name, self._end_reason or "closed")

    @property
    def is_own_thread(self) -> bool:
        return self._loop.is_own_thread

    def check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise UsedAfterFork(self._name, self._pid, os.getpid())
        if self._is_closing or self._end_reason is not None:
            raise self.ended

    def post(self, callback: Callable[..., Any], *args: Any) -> bool:
        return self._loop.post(callback, *args)

    def emit(self, event: Event) -> None:
        _log.debug("Broker connection event.", extra={"event": "amqp.event", "connection": self._name, "what": event})
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            _log.exception(
                "A connection's event callback raised.",
                extra={"event": "amqp.callback_failed", "connection": self._name},
            )

    def next_epoch(self) -> int:
        return next(self._epochs)

    def has_input(self, member: Member) -> None:
        self._inputs[member] = None

    def has_output(self, member: Member) -> None:
        self._outputs[member] = None

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(delay_s, callback)

    def now_s(self) -> float:
        return time.monotonic()

    def jitter(self) -> float:
        return random.random()

    def dismiss(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)

    # For the link; see link.LinkOwner

    def link_opened(self) -> None:
        self._reconnect.opened(now_s=self.now_s())
        self._is_connected.set()
        self.emit(Connected(count=next(self._connects)))
        for member in list(self._members):
            member.attach(self._require_link())

    def link_failed(self, reason: str, refused: bool) -> None:
        self._link = None
        if self._is_closing:
            self._end("closed")
        elif refused:
            self._credential_refused(reason)
        else:
            retry = self._reconnect.failed(jitter=self.jitter())
            self._wait(retry.delay_s)
            self.emit(ConnectFailed(reason=reason, attempt=retry.attempt, retry_in_s=retry.delay_s))

    def link_lost(self, reason: str, blamed: bool) -> None:
        self._link = None
        self._is_connected.clear()
        for member in list(self._members):
            member.detach(blamed)
        if self._is_closing:
            self._end("closed")
            return
        retry = self._reconnect.lost(now_s=self.now_s(), jitter=self.jitter())
        self._wait(retry.delay_s)
        self.emit(Disconnected(reason=reason, retry_in_s=retry.delay_s))

    # The thread

    def _run(self) -> None:
        try:
            self._loop.post(self._connect)
            self._loop.start()
        finally:
            self._end("its thread ended")
            self._loop.close()

    def _link_factory(self) -> LinkFactory:
        # Imported here, on the thread: pika takes a tenth of a second, which `import farcall` need not pay.
        from farcall.amqp.pika_link import PikaLink

        return PikaLink

    def _connect(self) -> None:
        self._timer = None
        if self._is_closing or self._end_reason is not None:
            return
        try:
            url = self._url if isinstance(self._url, str) else self._url()
            self._attempted_url = url
            target = Target(
                url=url,
                port=self._port,
                trust=self._trust,
                name=self._name,
                timeout_s=self._connect_timeout_s,
            )
            self._link = self._link_factory()(self._loop, target, self)
        except wire_errors.CredentialRefused as exc:
            self._give_up(str(exc))
        except Exception as exc:
            self.link_failed(f"{type(exc).__name__}: {exc}", False)

    def _credential_refused(self, reason: str) -> None:
        decision = self._reconnect.refused(
            self._attempted_url, may_change=not isinstance(self._url, str), jitter=self.jitter()
        )
        if isinstance(decision, GiveUp):
            self._give_up(reason)
        else:
            self._wait(decision.delay_s)
            self.emit(ConnectFailed(reason=reason, attempt=decision.attempt, retry_in_s=decision.delay_s))

    def _give_up(self, reason: str) -> None:
        _log.log(
            logging.ERROR if self._on_event is None else logging.INFO,  # whoever takes events will say it himself
            "The broker refused the credential; the connection has ended.",
            extra={"event": "amqp.credential_refused", "connection": self._name, "reason": reason},
        )
        self._end(f"credential refused: {reason}")
        self.emit(CredentialRefused(reason=reason))

    def _wait(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(delay_s, self._connect)

    def _retry_now(self) -> None:
        if self._timer is not None:
            self._timer.callback = None
            self._connect()

    def _begin_close(self, timeout_s: float) -> None:
        link = self._link
        if link is None:
            self._end("closed")
            return
        self._flush()
        self._loop.call_later(timeout_s, self._force_end)
        link.close()

    def _force_end(self) -> None:
        if self._link is not None:
            self._link.abandon()
            self._link = None
        self._end("closed; the broker did not answer in time")

    def _end(self, reason: str) -> None:
        """Once: settle what is open, and let the thread end."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        if self._timer is not None:
            self._timer.callback = None
            self._timer = None
        for member in self._members:
            member.end()
        self._members.clear()
        self._is_connected.set()
        self._loop.stop()

    def _add(self, member: Member) -> None:
        if not self._loop.post(self._adopt, member):
            raise self.ended

    def _adopt(self, member: Member) -> None:
        if self._end_reason is not None:
            member.end()
            return
        self._members.append(member)
        if self._link is not None and self._is_connected.is_set():
            member.attach(self._link)

    def _hand_over(self) -> None:
        if self._inputs:
            members, self._inputs = self._inputs, {}
            for member in members:
                member.hand_over()

    def _flush(self) -> None:
        self._hand_over()  # what came by a posted call, not by a socket
        if self._outputs:
            members, self._outputs = self._outputs, {}
            for member in members:
                member.flush()

    def _require_link(self) -> Link:
        assert self._link is not None, "a link tells of its opening only after it was made"
        return self._link

    def _on_crash(self, error: BaseException) -> None:
        """Something below us broke an assumption: drop the link and begin again with a new one."""
        _log.error(
            "The broker connection failed unexpectedly; connecting again.",
            exc_info=error,
            extra={"event": "amqp.crashed", "connection": self._name},
        )
        link, was_open = self._link, self.is_connected
        if link is not None:
            link.abandon()
            if was_open:
                self.link_lost(f"{type(error).__name__}: {error}", True)
            else:
                self.link_failed(f"{type(error).__name__}: {error}", False)

    def _abandon_in_child(self) -> None:
        if self._link is not None:
            self._link.close_socket()


def _close_sockets_in_forked_children(connection: AmqpConnection) -> None:
    """A forked child (a worker of a process pool) must not hold the socket open after its parent was killed:
    the broker would take the parent for alive until heartbeats are missed."""
    global _has_fork_hook
    with _hook_lock:
        _live.add(connection)
        if not _has_fork_hook and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork_in_child)
            _has_fork_hook = True


def _after_fork_in_child() -> None:
    for connection in list(_live):
        connection._abandon_in_child()
