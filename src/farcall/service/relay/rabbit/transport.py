"""RabbitMQ as the relay's transport. Queues are durable and outlive us; everything in them is a copy of the store.

Each time RabbitMQ is (again) there, exchanges and queues are made anew, and each task queue that has a consumer counts
as newly attached. While it is away, no endpoint is attached, and everything waits in the store.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

from farcall.amqp import (
    BindQueue,
    ConnectFailed,
    ConnectionEnded,
    ConnectionFactory,
    Consumer,
    DeclareExchange,
    DeclareQueue,
    DeleteQueue,
    Delivery,
    Disconnected,
    Done,
    Event,
    Failed,
    Operation,
    OperatorLost,
    OperatorReady,
    Outcome,
    Publisher,
    PublisherLost,
    PublisherReady,
    PurgeQueue,
)
from farcall.service.relay.messages import Outgoing
from farcall.service.relay.rabbit.access import RabbitAccess, publish_kwargs
from farcall.service.relay.rabbit.address import BrokerAddress
from farcall.service.relay.rabbit.consumers import Ask, Command, Consumers, Tell, queue_of
from farcall.service.relay.rabbit.management import Management
from farcall.service.relay.transport import Listener
from farcall.wire.topology import EXCHANGES, GROUPS, HEARTBEATS, RESULTS, TASKS, BrokerUser, UserKind

__all__ = ["RabbitTransport"]

_logger = logging.getLogger(__name__)

_EVENTS: Final = "amq.rabbitmq.event"
_CAME, _WENT = "consumer.created", "consumer.deleted"
_RETRY_S: Final = 3.0
_PREPARE_S: Final = 5.0
_REPORTS_PREFETCH: Final = 1000
_CUT_BACK: Final = 3
"""Generations: older logins were cut when they became void."""

_SHARED_QUEUE_IDLE_S: Final = 24 * 3600.0
"""The clients that share a queue do not ask what they missed: it is kept longer than a short absence of theirs."""

TaskQueues = Callable[[], Awaitable[Sequence[str]]]


class _SetUpFailed(Exception):
    """RabbitMQ refused something that is needed; or it is gone (`code` 0)."""

    def __init__(self, failed: Failed, what: Operation) -> None:
        super().__init__(f"{failed.reason} ({type(what).__name__} {getattr(what, 'name', None) or what})")
        self.code = failed.code


class RabbitTransport:
    """Implements `transport.Transport`; the methods below `# --- For copies` are for `copies.ResultCopies`.

    Args:
        task_queues: asked for the queues to be watched whenever RabbitMQ is there (again).
        prefetch: how many results may be in the relay's hands.
        reader_idle_s: for how long a reader's own queue is kept when nobody reads it.
        takes_in: consume results and reports, and watch task queues. If not, this only makes queues on demand,
            publishes and cuts.
        factory: makes connections.

    Attributes:
        on_up: called whenever RabbitMQ can be used (again).
    """

    sees_acks = False

    def __init__(
        self,
        address: BrokerAddress,
        task_queues: TaskQueues,
        *,
        prefetch: int,
        reader_idle_s: float,
        takes_in: bool = True,
        factory: ConnectionFactory | None = None,
    ) -> None:
        self.on_up: Callable[[], None] = _nothing
        self._address = address
        self._task_queues = task_queues
        self._prefetch = prefetch
        self._reader_idle_s = reader_idle_s
        self._takes_in = takes_in
        self._factory = factory
        self._management = Management(address)
        self._listener: Listener
        self._access: RabbitAccess
        self._tasks: Publisher
        self._groups: Publisher
        self._direct: Publisher
        self._results: Consumer | None = None
        self._announcements: Consumer | None = None
        self._consumers = Consumers()
        self._depths: dict[str, tuple[int, int]] = {}
        self._purging: dict[str, int] = {}
        self._held: dict[str, list[Outgoing]] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._is_set_up = False
        self._has_output = False
        self._is_up = False
        self._is_closing = False
        self._up = asyncio.Event()
        self._is_told_down = False
        self._fault: str | None = f"the message broker, RabbitMQ at {address.shown}, has not answered yet"

    @property
    def is_up(self) -> bool:
        """Whether queues can be made and messages published."""
        return self._is_up

    def open(self, listener: Listener) -> None:
        self._listener = listener
        self._access = RabbitAccess(
            self._address.url, on_inside=self._on_inside, on_outside=self._on_outside, factory=self._factory
        )
        self._tasks = self._access.publisher(TASKS, resends=False)
        self._groups = self._access.publisher(GROUPS, resends=True)
        self._direct = self._access.publisher("", resends=True)
        self._access.start()

    async def close(self) -> None:
        self._is_closing = True
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._access.close([self._groups, self._direct])
        await self._management.close()

    def ensure_queue(self, queue: str) -> None:
        if self._is_up:
            self._watch(queue)

    async def prepare_queue(self, queue: str) -> None:
        if await self._wait_up():
            await self._declare_task_queue(queue)

    def drop_queue(self, queue: str, *, if_unused: bool) -> None:
        self._do(self._consumers.unwatch(queue))
        self._begin(self._perform_quietly(DeleteQueue(name=queue, if_unused=if_unused)))

    def unwatch(self, which: Callable[[str], bool]) -> None:
        for queue in self._consumers.watched:
            if which(queue):
                self._do(self._consumers.unwatch(queue))

    def purge(self, queue: str) -> None:
        self._purging[queue] = self._purging.get(queue, 0) + 1
        self._begin(self._purge(queue))

    def publish(self, queue: str, messages: Iterable[Outgoing]) -> None:
        if queue in self._purging:
            # A channel of its own makes queues: what is published now could overtake the purge, and be lost by it.
            self._held.setdefault(queue, []).extend(messages)
        else:
            self._publish_tasks(queue, messages)

    def ack_results(self, deliveries: Iterable[Any]) -> None:
        results, done = self._results, tuple(deliveries)
        if results is None:
            return
        try:
            self._groups.after_confirmed(lambda: results.ack(done))
        except ConnectionEnded:
            pass  # they will come again

    def fault(self) -> str | None:
        return self._fault

    @property
    def management_fault(self) -> str | None:
        """Why connections could not be cut when that was last tried; None if they could."""
        return self._management.fault

    async def depths(self) -> Mapping[str, tuple[int, int]]:
        if self._is_up:
            for queue in (RESULTS, HEARTBEATS):
                outcome = await self._access.perform(DeclareQueue(name=queue, passive=True))
                if isinstance(outcome, Done):
                    self._depths[queue] = (outcome.messages, 0)
        return dict(self._depths)

    def cut(self, kind: UserKind, user_id: str, generation: int, reason: str) -> None:
        for older in range(max(1, generation - _CUT_BACK), generation):
            self._management.close_connections(BrokerUser(kind=kind, id=user_id, generation=older), reason)

    # --- For copies ------------------------------------------------------------------------------------------

    def copy(self, key: str, messages: Iterable[Outgoing]) -> None:
        """Publish to all queues that are bound to the exchange of the groups by this key."""
        self._publish(self._groups, GROUPS, key, messages)

    async def fill(self, queue: str, messages: Iterable[Outgoing]) -> None:
        """Publish to one queue; returns when RabbitMQ has confirmed that, or will not any more."""
        self._publish(self._direct, "", queue, messages)
        await self._access.confirmed(self._direct)

    async def declare_group_queue(self, queue: str, key: str, *, is_shared: bool) -> bool:
        """Make a queue bound by this key, unless it is there. Returns whether it had to be made."""
        if not await self._wait_up():
            return False
        found = await self._access.perform(DeclareQueue(name=queue, passive=True))
        if isinstance(found, Done) or found.code != 404:
            return False
        idle_s = max(self._reader_idle_s, _SHARED_QUEUE_IDLE_S) if is_shared else self._reader_idle_s
        made = await self._access.perform(DeclareQueue(name=queue, arguments={"x-expires": int(idle_s * 1000)}))
        if isinstance(made, Done):
            made = await self._access.perform(BindQueue(queue=queue, exchange=GROUPS, routing_key=key))
        if isinstance(made, Failed):
            self._log_refusal(queue, made)
        return isinstance(made, Done)

    # --- What the connections tell ---------------------------------------------------------------------------

    def _on_inside(self, event: Event) -> None:
        if self._is_closing:
            return
        if isinstance(event, OperatorReady):
            self._begin(self._set_up())
        elif isinstance(event, (Disconnected, OperatorLost)):
            self._is_set_up = False
            self._went_down(event.reason)
        elif isinstance(event, ConnectFailed):
            self._went_down(event.reason)

    def _on_outside(self, event: Event) -> None:
        if self._is_closing:
            return
        if isinstance(event, PublisherReady) and event.exchange == TASKS:
            self._has_output = True
            self._check_up()
        elif isinstance(event, Disconnected) or (isinstance(event, PublisherLost) and event.exchange == TASKS):
            # What was published and not confirmed is dropped: so every endpoint is fed anew.
            self._has_output = False
            self._went_down(event.reason)

    def _on_announcements(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            queue = queue_of(delivery.headers)
            if queue is None or delivery.headers.get("vhost", self._address.vhost) != self._address.vhost:
                continue
            tell = self._consumers.came if delivery.routing_key == _CAME else self._consumers.went
            self._do(tell(queue))

    def _on_results(self, deliveries: list[Delivery]) -> None:
        self._listener.on_results(deliveries)

    def _on_reports(self, deliveries: list[Delivery]) -> None:
        self._listener.on_reports(deliveries)

    # --- Coming and going ------------------------------------------------------------------------------------

    async def _set_up(self) -> None:
        """Everything that has to be there before endpoints are."""
        self._is_set_up = False
        try:
            for exchange, kind in {**EXCHANGES, GROUPS: "direct"}.items():
                await self._need(DeclareExchange(name=exchange, kind=kind))
            for queue in (RESULTS, HEARTBEATS):
                await self._need(DeclareQueue(name=queue))
                await self._need(BindQueue(queue=queue, exchange=queue, routing_key=f"*.{queue}"))
            if self._takes_in:
                await self._listen_to_announcements()
        except _SetUpFailed as exc:
            if exc.code:
                self._went_down(str(exc))
                await asyncio.sleep(_RETRY_S)
                self._begin(self._set_up())
            return
        if self._takes_in and self._results is None:
            self._results = self._access.consume(RESULTS, self._on_results, prefetch=self._prefetch)
            self._access.consume_acked(HEARTBEATS, self._on_reports, prefetch=_REPORTS_PREFETCH)
        self._access.start_output()
        self._is_set_up = True
        self._check_up()

    async def _listen_to_announcements(self) -> None:
        """Before any queue is looked at, so that nobody can come in between."""
        name = f"events.{secrets.token_hex(8)}"
        await self._need(DeclareQueue(name=name, exclusive=True))
        for key in (_CAME, _WENT):
            await self._need(BindQueue(queue=name, exchange=_EVENTS, routing_key=key))
        if self._announcements is not None:
            self._announcements.cancel()
        self._announcements = self._access.consume_acked(name, self._on_announcements, prefetch=_REPORTS_PREFETCH)

    def _check_up(self) -> None:
        if self._is_up or not (self._is_set_up and self._has_output):
            return
        self._is_up = True
        self._is_told_down = False
        self._fault = None
        self._up.set()
        _logger.info("RabbitMQ is connected", extra={"event": "broker.up", "broker": self._address.shown})
        if self._takes_in:
            self._begin(self._watch_all())
        self.on_up()

    def _went_down(self, reason: str) -> None:
        self._is_up = False
        self._up.clear()
        self._fault = f"the message broker, RabbitMQ at {self._address.shown}, cannot be used: {reason}"
        if not self._is_told_down:  # once is enough, however often it is tried
            self._is_told_down = True
            _logger.warning(
                "RabbitMQ cannot be used; trying on. Tasks are accepted and kept",
                extra={"event": "broker.down", "broker": self._address.shown, "reason": reason},
            )
        self._do(self._consumers.lost())

    async def _watch_all(self) -> None:
        while self._is_up:
            try:
                queues = await self._task_queues()
            except Exception:
                _logger.exception("The endpoints could not be read; trying again", extra={"event": "relay.list_failed"})
                await asyncio.sleep(_RETRY_S)
                continue
            for queue in queues:
                self._watch(queue)
            return

    # --- Task queues -----------------------------------------------------------------------------------------

    def _watch(self, queue: str) -> None:
        if self._takes_in:
            self._do(self._consumers.watch(queue))
        else:
            self._begin(self._prepare_quietly(queue))

    def _do(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Ask):
                self._begin(self._ask(command))
            elif isinstance(command, Tell):
                self._listener.on_consumers(command.queue, command.count)

    async def _ask(self, ask: Ask) -> None:
        outcome = await self._declare_task_queue(ask.queue)
        if isinstance(outcome, Done):
            if outcome.messages and not outcome.consumers:
                self.purge(ask.queue)  # of an earlier life: what it is about may have ended
            self._do(self._consumers.counted(ask.queue, ask.serial, outcome.consumers))

    async def _prepare_quietly(self, queue: str) -> None:
        await self._declare_task_queue(queue)

    async def _declare_task_queue(self, queue: str) -> Outcome:
        # Asked together, as a round trip each would cost; the second is harmless if the first fails.
        declared, bound = await asyncio.gather(
            self._access.perform(DeclareQueue(name=queue)),
            self._access.perform(BindQueue(queue=queue, exchange=TASKS, routing_key=queue)),
        )
        for outcome in (declared, bound):
            if isinstance(outcome, Failed):
                self._log_refusal(queue, outcome)
                return outcome
        return declared

    async def _purge(self, queue: str) -> None:
        outcome = await self._perform_quietly(PurgeQueue(name=queue))
        left = self._purging[queue] - 1
        if left:
            self._purging[queue] = left
            return
        del self._purging[queue]
        held = self._held.pop(queue, None)
        if held and isinstance(outcome, Done):
            self._publish_tasks(queue, held)

    # --- Helpers ---------------------------------------------------------------------------------------------

    def _publish_tasks(self, queue: str, messages: Iterable[Outgoing]) -> None:
        # Not to be written to RabbitMQ's disk: after its restart they would only be in the way of those that we send.
        self._publish(self._tasks, TASKS, queue, messages, is_persistent=False)

    def _publish(
        self, publisher: Publisher, exchange: str, key: str, messages: Iterable[Outgoing], *, is_persistent: bool = True
    ) -> None:
        try:
            for message in messages:
                publisher.publish(message.body, publish_kwargs(exchange, key, message, is_persistent=is_persistent))
        except ConnectionEnded:
            pass  # we are closing

    async def _wait_up(self) -> bool:
        if not self._is_up:
            try:
                await asyncio.wait_for(self._up.wait(), _PREPARE_S)
            except asyncio.TimeoutError:
                return False
        return True

    async def _need(self, operation: Operation) -> None:
        outcome = await self._access.perform(operation)
        if isinstance(outcome, Failed):
            raise _SetUpFailed(outcome, operation)

    async def _perform_quietly(self, operation: Operation) -> Outcome:
        outcome = await self._access.perform(operation)
        if isinstance(outcome, Failed) and outcome.code not in (404, 406):
            self._log_refusal(getattr(operation, "name", ""), outcome)
        return outcome

    def _log_refusal(self, queue: str, failed: Failed) -> None:
        if failed.code:  # else the connection is gone, which is told once
            _logger.warning(
                "RabbitMQ refused an operation on a queue",
                extra={"event": "broker.refused", "queue": queue, "code": failed.code, "reason": failed.reason},
            )

    def _begin(self, job: Coroutine[Any, Any, Any]) -> None:
        if self._is_closing:
            job.close()
            return
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error(
                "A job of the RabbitMQ transport failed", exc_info=task.exception(), extra={"event": "broker.fault"}
            )


def _nothing() -> None:
    pass
