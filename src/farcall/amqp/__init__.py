"""One AMQP connection is one thread: consumers in batches, publishers with confirms, both over all reconnects.

Built on pika. `memory` has a double of the broker and the connection, for tests without a network.
"""

from farcall.amqp.connection import AmqpConnection
from farcall.amqp.errors import AmqpError, ConnectionEnded, UsedAfterFork
from farcall.amqp.events import (
    Connected,
    ConnectFailed,
    ConsumerLost,
    ConsumerReady,
    CredentialRefused,
    Disconnected,
    Event,
    PublisherLost,
    PublisherReady,
)
from farcall.amqp.interface import Connection, ConnectionFactory, Consumer, Delivery, Publisher
from farcall.amqp.reconnect import Backoff

__all__ = [
    "AmqpConnection",
    "AmqpError",
    "Backoff",
    "ConnectFailed",
    "Connected",
    "Connection",
    "ConnectionEnded",
    "ConnectionFactory",
    "Consumer",
    "ConsumerLost",
    "ConsumerReady",
    "CredentialRefused",
    "Delivery",
    "Disconnected",
    "Event",
    "Publisher",
    "PublisherLost",
    "PublisherReady",
    "UsedAfterFork",
]
