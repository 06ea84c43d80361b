"""The way to RabbitMQ: two connections, whose threads speak to the event loop.

One takes in and makes queues; the other publishes. Kept apart, because RabbitMQ in distress stops reading from who
publishes, and acknowledgements must still reach it. What to do when they come and go is `transport`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, Final

from farcall.amqp import (
    AmqpConnection,
    Backoff,
    ConnectionEnded,
    ConnectionFactory,
    Consumer,
    Delivery,
    Event,
    Failed,
    Operation,
    Outcome,
    Publisher,
)
from farcall.broker import Properties
from farcall.service.relay.messages import Outgoing

__all__ = ["RabbitAccess", "publish_kwargs"]

_logger = logging.getLogger(__name__)
_BACKOFF: Final = Backoff(ceiling_s=3.0, refusals_limit=1 << 60)
"""The operator may be about to correct the account: never give up."""
_CLOSE_S: Final = 5.0
_CLOSED: Final = Failed(code=0, reason="the connection has ended")
_PROPERTIES: Final = tuple(field.name for field in fields(Properties))


class RabbitAccess:
    """Made on the event loop; everything here is used on it, and calls back on it.

    Args:
        url: of the service's account.
        on_inside: told what happens on the connection that takes in and makes queues.
        on_outside: likewise, of the one that publishes.
        factory: makes connections.
    """

    def __init__(
        self,
        url: str,
        *,
        on_inside: Callable[[Event], None],
        on_outside: Callable[[Event], None],
        factory: ConnectionFactory | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        make = factory or partial(AmqpConnection, backoff=_BACKOFF)
        self._in = make(url, name="service intake", on_event=partial(self._tell, on_inside))
        self._out = make(url, name="service output", on_event=partial(self._tell, on_outside))
        self._operator = self._in.operator()

    def start(self) -> None:
        """Begin to connect."""
        self._in.start()

    def start_output(self) -> None:
        """Likewise the connection that publishes. Again is nothing."""
        with contextlib.suppress(ConnectionEnded):
            self._out.start()

    async def perform(self, operation: Operation) -> Outcome:
        """Have the broker do this, after what was asked before."""
        answer: asyncio.Future[Outcome] = self._loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        try:
            self._operator.perform(operation, partial(self._tell, settle))
        except ConnectionEnded:
            return _CLOSED
        return await answer

    def consume(self, queue: str, on_messages: Callable[[list[Delivery]], None], *, prefetch: int) -> Consumer:
        """Subscribe; `on_messages` is called on the event loop."""
        return self._in.consume(queue, partial(self._tell, on_messages), prefetch)

    def consume_acked(self, queue: str, on_messages: Callable[[list[Delivery]], None], *, prefetch: int) -> Consumer:
        """The same, for messages that may be lost: they are acknowledged as they come."""

        def take(deliveries: list[Delivery]) -> None:
            self._tell(on_messages, deliveries)
            consumer.ack(deliveries)

        consumer = self._in.consume(queue, take, prefetch)
        return consumer

    def publisher(self, exchange: str, *, resends: bool) -> Publisher:
        return self._out.publisher(exchange, resends=resends)

    async def confirmed(self, publisher: Publisher) -> None:
        """Wait until what it has published is confirmed, or never will be. For ever, if the connection ends later."""
        confirmed = asyncio.Event()
        with contextlib.suppress(ConnectionEnded):
            publisher.after_confirmed(partial(self._tell, confirmed.set))
            await confirmed.wait()

    async def close(self, flush: Iterable[Publisher] = ()) -> None:
        """End both, when these publishers are through with what they have."""

        def close() -> None:
            for publisher in flush:
                with contextlib.suppress(ConnectionEnded):
                    if self._out.is_connected:
                        publisher.wait_confirmed(_CLOSE_S)
            self._out.close(_CLOSE_S)
            self._in.close(_CLOSE_S)

        await self._loop.run_in_executor(None, close)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(callback, *args)


def publish_kwargs(exchange: str, routing_key: str, message: Outgoing, *, is_persistent: bool) -> Mapping[str, Any]:
    """A message's publish arguments, as `farcall.amqp` takes them."""
    properties = message.properties
    found = {name: value for name in _PROPERTIES if (value := getattr(properties, name))}
    found["delivery_mode"] = 2 if is_persistent else 1
    return {"exchange": exchange, "routing_key": routing_key, "properties": found}
