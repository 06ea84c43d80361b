"""Carries out what `starts` decides: reads who waits, sends start commands, ends tasks whose user endpoint cannot be
started. Events are taken one after another, because some of them need a look into the store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from farcall.service.cluster.signals import of_ends
from farcall.service.db.engine import Database
from farcall.service.managers import store
from farcall.service.managers.commands import start_command
from farcall.service.managers.starts import Command, FailTasks, Look, SendStart, Starts, is_transient
from farcall.service.relay.messages import Outgoing
from farcall.service.relay.store import Recorded, end_tasks_of_endpoint
from farcall.wire.topology import BrokerUser, UserKind, command_queue

__all__ = ["START_FAILED", "UserEndpointStarts"]

START_FAILED: Final = "ENDPOINT_START_FAILED"
_RETRY_S: Final = 1.0
_TEXT_LIMIT_CHARS: Final = 8 * 1024

_logger = logging.getLogger(__name__)
BrokerUrl = Callable[[BrokerUser, str | None], str]
_Event = Callable[[], Awaitable[Iterable[Command]]]


class UserEndpointStarts:
    """The user endpoints of all managers. Made and used on the event loop; every method returns at once.

    Args:
        publish: to a queue of the broker.
        on_ended: told of tasks that were ended here, after the commit.
        is_mine: whether an endpoint is this process's to see to; a user endpoint is whose its manager is.
        batch: how many tasks are ended in one transaction.
        clock: Unix seconds.
    """

    def __init__(
        self,
        db: Database,
        publish: Callable[[str, Sequence[Outgoing]], None],
        on_ended: Callable[[Recorded], None],
        *,
        is_mine: Callable[[str], bool],
        batch: int,
        clock: Callable[[], float],
    ) -> None:
        self._db = db
        self._publish = publish
        self._broker_url: BrokerUrl | None = None
        self._on_ended = on_ended
        self._is_mine = is_mine
        self._batch = batch
        self._clock = clock
        self._starts = Starts()
        self._managers: dict[str, str | None] = {}  # of endpoints that came by: who starts them, if somebody does
        self._events: deque[_Event] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False

    def begin(self, broker_url: BrokerUrl) -> None:
        """Events that came before this are taken now.

        Args:
            broker_url: the URL by which a login reaches the broker, given the host by which its manager reached us.
        """
        self._broker_url = broker_url
        self._wake()

    # --- Events ----------------------------------------------------------------------------------------------

    def submitted(self, endpoint_id: str, manager_id: str | None = None) -> None:
        """Tasks for an endpoint have been committed.

        Args:
            manager_id: who starts it, if that is known.
        """
        if manager_id is not None:
            self._managers[endpoint_id] = manager_id
        elif self._managers.get(endpoint_id, "unknown") is None:
            return  # it starts by itself
        self._take_of(endpoint_id, lambda found: self._starts.submitted(found, endpoint_id, now=time.monotonic()))

    def endpoint_attached(self, endpoint_id: str) -> None:
        """Something consumes this endpoint's task queue."""
        self._take_of(endpoint_id, lambda manager_id: self._starts.attached(manager_id, endpoint_id))

    def endpoint_detached(self, endpoint_id: str) -> None:
        self._take_of(endpoint_id, lambda manager_id: self._starts.detached(manager_id, endpoint_id))

    def reported_error(self, endpoint_id: str, text: str, is_final: bool | None = None) -> None:
        """An error notice has come. Those in the name of anything but a user endpoint say nothing of it.

        Args:
            is_final: whether another start is without hope; None: it does not say.
        """
        text = text[:_TEXT_LIMIT_CHARS]
        if not self._is_mine(endpoint_id):  # notices come to any of several relays
            self._enqueue(lambda: self._elsewhere(endpoint_id, text, is_final))
            return
        self._take_of(
            endpoint_id,
            lambda manager_id: self._starts.reported_error(
                manager_id, endpoint_id, text, is_final=is_final, now=time.monotonic()
            ),
        )

    @property
    def manager_ids(self) -> list[str]:
        """The managers that were seen here."""
        return self._starts.manager_ids

    def manager_attached(self, manager_id: str) -> None:
        """Something consumes this manager's command queue."""
        self._take(lambda: self._starts.manager_attached(manager_id))

    def manager_detached(self, manager_id: str) -> None:
        self._take(lambda: self._starts.manager_detached(manager_id))

    def progressed(self, endpoint_ids: Iterable[str]) -> None:
        """Tasks of these endpoints have ended."""
        for endpoint_id in endpoint_ids:
            self._starts.progressed(endpoint_id)

    def forget(self, endpoint_id: str) -> None:
        """A manager or a user endpoint was deleted."""
        self._managers.pop(endpoint_id, None)
        self._starts.forget(endpoint_id)

    async def stop(self) -> None:
        """Finish what is being done; what waits is found again at the next start."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            await self._worker

    # --- Inside ----------------------------------------------------------------------------------------------

    def _take(self, decide: Callable[[], Iterable[Command]]) -> None:
        async def event() -> Iterable[Command]:
            return decide()

        self._enqueue(event)

    def _take_of(self, endpoint_id: str, decide: Callable[[str], Iterable[Command]]) -> None:
        async def event() -> Iterable[Command]:
            if endpoint_id not in self._managers:
                self._managers[endpoint_id] = await self._db.read(store.manager_of, endpoint_id)
            manager_id = self._managers[endpoint_id]
            return () if manager_id is None else decide(manager_id)

        self._enqueue(event)

    def _enqueue(self, event: _Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._events and self._worker is None and self._broker_url is not None and not self._is_stopping:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._events and not self._is_stopping:
                event = self._events.popleft()
                try:
                    for command in await event():
                        await self._do(command)
                except Exception:  # any: the store may be away; the others must not wait for it
                    _logger.exception("User endpoints could not be seen to", extra={"event": "managers.failed"})
                    asyncio.get_running_loop().call_later(_RETRY_S, self._enqueue, event)
            self._set_timer()
        finally:
            self._worker = None

    async def _elsewhere(self, endpoint_id: str, text: str, is_final: bool | None) -> Iterable[Command]:
        """An error notice of an endpoint that another process sees to: what can be said without knowing more. That
        one lost its process is left to the other, which asks again when its patience is over."""
        if is_transient(text) or is_final is False:
            return []
        if is_final:
            is_hopeless = await self._db.read(store.manager_of, endpoint_id) is not None
        else:
            is_hopeless = await self._db.read(store.is_user_endpoint_away, endpoint_id)
        return [FailTasks(endpoint_id, text)] if is_hopeless else []

    async def _do(self, command: Command) -> None:
        if isinstance(command, SendStart):
            await self._send(command)
        elif isinstance(command, Look):
            found = await self._db.read(
                store.user_endpoints_with_open_tasks, command.manager_id, command.user_endpoint_id
            )
            for user_endpoint_id in found:
                self._managers[user_endpoint_id] = command.manager_id
            for following in self._starts.found(command.manager_id, found, now=time.monotonic()):
                await self._do(following)
        elif isinstance(command, FailTasks):
            await self._fail(command)

    async def _send(self, command: SendStart) -> None:
        found = await self._db.read(store.read_start_order, command.user_endpoint_id)
        if found is None or self._broker_url is None:
            return
        user = BrokerUser(kind=UserKind.ENDPOINT, id=command.user_endpoint_id, generation=found.generation)
        url = self._broker_url(user, found.reached_host)
        self._publish(command_queue(command.manager_id), [start_command(found.order, url, now=self._clock())])
        _logger.info(
            "A user endpoint was asked for",
            extra={
                "event": "managers.start_sent",
                "manager_id": command.manager_id,
                "user_endpoint_id": command.user_endpoint_id,
                "identity_id": found.order.submitter.identity_id,
            },
        )

    async def _fail(self, command: FailTasks) -> None:
        total = 0
        while not self._is_stopping:
            recorded = await self._db.write(
                end_tasks_of_endpoint,
                command.user_endpoint_id,
                self._batch,
                START_FAILED,
                command.text,
                self._clock(),
                then=self._on_ended,
                announce=lambda recorded: of_ends((each.task for each in recorded.ended), withdrawn=True),
            )
            total += len(recorded.ended)
            if len(recorded.ended) < self._batch:
                break
        _logger.warning(
            "A user endpoint could not be started; what waited for it has failed",
            extra={
                "event": "managers.start_failed",
                "user_endpoint_id": command.user_endpoint_id,
                "tasks": total,
            },
        )

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._starts.due_at
        if due_at is not None and not self._is_stopping:
            delay_s = max(0.0, due_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._take(lambda: self._starts.tick(now=time.monotonic()))
