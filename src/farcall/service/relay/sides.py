"""The two brokers that a relay can have on its one side, each with its way of handing out results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from farcall.broker import Broker
from farcall.service.db.engine import Database
from farcall.service.endpoints.store import read_endpoint_queues
from farcall.service.ops.measures import Measures
from farcall.service.relay.feed import Window
from farcall.service.relay.feeding import ResultFeeds
from farcall.service.relay.rabbit.address import BrokerAddress
from farcall.service.relay.results_out import ResultsOut
from farcall.service.relay.transport import EmbeddedTransport, Transport
from farcall.service.settings import ServiceSettings

__all__ = ["BrokerSide", "embedded_side", "rabbitmq_side"]


@dataclass(frozen=True, kw_only=True)
class BrokerSide:
    """A broker as the relay uses it.

    Attributes:
        window: how much of one endpoint's tasks may be in it.
    """

    transport: Transport
    results: ResultsOut
    window: Window


def embedded_side(
    broker: Broker, settings: ServiceSettings, db: Database, measures: Measures, clock: Callable[[], float]
) -> BrokerSide:
    """The broker of this process."""
    transport = EmbeddedTransport(broker, prefetch=2 * settings.result_batch_messages)
    window = Window(messages=settings.feed_window_messages, size=settings.feed_window_bytes)
    results = ResultFeeds(
        db,
        transport,
        window,
        settings.page_tasks,
        measures=measures,
        idle_s=settings.group_queue_idle_s,
        clock=clock,
    )
    return BrokerSide(transport=transport, results=results, window=window)


def rabbitmq_side(
    address: BrokerAddress,
    settings: ServiceSettings,
    db: Database,
    *,
    takes_in: bool = True,
    is_mine: Callable[[str], bool] = lambda endpoint_id: True,
) -> BrokerSide:
    """RabbitMQ.

    Args:
        takes_in: this process feeds endpoints and takes results.
        is_mine: which endpoints it feeds.
    """
    # Here, since it brings an HTTP and an AMQP client along, which a service with its own broker has no use for.
    from farcall.service.relay.rabbit.copies import ResultCopies
    from farcall.service.relay.rabbit.transport import RabbitTransport

    async def task_queues() -> list[str]:
        queues = await db.read(read_endpoint_queues)
        return [queue for endpoint_id, queue in queues.items() if is_mine(endpoint_id)]

    transport = RabbitTransport(
        address,
        task_queues,
        prefetch=2 * settings.result_batch_messages,
        reader_idle_s=settings.group_queue_idle_s,
        takes_in=takes_in,
    )
    page = Window(messages=settings.page_tasks, size=settings.feed_window_bytes)
    window = Window(messages=settings.broker_window_messages, size=settings.broker_window_bytes)
    return BrokerSide(transport=transport, results=ResultCopies(db, transport, page), window=window)
