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
    OperatorLost,
    OperatorReady,
    PublisherLost,
    PublisherReady,
)
from farcall.amqp.interface import Connection, ConnectionFactory, Consumer, Delivery, Operator, Publisher
from farcall.amqp.operations import (
    BindQueue,
    DeclareExchange,
    DeclareQueue,
    DeleteQueue,
    Done,
    Failed,
    Operation,
    Outcome,
    PurgeQueue,
)
from farcall.amqp.reconnect import Backoff

__all__ = [
    "AmqpConnection",
    "AmqpError",
    "Backoff",
    "BindQueue",
    "ConnectFailed",
    "Connected",
    "Connection",
    "ConnectionEnded",
    "ConnectionFactory",
    "Consumer",
    "ConsumerLost",
    "ConsumerReady",
    "CredentialRefused",
    "DeclareExchange",
    "DeclareQueue",
    "DeleteQueue",
    "Delivery",
    "Disconnected",
    "Done",
    "Event",
    "Failed",
    "Operation",
    "Operator",
    "OperatorLost",
    "OperatorReady",
    "Outcome",
    "Publisher",
    "PublisherLost",
    "PublisherReady",
    "PurgeQueue",
    "UsedAfterFork",
]
