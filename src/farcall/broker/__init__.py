"""An AMQP 0-9-1 broker in the service's own process: the transport when no RabbitMQ is configured.

Owns routing, queues and connections, in memory; durability is the service's (a queue can hold a publisher's confirm
back until the consumer has acknowledged), and so is who may do what (`Authority`).
"""

from farcall.broker.authority import Action, Authority, Principal, ResourceKind
from farcall.broker.core import Broker, BrokerStats, ConnectionInfo, QueueDepth
from farcall.broker.errors import AmqpError, Reply
from farcall.broker.local import LocalConsumer
from farcall.broker.messages import Delivery
from farcall.broker.properties import Properties
from farcall.broker.server import BrokerServer, serve

__all__ = [
    "Action",
    "AmqpError",
    "Authority",
    "Broker",
    "BrokerServer",
    "BrokerStats",
    "ConnectionInfo",
    "Delivery",
    "LocalConsumer",
    "Principal",
    "Properties",
    "QueueDepth",
    "Reply",
    "ResourceKind",
    "serve",
]
