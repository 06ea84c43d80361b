"""What the routes work with: one service's parts, made by `app.open_service`, carried in `app.state`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from farcall.service.accounts.authenticator import Authenticator
from farcall.service.accounts.passwords import Passwords
from farcall.service.accounts.rules import Identity, connection_url
from farcall.service.accounts.throttle import Attempts, Throttle
from farcall.service.accounts.watch import AccountsWatch
from farcall.service.cluster.process import Cluster
from farcall.service.db.engine import Database
from farcall.service.endpoints.live import Live
from farcall.service.endpoints.online import Online
from farcall.service.history.recorder import Recorder
from farcall.service.login.links import LoginLinks
from farcall.service.oauth.keys import SigningKeys
from farcall.service.oidc.login import OidcLogins
from farcall.service.ops.health import Health
from farcall.service.ops.queues import QueueLimit, StateCounts
from farcall.service.ops.rate import RateLimit
from farcall.service.relay.rabbit.address import BrokerAddress
from farcall.service.relay.runner import Relay
from farcall.service.settings import ServiceSettings
from farcall.service.tasks.replay import Replay
from farcall.service.tls import ServerCertificate
from farcall.wire.auth import COMPUTE_SCOPE
from farcall.wire.errors import Forbidden, RateLimited
from farcall.wire.topology import BrokerUser

__all__ = ["Service", "caller_of", "host_of", "peer_of", "service_of"]

_HOST = re.compile(r"[0-9A-Za-z._-]{1,253}|[0-9a-fA-F:.]{2,45}")
"""Names and addresses, IPv6 without brackets; anything else in a Host header has no place in a URL."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One running service.

    Attributes:
        live: endpoints that somebody is looking at.
        watch: told what was revoked; notices what was revoked elsewhere.
        attempts: slows guessing of passwords; `code_guesses` (by person) and `secret_guesses` (by address) likewise
            of the codes of devices, and of the secrets of programs; `factor_guesses` of second factors.
        device_rate: logins on other devices that may be begun from one address; anybody may, and each is a row.
        oidc: the providers that people can log in with.
        secret: key of the broker passwords.
        amqp_port: where the broker listens.
        certificate: of HTTPS and AMQPS; None: without TLS.
        rabbitmq: where it is, if it is not in this process.
        clock: Unix seconds.
        started_at: by `clock`.
        cluster: the other processes of this service; None if there can be none.
    """

    settings: ServiceSettings
    db: Database
    relay: Relay
    online: Online
    live: Live
    recorder: Recorder
    authenticator: Authenticator
    watch: AccountsWatch
    passwords: Passwords
    links: LoginLinks
    attempts: Attempts
    factor_guesses: Attempts
    code_guesses: Throttle
    secret_guesses: Throttle
    device_rate: RateLimit
    signing_keys: SigningKeys
    oidc: OidcLogins
    replay: Replay
    rate: RateLimit
    queue_limit: QueueLimit
    health: Health
    state_counts: StateCounts
    secret: bytes
    amqp_port: int
    certificate: ServerCertificate | None
    rabbitmq: BrokerAddress | None
    clock: Callable[[], float]
    started_at: float
    cluster: Cluster | None = None

    def broker_url(self, user: BrokerUser, host: str) -> str:
        """The URL by which `user` reaches the broker, if it reached us as `host`."""
        rabbitmq = self.rabbitmq
        if rabbitmq is not None and not rabbitmq.is_local:
            host = rabbitmq.host
        return connection_url(
            self.secret,
            user,
            host=self.settings.public_host or host,
            port=self.settings.amqp_advertised_port or self.amqp_port,
            heartbeat_s=self.settings.amqp_heartbeat_s,
            scheme=self.settings.amqp_advertised_scheme or self._amqp_scheme,
            vhost="/" if rabbitmq is None else rabbitmq.vhost,
        )

    @property
    def _amqp_scheme(self) -> str:
        if self.rabbitmq is not None:
            return self.rabbitmq.scheme
        return "amqp" if self.certificate is None else "amqps"


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def caller_of(request: Request, *scopes: str) -> Identity:
    """Who asks.

    Args:
        scopes: the token must open one of these; none given: the compute interface.

    Raises:
        Unauthenticated: no token, or none that counts.
        Forbidden: the token is not for this interface.
        RateLimited: this identity asks too often.
    """
    service = service_of(request)
    caller = await service.authenticator.identify(request)
    if not caller.has_scope(*(scopes or (COMPUTE_SCOPE,))):
        raise Forbidden(
            f"The token of {caller.username} does not open this part of the service: it has the scopes "
            f"{', '.join(sorted(caller.scopes or ())) or '(none)'}, and one of "
            f"{', '.join(scopes or (COMPUTE_SCOPE,))} is needed. Log in again and ask for it."
        )
    wait_s = service.rate.take(caller.id, service.clock())
    if wait_s:
        service.relay.measures.rate_limited += 1
        per_s = service.settings.requests_per_s
        raise RateLimited(
            f"{caller.username} makes more than {per_s:g} requests per second, which this service does not allow; "
            "wait a moment, and submit many tasks with one request.",
            {"retry_after_s": math.ceil(wait_s)},
        )
    return caller


def peer_of(request: Request) -> str | None:
    """The address that the request came from."""
    return request.client.host if request.client else None


def host_of(request: Request) -> str:
    """The host by which the request reached us, without port and brackets."""
    host = request.url.hostname
    return host if host and _HOST.fullmatch(host) else service_of(request).settings.host
