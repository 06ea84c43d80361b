"""Composes one service: database, broker, relay, routes. No globals: two can live in one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi_swagger import patch_fastapi

from farcall import __version__
from farcall.broker import Broker, serve
from farcall.service.accounts import rabbitmq as rabbitmq_routes
from farcall.service.accounts import routes as accounts_routes
from farcall.service.accounts.authenticator import Authenticator
from farcall.service.accounts.authority import BrokerAuthority
from farcall.service.accounts.passwords import Passwords
from farcall.service.accounts.store import ensure_secret
from farcall.service.accounts.throttle import Attempts, Throttle
from farcall.service.accounts.watch import AccountsWatch
from farcall.service.admin import actions as admin_actions
from farcall.service.admin import routes as admin_routes
from farcall.service.cluster.process import Cluster
from farcall.service.cluster.signals import pack
from farcall.service.context import Service
from farcall.service.db.engine import Database
from farcall.service.db.upkeep import join_store, upgrade_store
from farcall.service.endpoints import listing as endpoints_listing
from farcall.service.endpoints import live_routes as endpoints_live
from farcall.service.endpoints import routes as endpoints_routes
from farcall.service.endpoints.live import Live
from farcall.service.endpoints.online import OnlineHere, OnlineSomewhere
from farcall.service.factors import routes as factors_routes
from farcall.service.functions import listing_routes as function_listing_routes
from farcall.service.functions import routes as functions_routes
from farcall.service.history import routes as history_routes
from farcall.service.history.recorder import Recorder
from farcall.service.ids import new_id
from farcall.service.login import once as once_routes
from farcall.service.login import routes as login_routes
from farcall.service.login.links import LoginLinks
from farcall.service.login.store import forget_sessions
from farcall.service.managers import routes as managers_routes
from farcall.service.oauth import routes as oauth_routes
from farcall.service.oauth.keys import SigningKeys
from farcall.service.oauth.store import forget_expired
from farcall.service.oidc import routes as oidc_routes
from farcall.service.oidc.login import OidcLogins
from farcall.service.ops import routes as ops_routes
from farcall.service.ops.health import Health
from farcall.service.ops.measures import Measures
from farcall.service.ops.queues import QueueLimit, StateCounts
from farcall.service.ops.rate import RateLimit
from farcall.service.policies import routes as policies_routes
from farcall.service.relay.attachments import Attachments
from farcall.service.relay.rabbit.address import broker_address
from farcall.service.relay.runner import Relay
from farcall.service.relay.sides import embedded_side, rabbitmq_side
from farcall.service.roles import Part, part_of
from farcall.service.settings import ServiceSettings
from farcall.service.tasks import listing_routes as task_listing_routes
from farcall.service.tasks import routes as tasks_routes
from farcall.service.tasks.replay import Replay
from farcall.service.tls import own_certificate
from farcall.service.usage import routes as usage_routes
from farcall.service.web.errors import install_error_handlers
from farcall.service.web.limits import BodyLimit
from farcall.service.web.openapi import install_openapi

__all__ = ["create_app", "open_service"]

_logger = logging.getLogger(__name__)
_KEPT_S = 7 * 24 * 3600.0
_PARTS = (
    tasks_routes,
    task_listing_routes,
    functions_routes,
    function_listing_routes,
    endpoints_routes,
    endpoints_listing,
    endpoints_live,
    history_routes,
    usage_routes,
    managers_routes,
    policies_routes,
    accounts_routes,
    login_routes,
    once_routes,
    factors_routes,
    oidc_routes,
    oauth_routes,
    ops_routes,
    admin_routes,
    admin_actions,
)


@contextlib.asynccontextmanager
async def open_service(settings: ServiceSettings, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Service]:
    """Everything but HTTP, as far as the role has it: the store is at its newest schema, the broker listens (RabbitMQ:
    is being connected to), the relay works.

    Args:
        clock: Unix seconds.

    Raises:
        SchemaTooNew: the database is of a newer release.
        StoreError: the database does not let us in, or another service uses it.
        BrokerMisnamed: the setting `broker` is no URL of RabbitMQ. (That it does not answer is no fault.)
        CertificateUnusable, NotProtected: see `tls.own_certificate`.
        RoleNeedsServers: the role is for several processes, and the store or the broker is not.
        OSError: the broker's port cannot be had.
    """
    certificate = own_certificate(settings)
    part = part_of(settings)
    rabbitmq = None if settings.broker is None else broker_address(settings.broker, settings.broker_management)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(settings.data_dir, 0o700)
    await asyncio.get_running_loop().run_in_executor(None, _migrate, settings.store_url, part)
    async with contextlib.AsyncExitStack() as closing:
        me = new_id()
        db = Database(settings.store_url, pack=partial(pack, sender=me) if part.has_others else None)
        closing.push_async_callback(db.close)
        secret = await db.write(ensure_secret)
        broker, measures = Broker(), Measures()
        side = (
            embedded_side(broker, settings, db, measures, clock)
            if rabbitmq is None
            else rabbitmq_side(
                rabbitmq, settings, db, takes_in=part.feeds, is_mine=lambda endpoint: relay.share.is_mine(endpoint)
            )
        )
        attachments = Attachments(db, clock) if part.has_others and part.feeds else None
        relay = Relay(settings, db, side, clock, measures, attachments=attachments, has_others=part.has_others)
        queue_limit = QueueLimit(db, settings.max_queued_tasks_per_endpoint, clock)
        closing.push_async_callback(queue_limit.stop)
        relay.on_ended = queue_limit.ended
        db.on_group = relay.measures.group_written
        recorder = Recorder(db, clock)
        closing.push_async_callback(recorder.stop)
        relay.onlookers.add(recorder)
        authenticator = Authenticator(db, clock, cache_s=settings.token_cache_s)
        cluster = _cluster(settings, me, relay, authenticator, queue_limit, part)
        if cluster is not None:
            cluster.start()
        relay.start()
        closing.push_async_callback(relay.stop)
        if cluster is not None:
            closing.push_async_callback(cluster.stop)
        if rabbitmq is None:
            authority = BrokerAuthority(db, secret, relay.ensure_queue)
            ssl = certificate.context if certificate is not None else None
            server = await serve(broker, authority, settings.host, settings.amqp_port, ssl)
            closing.push_async_callback(server.close)
        tidy = partial(_tidy, db, clock)
        watch = AccountsWatch(db, authenticator, relay, period_s=settings.accounts_check_s, tidy=tidy)
        await watch.start()
        closing.push_async_callback(watch.stop)
        passwords = Passwords()
        closing.callback(passwords.close)
        oidc = OidcLogins(settings.oidc, secret, clock)
        closing.push_async_callback(oidc.close)
        online = OnlineSomewhere(db, clock) if part.has_others else OnlineHere(relay.reports)
        live = Live(
            db, online, queue_limit, has_others=part.has_others, waiters_limit=settings.live_waiters_per_identity
        )
        relay.onlookers.add(live)
        closing.push_async_callback(live.drain)
        service = Service(
            settings=settings,
            db=db,
            relay=relay,
            online=online,
            live=live,
            recorder=recorder,
            authenticator=authenticator,
            watch=watch,
            passwords=passwords,
            links=LoginLinks(clock),
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
            health=Health(db, relay, cluster),
            state_counts=StateCounts(db),
            secret=secret,
            amqp_port=server.port if rabbitmq is None else rabbitmq.port,
            certificate=certificate,
            rabbitmq=rabbitmq,
            clock=clock,
            started_at=clock(),
            cluster=cluster,
        )
        relay.starts.begin(lambda user, host: service.broker_url(user, host or settings.host))
        yield service


def _cluster(
    settings: ServiceSettings,
    me: str,
    relay: Relay,
    authenticator: Authenticator,
    queue_limit: QueueLimit,
    part: Part,
) -> Cluster | None:
    """What joins this process to the others; None if it is the only one."""
    if not part.has_others:
        return None
    return Cluster(
        settings.store_url,
        me,
        relay,
        feeds=part.feeds,
        forget=authenticator.forget,
        counted=queue_limit.submitted,
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
    for router in _routers(part_of(settings)):
        app.include_router(router)
    install_error_handlers(app)
    install_openapi(app, [shape for part in _PARTS for shape in part.SHAPES])
    app.add_middleware(BodyLimit, limit_bytes=settings.request_limit_bytes)
    return app


def _routers(part: Part) -> list[APIRouter]:
    whole = [*(each.router for each in _PARTS), rabbitmq_routes.router]
    if part.serves:
        return whole
    own = APIRouter()
    own.routes.extend(route for router in whole for route in router.routes if part.answers(getattr(route, "path", "")))
    return [own]


async def _tidy(db: Database, clock: Callable[[], float]) -> None:
    """Forget logins, codes and tokens that have been over for a while."""
    await db.write(forget_expired, clock(), _KEPT_S)
    await db.write(forget_sessions, clock())


def _migrate(url: str, part: Part) -> None:
    if join_store(url) if part.has_others else upgrade_store(url):
        _logger.info("The database schema was brought up to date", extra={"event": "db.migrated"})
