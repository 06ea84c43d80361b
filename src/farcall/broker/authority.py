"""Who may do what: the questions the broker asks, answered elsewhere (the service). No answer means no.

The in-process interface of `Broker` is not subject to it: whoever holds the object is the service.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, Protocol

__all__ = ["Action", "Authority", "Principal", "ResourceKind"]

Action = Literal["configure", "write", "read"]
ResourceKind = Literal["exchange", "queue"]


class Principal(Hashable, Protocol):
    """A login that was accepted. Opaque to the broker, apart from its name."""

    @property
    def name(self) -> str: ...


class Authority(Protocol):
    """Decides on logins and on each queue and exchange.

    `allows…` are asked on the event loop and must answer from memory. The answer to a publish is remembered
    for as long as the channel lives; whoever revokes a right also calls `Broker.close_connections`.
    """

    async def authenticate(self, username: str, password: str) -> Principal | None:
        """The principal of these credentials, or None if they are not valid (any more)."""
        ...

    def allows(self, principal: Principal, action: Action, resource: ResourceKind, name: str) -> bool:
        """Whether `principal` may do this. The default exchange is the exchange named "".

        configure: declare, delete. write: publish to an exchange, bind a queue. read: consume, get, purge a
        queue, bind to an exchange. A passive declare needs read or write.
        """
        ...

    def allows_routing_key(self, principal: Principal, exchange: str, routing_key: str) -> bool:
        """Whether `principal` may publish to (or bind to) a *topic* exchange with this key or pattern."""
        ...
