"""RabbitMQ's management interface, used for one thing: to close the connections of a login that is void.

A credential counts no more from the moment its generation grows, whether this works or not; but only this ends a
connection that is open. So what could not be closed is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import quote

import httpx

from farcall.service.relay.rabbit.address import BrokerAddress
from farcall.wire.topology import BrokerUser

__all__ = ["Management"]

_logger = logging.getLogger(__name__)
_TIMEOUT_S = 10.0
_RETRY_S = 5.0
_PENDING = 10_000


class Management:
    """Used on the event loop.

    Attributes:
        fault: why connections could not be closed when that was last tried, in words; None if they could.
    """

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._http: httpx.AsyncClient | None = None
        self._pending: dict[str, str] = {}  # user → reason
        self._job: asyncio.Task[None] | None = None
        self.fault: str | None = None

    def close_connections(self, user: BrokerUser, reason: str) -> None:
        """Close all connections of this login, soon."""
        if len(self._pending) >= _PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[user.name] = reason
        if self._job is None:
            self._job = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Whatever is under way ends."""
        if self._job is not None:
            self._job.cancel()
            await asyncio.gather(self._job, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    async def _work(self) -> None:
        try:
            while self._pending:
                user, reason = next(iter(self._pending.items()))
                try:
                    await self._delete(user, reason)
                    self._succeeded()
                except httpx.HTTPError as exc:
                    self._failed(str(exc) or type(exc).__name__)
                    await asyncio.sleep(_RETRY_S)
                    continue
                self._pending.pop(user, None)
        finally:
            self._job = None

    async def _delete(self, user: str, reason: str) -> None:
        if self._http is None:
            self._http = httpx.AsyncClient(auth=self._address.management_login, timeout=_TIMEOUT_S, trust_env=False)
        url = f"{self._address.management_url}/api/connections/username/{quote(user, safe='')}"
        answer = await self._http.delete(url, headers={"x-reason": reason})
        if answer.status_code != 404:  # no connection of it
            answer.raise_for_status()
        _logger.info("Connections of a void login were closed", extra={"event": "broker.cut", "user": user})

    def _succeeded(self) -> None:
        if self.fault is not None:
            _logger.info("RabbitMQ's management interface answers again", extra={"event": "broker.management_up"})
        self.fault = None

    def _failed(self, reason: str) -> None:
        if self.fault is None:
            _logger.error(
                "RabbitMQ's management interface does not close connections; revoked logins that are open stay open",
                extra={"event": "broker.management_failed", "url": self._address.management_url, "reason": reason},
            )
        self.fault = reason
