"""Which exchanges, queues and bindings exist. Declaring, deleting, finding; no messages are moved here.

Names and checks are the same for callers in this process and for connections; who may do it is asked in `channel`.
"""

from __future__ import annotations

from uuid import uuid4

from farcall.broker.errors import AmqpError, Reply
from farcall.broker.messages import Route
from farcall.broker.properties import short_string
from farcall.broker.queues import Queue
from farcall.broker.routing import Exchange, ExchangeKind

__all__ = ["DEFAULT_EXCHANGE", "Topology", "server_named"]

DEFAULT_EXCHANGE = ""
_ROUTES_KEPT = 20_000


def server_named() -> str:
    """A name for a queue whose client leaves the choice to us."""
    return f"amq.gen-{uuid4().hex}"


class Topology:
    """Everything that is declared.

    Attributes:
        version: grows whenever a route might lead elsewhere than before.
    """

    def __init__(self) -> None:
        self.version = 0
        self.exchanges: dict[str, Exchange[Queue]] = {}
        self.queues: dict[str, Queue] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._own = {DEFAULT_EXCHANGE: ExchangeKind.DIRECT}
        self._own.update({f"amq.{kind.value}": kind for kind in ExchangeKind})
        for name, kind in self._own.items():
            self.exchanges[name] = Exchange(name, kind)

    def exchange(self, name: str) -> Exchange[Queue]:
        """Raises AmqpError (404)."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise AmqpError(Reply.NOT_FOUND, f"no exchange '{name}' in vhost '/'")
        return exchange

    def queue(self, name: str, user: object | None = None) -> Queue:
        """The queue of this name, as `user` (a connection) may see it.

        Raises:
            AmqpError: 404, or 405 if it belongs to another connection.
        """
        queue = self.queues.get(name)
        if queue is None:
            raise AmqpError(Reply.NOT_FOUND, f"no queue '{name}' in vhost '/'")
        if queue.owner is not None and queue.owner != user:
            raise AmqpError(
                Reply.RESOURCE_LOCKED,
                f"cannot obtain exclusive access to locked queue '{name}' in vhost '/'; another connection owns it",
            )
        return queue

    def add_exchange(self, exchange: Exchange[Queue]) -> None:
        """Declare it, or find that it is declared alike.

        Raises:
            AmqpError: 403 for a reserved name, 406 if it exists with other arguments.
        """
        old = self.exchanges.get(exchange.name)
        if old is None:
            _refuse_reserved(exchange.name, "exchange")
            self.exchanges[exchange.name] = exchange
            self.version += 1
            return
        for name in ("kind", "durable", "auto_delete", "internal"):
            _require_same(name, getattr(old, name), getattr(exchange, name), f"exchange '{exchange.name}'")

    def remove_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Raises AmqpError: 403 for one of the broker's own, 404, 406 if it is in use."""
        if name in self._own:
            raise AmqpError(Reply.ACCESS_REFUSED, f"exchange '{name}' is the broker's own and stays")
        exchange = self.exchange(name)
        if if_unused and exchange.in_use:
            raise AmqpError(Reply.PRECONDITION_FAILED, f"exchange '{name}' in vhost '/' in use")
        self._forget_exchange(exchange)

    def add_queue(self, queue: Queue) -> Queue:
        """Declare it, or find the one that is declared alike; bound to the default exchange by its name.

        Raises:
            AmqpError: 403 for a reserved name, 405 and 406 if it exists otherwise.
        """
        old = self.queues.get(queue.name)
        if old is None:
            if not queue.name.startswith("amq.gen-"):
                _refuse_reserved(queue.name, "queue")
            self.queues[queue.name] = queue
            self.exchanges[DEFAULT_EXCHANGE].bind(queue, queue.name)
            self.version += 1
            return queue
        self.queue(queue.name, queue.owner)
        for name in ("durable", "auto_delete", "owner", "arguments"):
            _require_same(name, getattr(old, name), getattr(queue, name), f"queue '{queue.name}'")
        return old

    def remove_queue(self, queue: Queue) -> None:
        """Forget it and its bindings. What becomes of its messages and consumers is the caller's business."""
        del self.queues[queue.name]
        queue.deleted = True
        self.exchanges[DEFAULT_EXCHANGE].unbind(queue, queue.name)
        for exchange, key in list(queue.bindings):
            self._drop_binding(queue, exchange, key)
        self.version += 1

    def bind(self, queue: Queue, exchange_name: str, routing_key: str) -> None:
        """Raises AmqpError: 403 for the default exchange, 404."""
        exchange = self._bindable(exchange_name)
        exchange.bind(queue, routing_key)
        queue.bindings[exchange, routing_key] = None
        self.version += 1

    def unbind(self, queue: Queue, exchange_name: str, routing_key: str) -> None:
        """Undo `bind`; nothing happens if there is no such binding. Raises as `bind`."""
        exchange = self._bindable(exchange_name)
        if (exchange, routing_key) in queue.bindings:
            self._drop_binding(queue, exchange, routing_key)
            self.version += 1

    def route(self, exchange: str, routing_key: str) -> Route:
        """The route of this address; not resolved yet, so it may lead to an exchange that does not exist.

        Raises:
            ValueError: a name of more than 255 bytes.
        """
        route = self._routes.get((exchange, routing_key))
        if route is None:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            route = Route(exchange, routing_key, short_string(exchange) + short_string(routing_key))
            self._routes[exchange, routing_key] = route
        return route

    def resolve(self, route: Route) -> None:
        """Bring a route up to date. Raises AmqpError (404)."""
        route.queues = self.exchange(route.exchange).route(route.routing_key)
        route.confirming = sum(queue.confirm_on_ack for queue in route.queues)
        route.version = self.version

    def _bindable(self, name: str) -> Exchange[Queue]:
        if name == DEFAULT_EXCHANGE:
            raise AmqpError(Reply.ACCESS_REFUSED, "operation not permitted on the default exchange")
        return self.exchange(name)

    def _drop_binding(self, queue: Queue, exchange: Exchange[Queue], routing_key: str) -> None:
        del queue.bindings[exchange, routing_key]
        exchange.unbind(queue, routing_key)
        if exchange.auto_delete and not exchange.in_use:
            self._forget_exchange(exchange)

    def _forget_exchange(self, exchange: Exchange[Queue]) -> None:
        del self.exchanges[exchange.name]
        for queue in self.queues.values():
            for binding in [binding for binding in queue.bindings if binding[0] is exchange]:
                del queue.bindings[binding]
        self.version += 1


def _refuse_reserved(name: str, what: str) -> None:
    if name.startswith("amq."):
        raise AmqpError(Reply.ACCESS_REFUSED, f"{what} name '{name}' contains reserved prefix 'amq.*'")


def _require_same(name: str, old: object, new: object, of: str) -> None:
    if old != new:
        raise AmqpError(
            Reply.PRECONDITION_FAILED,
            f"inequivalent arg '{name}' for {of} in vhost '/': received '{_shown(new)}' but current is '{_shown(old)}'",
        )


def _shown(value: object) -> object:
    return value.value if isinstance(value, ExchangeKind) else value
