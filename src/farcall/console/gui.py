"""NiceGUI as the console uses it: one per process, started with the first page and stopped with the service.

Loaded late. Everything that depends on how NiceGUI works inside is here (and in `headers.nonced`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Callable
from typing import Any, Final

# Before the import: NiceGUI keeps nothing of ours on disk, but decides at import where it would.
os.environ.setdefault("NICEGUI_STORAGE_PATH", os.path.join(tempfile.gettempdir(), "farcall-console-unused"))

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from jinja2 import BaseLoader, Environment
from nicegui import client as nicegui_client
from nicegui import core, ui
from nicegui.client import Client
from starlette.types import ASGIApp

from farcall.console.headers import nonced
from farcall.console.page import register
from farcall.console.pages import all_pages
from farcall.console.sessions import Session, Sessions

__all__ = ["Gui"]

_RECONNECT_S: Final = 30.0
"""A page whose browser was away for less goes on where it was."""
_EVENTS: Final = ("event", "javascript_response", "ack")

_is_prepared = False
_owner: Gui | None = None


class Gui:
    """The pages.

    Raises:
        RuntimeError: another service of this process has a console that is open: NiceGUI is one per process.
    """

    def __init__(self, sessions: Sessions) -> None:
        global _owner
        if _owner is not None:
            raise RuntimeError("Another service in this process shows the console already.")
        _owner = self
        self._sessions = sessions
        self._lifespan: contextlib.AbstractAsyncContextManager[Any] | None = None
        self._outer = _prepared()
        self.app: ASGIApp = core.app

    async def start(self) -> None:
        self._lifespan = self._outer.router.lifespan_context(self._outer)
        await self._lifespan.__aenter__()
        gc.collect()
        gc.freeze()  # what was loaded is here to stay

    async def stop(self) -> None:
        global _owner
        for client in list(Client.instances.values()):
            client.delete()
        if self._lifespan is not None:
            await self._lifespan.__aexit__(None, None, None)
        _owner = None

    def is_page_of(self, client_id: str, session: Session) -> bool:
        """Whether this page was shown to this login."""
        from farcall.console.app import SESSION

        client = Client.instances.get(client_id)
        return client is not None and client.request.scope.get(SESSION) is session


def _prepared() -> FastAPI:
    """Set NiceGUI up, once per process."""
    global _is_prepared, _outer
    if _is_prepared:
        return _outer
    _outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        _outer,
        title="Farcall",
        language="en-US",
        dark=None,
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT_S,
        message_history_length=100,
        gzip_middleware_factory=_gzip,
        tailwind=False,
        show_welcome_message=False,
    )
    core.app.config.socket_io_js_transports = ["websocket"]
    core.sio.eio.cors_allowed_origins = []  # same origin alone; `app` has looked already
    _listen_to_own_page_only()
    nicegui_client.templates.env.loader = _Nonced(nicegui_client.templates.env.loader)
    for page in all_pages():
        register(page)
    _is_prepared = True
    return _outer


_outer: FastAPI


def _gzip(app: ASGIApp) -> GZipMiddleware:
    return GZipMiddleware(app, minimum_size=1000, compresslevel=5)


def _listen_to_own_page_only() -> None:
    """A socket speaks for the page that it was opened for, whatever page its messages name."""
    handlers: dict[str, Callable[..., Any]] = core.sio.handlers["/"]
    for name in _EVENTS:
        core.sio.on(name, _guarded(handlers[name]))
    core.sio.on("log", lambda _sid, _message: None)  # browsers do not write into our log


def _guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(sid: str, message: Any) -> Any:
        client_id = message.get("client_id") if isinstance(message, dict) else None
        if isinstance(client_id, str) and client_id in core.sio.rooms(sid):
            return handler(sid, message)
        return None

    return guarded


class _Nonced(BaseLoader):
    """NiceGUI's templates, with a nonce on their scripts."""

    def __init__(self, plain: BaseLoader | None) -> None:
        assert plain is not None
        self._plain = plain

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        source, filename, is_fresh = self._plain.get_source(environment, template)
        return nonced(source), filename, is_fresh
