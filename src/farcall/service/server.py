"""Serves one service over HTTP, on the running event loop. Signals, logs and files are the caller's business."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import ssl as tls
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from farcall.service.app import create_app, open_service
from farcall.service.context import Service
from farcall.service.ports import cannot_listen, listen
from farcall.service.settings import ServiceSettings
from farcall.service.sources import SettingsError

__all__ = ["Front", "HttpServer", "RunningService", "running_service"]

Front = Callable[[FastAPI], AbstractAsyncContextManager[ASGIApp]]
"""Puts something before the interface (the web console), for as long as the service answers."""


@runtime_checkable
class _Leaves(Protocol):
    """A front that has something to end before the service stops to answer."""

    async def leave(self) -> None: ...


_KEEP_ALIVE_S = 75
"""Longer than our client keeps a connection, so that it is the client who lets go: it cannot know better."""
_GRACE_S = 10
_WEBSOCKET_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RunningService:
    """A service that answers.

    Attributes:
        port: of HTTP.
        url: by which processes of this machine reach it.
    """

    service: Service
    port: int
    url: str


class HttpServer:
    """uvicorn without its signal handlers and its ten wake-ups a second.

    Args:
        sock: bound; closed by `stop`.
        ssl: for HTTPS.
        trusted_proxies: addresses and networks whose `X-Forwarded-…` count.
        has_websockets: whether there is anybody who takes them.
    """

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        ssl: tls.SSLContext | None = None,
        trusted_proxies: Sequence[str] = (),
        *,
        has_websockets: bool = False,
    ) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws=_websocket if has_websockets else "none",  # type: ignore[arg-type]  # is called, like a class
            ws_max_size=_WEBSOCKET_LIMIT_BYTES,
            ws_ping_interval=None,  # who is behind asks in its own protocol
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
        )
        config.load()
        config.ssl = ssl
        self._sock = sock
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)

    async def start(self) -> None:
        await self._server.startup(sockets=[self._sock])

    async def stop(self) -> None:
        """Accept nothing more, and let the requests that are here finish."""
        await self._server.shutdown(sockets=[self._sock])


def _websocket(*args: Any, **kwargs: Any) -> Any:  # uvicorn's protocol class, loaded when the first one comes
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(*args, **kwargs)


@contextlib.asynccontextmanager
async def running_service(settings: ServiceSettings, front: Front | None = None) -> AsyncIterator[RunningService]:
    """A service with its HTTP server; stopped in order at the end: requests, broker, relay, store.

    Args:
        front: what stands before the interface; None: nothing does.

    Raises:
        CannotListen: one of the two ports cannot be had.
        SchemaTooNew: the database is of a newer release.
        CertificateUnusable, NotProtected: see `tls.own_certificate`.
        SettingsError: `trusted_proxies` names something else than addresses.
    """
    _networks(settings.trusted_proxies)
    sock = listen("HTTP", settings.host, settings.port, "--port")
    async with contextlib.AsyncExitStack() as closing:
        closing.callback(sock.close)
        try:
            service = await closing.enter_async_context(open_service(settings))
        except OSError as exc:
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            raise cannot_listen(exc, "the message broker", settings.host, settings.amqp_port, "--amqp-port") from exc
        ssl = service.certificate.context if service.certificate is not None else None
        api = create_app(settings, service)
        app: ASGIApp = api if front is None else await closing.enter_async_context(front(api))
        proxies = _networks(settings.trusted_proxies)
        server = HttpServer(app, sock, ssl, proxies, has_websockets=front is not None)
        port: int = sock.getsockname()[1]
        await server.start()
        closing.push_async_callback(server.stop)
        closing.callback(service.live.stop)  # who waits for news is answered now
        if isinstance(app, _Leaves):
            closing.push_async_callback(app.leave)
        name = _local_name(settings.host)
        if service.certificate is not None:
            name = settings.public_host or _certified_name(name, service.certificate.certificate.names)
        scheme = "http" if ssl is None else "https"
        yield RunningService(service=service, port=port, url=f"{scheme}://{name}:{port}")


def _local_name(host: str) -> str:
    if host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::"):  # compared, not bound
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _certified_name(wanted: str, names: Sequence[str]) -> str:
    """By which this machine's processes reach us without complaint: `wanted` if the certificate is for it, too."""
    if wanted in names:
        return wanted
    return next((name for name in names if "*" not in name and ":" not in name), wanted)


def _networks(texts: Sequence[str]) -> list[str]:
    try:
        return [str(ipaddress.ip_network(text, strict=False)) for text in texts]
    except ValueError as exc:
        raise SettingsError(f"'trusted_proxies' must name addresses or networks (10.0.0.0/8): {exc}.") from exc
