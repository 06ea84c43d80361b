"""Composes one service: database, broker, relay, routes. No globals: two can live in one process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from fastapi_swagger import patch_fastapi

from farcall import __version__
from farcall.broker import Broker, serve
from farcall.service.accounts import routes as accounts_routes
from farcall.service.accounts.authenticator import Authenticator
from farcall.service.accounts.authority import BrokerAuthority
from farcall.service.accounts.passwords import Passwords
from farcall.service.accounts.store import ensure_secret
from farcall.service.accounts.throttle import Attempts, Throttle
from farcall.service.accounts.watch import AccountsWatch
from farcall.service.context import Service
from farcall.service.db.engine import Database
from farcall.service.db.upkeep import upgrade_store
from farcall.service.endpoints import routes as endpoints_routes
from farcall.service.factors import routes as factors_routes
from farcall.service.functions import routes as functions_routes
from farcall.service.login import routes as login_routes
from farcall.service.login.store import forget_sessions
from farcall.service.oauth import routes as oauth_routes
from farcall.service.oauth.keys import SigningKeys
from farcall.service.oauth.store import forget_expired
from farcall.service.oidc import routes as oidc_routes
from farcall.service.oidc.login import OidcLogins
from farcall.service.ops import routes as ops_routes
from farcall.service.ops.health import Health
from farcall.service.ops.queues import QueueLimit, StateCounts
from farcall.service.ops.rate import RateLimit
from farcall.service.policies import routes as policies_routes
from farcall.service.relay.runner import Relay
from farcall.service.relay.transport import EmbeddedTransport
from farcall.service.settings import ServiceSettings
from farcall.service.tasks import routes as tasks_routes
from farcall.service.tasks.replay import Replay
from farcall.service.tls import own_certificate
from farcall.service.web.errors import install_error_handlers
from farcall.service.web.limits import BodyLimit
from farcall.service.web.openapi import install_openapi

__all__ = ["create_app", "open_service"]

_logger = logging.getLogger(__name__)
_KEPT_S = 7 * 24 * 3600.0
_PARTS = (
    tasks_routes,
    functions_routes,
    endpoints_routes,
    policies_routes,
    accounts_routes,
    login_routes,
    factors_routes,
    oidc_routes,
    oauth_routes,
    ops_routes,
)


@contextlib.asynccontextmanager
async def open_service(settings: ServiceSettings, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Service]:
    """Everything but HTTP: the store is at its newest schema, the broker listens, the relay works.

    Args:
        clock: Unix seconds.

    Raises:
        SchemaTooNew: the database is of a newer release.
        StoreError: the database does not let us in, or another service uses it.
        CertificateUnusable, NotProtected: see `tls.own_certificate`.
        OSError: the broker's port cannot be had.
    """
    certificate = own_certificate(settings)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(settings.data_dir, 0o700)
    await asyncio.get_running_loop().run_in_executor(None, _migrate, settings.store_url)
    async with contextlib.AsyncExitStack() as closing:
        db = Database(settings.store_url)
        closing.push_async_callback(db.close)
        secret = await db.write(ensure_secret)
        broker = Broker()
        transport = EmbeddedTransport(broker, prefetch=2 * settings.result_batch_messages)
        relay = Relay(settings, db, transport, clock)
        queue_limit = QueueLimit(db, settings.max_queued_tasks_per_endpoint, clock)
        closing.push_async_callback(queue_limit.stop)
        relay.on_ended = queue_limit.ended
        db.on_group = relay.measures.group_written
        relay.start()
        closing.push_async_callback(relay.stop)
        authority = BrokerAuthority(db, secret, relay.ensure_queue)
        ssl = certificate.context if certificate is not None else None
        server = await serve(broker, authority, settings.host, settings.amqp_port, ssl)
        closing.push_async_callback(server.close)
        authenticator = Authenticator(db, clock, cache_s=settings.token_cache_s)
        tidy = functools.partial(_tidy, db, clock)
        watch = AccountsWatch(db, authenticator, relay, period_s=settings.accounts_check_s, tidy=tidy)
        await watch.start()
        closing.push_async_callback(watch.stop)
        passwords = Passwords()
        closing.callback(passwords.close)
        oidc = OidcLogins(settings.oidc, secret, clock)
        closing.push_async_callback(oidc.close)
        yield Service(
            settings=settings,
            db=db,
            relay=relay,
            authenticator=authenticator,
            watch=watch,
            passwords=passwords,
            attempts=Attempts(),
            factor_guesses=Attempts(),
            code_guesses=Throttle(free=10),
            secret_guesses=Throttle(free=30, longest_s=900.0),
            device_rate=RateLimit(0.5, 60),
            signing_keys=SigningKeys(db),
            oidc=oidc,
            replay=Replay(clock, settings.replay_window_s),
            rate=RateLimit(settings.requests_per_s, settings.request_burst),
            queue_limit=queue_limit,
            health=Health(db, relay),
            state_counts=StateCounts(db),
            secret=secret,
            amqp_port=server.port,
            certificate=certificate,
            clock=clock,
            started_at=clock(),
        )


def create_app(settings: ServiceSettings, service: Service | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        service: a service that is open; if None, the application's lifespan opens and closes one.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if service is not None:
            yield
            return
        async with open_service(settings) as opened:
            app.state.service = opened
            yield

    app = FastAPI(
        title="Farcall",
        version=__version__,
        summary="Federated Function-as-a-Service: submit a function, get its result, wherever it runs.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    patch_fastapi(app)  # /docs with assets of its own: FastAPI's page loads them from a CDN, which a site may not reach
    app.state.service = service
    for part in _PARTS:
        app.include_router(part.router)
    install_error_handlers(app)
    install_openapi(app, [shape for part in _PARTS for shape in part.SHAPES])
    app.add_middleware(BodyLimit, limit_bytes=settings.request_limit_bytes)
    return app


async def _tidy(db: Database, clock: Callable[[], float]) -> None:
    """Forget logins, codes and tokens that have been over for a while."""
    await db.write(forget_expired, clock(), _KEPT_S)
    await db.write(forget_sessions, clock())


def _migrate(url: str) -> None:
    if upgrade_store(url):
        _logger.info("The database schema was brought up to date", extra={"event": "db.migrated"})
