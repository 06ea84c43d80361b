"""Results as they arrive: one broker connection per process, service and identity, shared by all Executors.

What is waited for is decided by `ledger`, what a message means by `outcomes`. Here are the threads: the connection's
own thread only receives and acknowledges; one further thread reads outcomes and completes futures, so that the
callbacks of a user, who may take his time, never hold up the connection. A third one exists while the
service is asked for outcomes, which happens at these events and never on a timer:

    event                                     asked for
    a queue of our own is read                what is open in its group: it may have ended before
    the connection was lost and came back     what is open in each group, once its queue is read again
    it cannot be made, or a queue not be read what is open, at each further attempt
    an early outcome had to be forgotten      that task
    a task for high assurance has ended       that task: its outcome is not streamed

So no outcome depends on the broker; and where it cannot be reached at all (a firewall), results come in the
rhythm of the attempts to reach it, 10 s at most.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from farcall.amqp import (
    AmqpConnection,
    Connected,
    ConnectFailed,
    ConnectionFactory,
    ConsumerLost,
    ConsumerReady,
    CredentialRefused,
    Delivery,
    Event,
)
from farcall.amqp.interface import Connection, Consumer
from farcall.client.rest import ApiClient
from farcall.client.retry import RetryPolicy
from farcall.client.settings import canonical_url
from farcall.sdk.future import ComputeFuture
from farcall.sdk.ledger import ResultLedger
from farcall.sdk.outcomes import Announced, Ended, ResultReader, ended_from_document, ended_from_message
from farcall.wire import errors
from farcall.wire.errors import MessageError
from farcall.wire.topology import HEADER_HIGH_ASSURANCE

__all__ = ["ResultStream", "Waiter", "close_streams", "shared_stream"]

_log = logging.getLogger(__name__)

_LINGER_S = 20.0
"""How long a connection that nobody uses is kept for the next Executor."""

_FRESH_S = 5.0
"""A shared queue that is read for the first time so soon after its first task was accepted has lost nothing."""

_ASK_AT_ONCE = 100
"""Tasks in one request for outcomes; each may bring megabytes."""

_ONCE = RetryPolicy(budget_s=0.0, unmet_budget_s=0.0)
_ASK_AGAIN_S = 10.0
"""After the service could not be asked; the next event on the connection ends the wait."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who waits for a task: its future, and how its owner reads results."""

    future: ComputeFuture[Any]
    reader: ResultReader


@dataclass(slots=True)
class _Group:
    since_s: float
    queue: str = ""
    consumer: Consumer | None = None
    was_ready: bool = False


class SharedLedger:
    """The ledger of all streams to one service, and the lock of the streams and the ledger."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ledger: ResultLedger[Waiter] = ResultLedger()


class ResultStream:
    """Completes the futures of tasks. All methods from any thread; nothing starts before `open`.

    Args:
        api: asked for credentials and outcomes; becomes this object's own.
        connect: makes the connection.
        amqp_port: replaces the port of the broker's URL.
        outcomes: shared with other streams to the same service.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        connect: ConnectionFactory = AmqpConnection,
        amqp_port: int | None = None,
        outcomes: SharedLedger | None = None,
    ) -> None:
        self._api = api
        self._connect = connect
        self._amqp_port = amqp_port
        outcomes = outcomes or SharedLedger()
        self._lock = outcomes.lock
        self._ledger = outcomes.ledger
        self._groups: dict[str, _Group] = {}
        self._group_of_queue: dict[str, str] = {}
        self._prefix: str | None = None
        self._suffix = ""
        self._connection: Connection | None = None
        self._users = 0
        self._inbox: queue.SimpleQueue[Iterable[Delivery] | list[Ended] | None] = queue.SimpleQueue()
        self._to_ask: set[str] = set()
        self._groups_to_ask: set[str] = set()
        self._is_asking = False
        self._ask_now = threading.Event()
        self._has_warned = False
        self._closed = threading.Event()

    # --- for Executors

    def acquire(self) -> bool:
        """Somebody uses this stream; False if it has ended, and another must be made."""
        with self._lock:
            if self._closed.is_set():
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """Undo one `acquire`. A stream without users ends some time after its last task has."""
        with self._lock:
            self._users -= 1
        self._inbox.put(None)

    def open(self) -> None:
        """Begin to connect, if that has not begun. Returns at once."""
        with self._lock:
            if self._connection is not None or self._closed.is_set():
                return
            connection = self._connection = self._connect(
                self._fresh_url, name="results", on_event=self._on_event, port=self._amqp_port
            )
        threading.Thread(target=self._complete, name="farcall-results", daemon=True).start()
        connection.start()

    def follow(self, group_id: str, tasks: Iterable[tuple[str, Waiter]], *, ask: bool = False) -> None:
        """Complete the futures of these accepted tasks when their outcomes come.

        Args:
            ask: they may have ended before: ask the service about them once.
        """
        self.open()
        tasks = list(tasks)
        with self._lock:
            expected = self._ledger.expect(self, group_id, tasks)
            if group_id not in self._groups:
                self._groups[group_id] = _Group(since_s=time.monotonic())
            connection = self._connection
            self._to_ask.update(expected.to_ask_for)
            if ask:
                self._to_ask.update(task_id for task_id, _ in tasks)
        for waiter, ended in expected.ready:
            _complete_one(waiter, ended)
        if connection is not None and not connection.is_connected:
            connection.retry_now()  # the service has just answered, so its broker is likely to be there too
        self._consume(group_id)
        if expected.to_ask_for or ask:
            self._ask()

    def close(self, timeout_s: float = 2.0) -> None:
        """End; futures that are open stay so. Twice is once."""
        self._closed.set()
        self._inbox.put(None)
        self._ask_now.set()
        self._api.close()  # first, since the connection's thread may be asking for a credential
        connection = self._connection
        if connection is not None:
            connection.close(timeout_s)

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    @property
    def open_count(self) -> int:
        return self._ledger.count(self)

    # --- the connection's thread

    def _fresh_url(self) -> str:
        try:
            result_connection = self._api.result_connection(retry=_ONCE)  # the connection has a rhythm of its own
        except errors.Unauthenticated as exc:
            self._warn_of_login(exc)
            raise
        if self._prefix is None:
            self._prefix = result_connection.queue_prefix
            # A queue of our own, where the service has such: another process may wait for the same group.
            self._suffix = f".{uuid.uuid4().hex}" if result_connection.reader_queues else ""
        return result_connection.connection_url

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._has_warned = False
            for group_id in list(self._groups):
                self._consume(group_id)
        elif isinstance(event, ConsumerReady):
            self._queue_is_read(self._group_of_queue[event.queue])
        elif isinstance(event, ConsumerLost):
            if event.retry_in_s > 0:  # else it is opened again at once, which may well succeed
                self._warn(f"the queue {event.queue} cannot be read: {event.reason}")
                self._ask_for_group(self._group_of_queue[event.queue])
        elif isinstance(event, ConnectFailed):
            if event.attempt >= 3:
                self._warn(event.reason)
                for group_id in list(self._groups):
                    self._ask_for_group(group_id)
        elif isinstance(event, CredentialRefused):
            self._give_up(event.reason)

    def _consume(self, group_id: str) -> None:
        """Read the group's queue, if that is possible by now; called again when the connection stands."""
        with self._lock:
            group, connection, prefix = self._groups[group_id], self._connection, self._prefix
            if connection is None or prefix is None or group.consumer is not None:
                return
            group.queue = prefix + group_id + self._suffix
            self._group_of_queue[group.queue] = group_id
            try:
                group.consumer = connection.consume(group.queue, self._received(group_id))
            except errors.FarcallError:  # it ended meanwhile, which its last event tells
                return

    def _received(self, group_id: str) -> Callable[[list[Delivery]], None]:
        def on_messages(deliveries: list[Delivery]) -> None:
            # Acknowledged on receipt: what a killed process had in memory is still in the service's store.
            with self._lock:  # which `_consume` holds until it has stored the consumer
                consumer = self._groups[group_id].consumer
            if consumer is not None:
                consumer.ack(deliveries)
            self._inbox.put(deliveries)

        return on_messages

    def _queue_is_read(self, group_id: str) -> None:
        group = self._groups[group_id]
        has_all = not self._suffix and not group.was_ready and time.monotonic() - group.since_s < _FRESH_S
        group.was_ready = True
        if not has_all:
            self._ask_for_group(group_id)

    def _warn(self, reason: str) -> None:
        if not self._has_warned and self.open_count:
            self._has_warned = True
            _log.warning(
                "Results are not streamed at the moment; the service is asked for them now and then.",
                extra={"event": "results.not_streamed", "reason": reason, "service": self._api.url},
            )

    def _warn_of_login(self, exc: errors.Unauthenticated) -> None:
        if not self._has_warned and self.open_count:
            self._has_warned = True
            _log.warning(
                "The login has ended. Results wait at the service: log in again with `farcall login`, in any terminal, "
                "and this program goes on.",
                extra={"event": "results.logged_out", "reason": str(exc), "service": self._api.url},
            )

    def _give_up(self, reason: str) -> None:
        with self._lock:
            waiting = self._ledger.take_all(self)
            self._closed.set()
        self._inbox.put(None)
        for waiter in waiting:
            text = f"{reason} The results stay at the service: log in again, then `Executor.reload_tasks`."
            waiter.future.finish(error=errors.CredentialRefused("this user's results", text))

    # --- the completing thread

    def _complete(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=None if self._is_used() else _LINGER_S)
            except queue.Empty:
                if self._end_if_unused():
                    return
                continue
            if self._closed.is_set():
                return
            if item is not None:
                self._settle(item)
                del item  # not to hold on to a large result while waiting for the next

    def _settle(self, item: Iterable[Delivery] | list[Ended]) -> None:
        outcomes = [ended for ended in map(_ended_from, item) if ended is not None]
        announced = [each.task_id for each in outcomes if isinstance(each, Announced)]
        with self._lock:
            came = (each for each in outcomes if isinstance(each, Ended))
            found = self._ledger.arrived(came, now_s=time.monotonic())
            to_ask_for = self._ledger.withheld(announced)
            self._to_ask.update(to_ask_for)
        for waiter, ended in found:
            _complete_one(waiter, ended)
        if to_ask_for:
            self._ask()

    def _is_used(self) -> bool:
        with self._lock:
            return self._users > 0 or self._ledger.count(self) > 0

    def _end_if_unused(self) -> bool:
        with self._lock:
            if self._users > 0 or self._ledger.count(self) > 0:
                return False
            self._closed.set()
        self.close()
        return True

    # --- asking the service

    def _ask_for_group(self, group_id: str) -> None:
        with self._lock:
            self._groups_to_ask.add(group_id)
        self._ask()

    def _ask(self) -> None:
        self._ask_now.set()
        with self._lock:
            if self._is_asking or self._closed.is_set():
                return
            self._is_asking = True
        try:
            threading.Thread(target=self._ask_until_told, name="farcall-results-ask", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down
            self._is_asking = False

    def _ask_until_told(self) -> None:
        while True:
            self._ask_now.clear()
            with self._lock:
                ids = self._ids_to_ask()
                if not ids or self._closed.is_set():
                    self._is_asking = False
                    return
            try:
                self._ask_for(sorted(ids))
            except Exception as exc:  # any: this thread must outlive it
                _log.info(
                    "Could not ask for outcomes; will ask again.",
                    extra={"event": "results.ask_failed", "reason": repr(exc), "count": len(ids)},
                )
                with self._lock:
                    self._to_ask |= ids
                self._ask_now.wait(_ASK_AGAIN_S)

    def _ids_to_ask(self) -> set[str]:
        ids = set(self._to_ask)
        for group_id in self._groups_to_ask:
            ids.update(self._ledger.open_ids(self, group_id))
        self._to_ask.clear()
        self._groups_to_ask.clear()
        return ids.intersection(self._ledger.open_ids(self))

    def _ask_for(self, ids: list[str]) -> None:
        for start in range(0, len(ids), _ASK_AT_ONCE):
            asked = ids[start : start + _ASK_AT_ONCE]
            try:
                documents = self._api.batch_status(asked, retry=_ONCE)
            except errors.Forbidden as exc:
                self._refused(asked, exc)
                continue
            ended = [outcome for each in documents.values() if (outcome := ended_from_document(each)) is not None]
            if ended:
                self._inbox.put(ended)
            self._lose([task_id for task_id in asked if task_id not in documents])

    def _refused(self, asked: list[str], error: errors.Forbidden) -> None:
        """A policy lets us not read what became of these tasks; the others are asked for again.

        Raises:
            Forbidden: the service does not say which tasks it is about.
        """
        refused = set(asked).intersection(error.detail.get("task_ids") or ())
        if not refused:
            raise error
        with self._lock:
            self._to_ask.update(task_id for task_id in asked if task_id not in refused)
            waiting = [waiter for task_id in sorted(refused) for waiter in self._ledger.take(task_id)]
        for waiter in waiting:
            each = copy.copy(error)  # one object per future: raising an exception changes it
            waiter.future.finish(error=each)

    def _lose(self, task_ids: list[str]) -> None:
        """The service had accepted these tasks and does not know them any more."""
        with self._lock:
            lost = [(task_id, waiter) for task_id in task_ids for waiter in self._ledger.take(task_id)]
        for task_id, waiter in lost:
            text = f"The service at {self._api.url} does not know task {task_id} any more (deleted, or its data was)."
            waiter.future.finish(error=errors.TaskNotFound(text))


def _ended_from(item: Delivery | Ended) -> Ended | Announced | None:
    if isinstance(item, Ended):
        return item
    try:
        ended = ended_from_message(item.body, item.timestamp)
        return Announced(ended.task_id) if item.headers.get(HEADER_HIGH_ASSURANCE) else ended
    except MessageError as exc:
        _log.warning(
            "A message in a result queue is no result; it was dropped.",
            extra={"event": "results.malformed", "reason": str(exc), "bytes": len(item.body)},
        )
        return None


def _complete_one(waiter: Waiter, ended: Ended) -> None:
    value, error = waiter.reader.read(ended)
    waiter.future.finish(value, error)


_streams: dict[tuple[Any, ...], ResultStream] = {}
_ledgers: dict[str, SharedLedger] = {}
_streams_lock = threading.Lock()
_streams_pid = os.getpid()


def shared_stream(api: ApiClient, amqp_port: int | None, connect: ConnectionFactory | None = None) -> ResultStream:
    """The process's stream for `api`'s service and identity, acquired for the caller."""
    global _streams_pid, _streams_lock
    if os.getpid() != _streams_pid:  # a forked child: the parent's streams have no threads here
        _streams_pid, _streams_lock = os.getpid(), threading.Lock()
        _streams.clear()
        _ledgers.clear()
    key = (api.identity_key, api.trust, amqp_port, connect)
    with _streams_lock:
        for ended in [each for each, stream in _streams.items() if stream.is_closed]:
            del _streams[ended]
        stream = _streams.get(key)
        if stream is None or not stream.acquire():
            outcomes = _ledgers.setdefault(canonical_url(api.url), SharedLedger())
            connects = connect or partial(AmqpConnection, trust=api.trust)
            stream = ResultStream(api.twin(), connect=connects, amqp_port=amqp_port, outcomes=outcomes)
            stream.acquire()
            _streams[key] = stream
        return stream


def close_streams(timeout_s: float, url: str | None = None) -> None:
    """Close the process's connections, politely: all, or those to one service. Futures that are open stay so."""
    if os.getpid() != _streams_pid:
        return
    service = None if url is None else canonical_url(url)
    for key, stream in list(_streams.items()):
        if service is None or key[0][0] == service:
            stream.close(timeout_s)
