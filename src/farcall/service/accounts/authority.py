"""The broker's questions, answered: which login is valid, and what may it touch.

Names and rights are `wire.topology`'s; here is only what needs the store (the generation) and one service to the
relay: a queue is made when its owner comes to read it, so none has to be kept for those who do not, and none is
missing after a restart of the service, whose broker has forgotten all.
"""

from __future__ import annotations

from collections.abc import Callable

from farcall.broker.authority import Action, Principal, ResourceKind
from farcall.service.accounts.rules import is_broker_password
from farcall.service.accounts.store import broker_generation
from farcall.service.db.engine import Database
from farcall.wire.topology import BrokerUser, may_access, may_publish

__all__ = ["BrokerAuthority"]


class BrokerAuthority:
    """Implements `farcall.broker.authority.Authority`.

    Args:
        on_read: told the name of a task or group queue before its owner reads from it.
    """

    def __init__(self, db: Database, secret: bytes, on_read: Callable[[str], None]) -> None:
        self._db = db
        self._secret = secret
        self._on_read = on_read

    async def authenticate(self, username: str, password: str) -> Principal | None:
        user = BrokerUser.from_name(username)
        if user is None or not is_broker_password(self._secret, user, password):
            return None
        generation = await self._db.read(broker_generation, user)
        return user if generation == user.generation else None

    def allows(self, principal: Principal, action: Action, resource: ResourceKind, name: str) -> bool:
        if not isinstance(principal, BrokerUser) or not may_access(principal, action, resource, name):
            return False
        if action == "read":
            self._on_read(name)
        return True

    def allows_routing_key(self, principal: Principal, exchange: str, routing_key: str) -> bool:
        return isinstance(principal, BrokerUser) and may_publish(principal, exchange, routing_key)
