"""Stands before the interface: what is the console's goes to the console, everything else through, untouched.

A page is for somebody who is logged in; others are sent to the login before NiceGUI is even loaded. Web sockets count
only from our own pages (`Origin`), from a browser with a login (the cookie), and for a page that this very login was
shown (`client_id`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farcall.console.headers import NONCE, page_headers
from farcall.console.login import Login, login_path
from farcall.console.sessions import Session, Sessions
from farcall.wire.errors import NotFound

if TYPE_CHECKING:
    from farcall.console.gui import Gui

__all__ = ["SESSION", "Console", "ConsoleSettings", "console_front"]

_logger = logging.getLogger(__name__)

SESSION: Final = "farcall_console_session"
"""Name of the login in a request's scope."""
_SECTIONS: Final = frozenset({"compute", "tasks", "functions", "console", "policies", "usage", "operator"})
_ASSETS: Final = frozenset({"_nicegui", "_nicegui_ws", "favicon.ico"})
_STATIC: Final = Path(__file__).parent / "static"
_KINDS: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """What the process that runs the service decides.

    Attributes:
        lifetime_s: a login to the console ends after so long.
        answers: whether the interface answers this path to others than the console.
    """

    lifetime_s: float
    answers: Callable[[str], bool] = lambda _path: True


@contextlib.asynccontextmanager
async def console_front(api: ASGIApp, settings: ConsoleSettings) -> AsyncIterator[ASGIApp]:
    """The console before `api`, until the end of the block."""
    console = Console(api, settings)
    try:
        yield console
    finally:
        await console.close()


class Console:
    """An ASGI application around another one.

    Args:
        api: the interface.
    """

    def __init__(self, api: ASGIApp, settings: ConsoleSettings) -> None:
        self._api = api
        self._settings = settings
        self.sessions = Sessions()
        self._login = Login(api, self.sessions, lifetime_s=settings.lifetime_s)
        self._gui: Gui | None = None
        self._starting = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] != "http" or not _is_ours(path):
            if scope["type"] == "http" and not self._settings.answers(path):
                await _no_interface(path)(scope, receive, send)
                return
            await self._api(scope, receive, send)
        elif path in self._login.pages and scope["method"] in ("GET", "HEAD"):
            await (await self._login.pages[path](Request(scope, receive)))(scope, receive, send)
        elif path == "/":
            await RedirectResponse("/compute", 303)(scope, receive, send)
        elif path.rstrip("/") == "/console":
            await RedirectResponse("/console/compute", 303)(scope, receive, send)
        elif path.startswith("/console/static/"):
            await _static(path)(scope, receive, send)
        elif path_section(path) in _SECTIONS and path != _plain(path):
            await RedirectResponse(_with_query(scope, quote(_plain(path))), 303)(scope, receive, send)
        else:
            await self._page(scope, receive, send)

    async def leave(self) -> None:
        """The service is about to stop: end every login, so that nothing of any page asks it any more. Their tokens
        stay what they are: short-lived, and forgotten.
        """
        await self.sessions.end_all()

    async def close(self) -> None:
        """End every login, and the pages that are open."""
        await self.leave()
        if self._gui is not None:
            await self._gui.stop()

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        session = self._session(connection)
        is_asset = path_section(scope["path"]) in _ASSETS
        if session is None:
            if is_asset and self._gui is not None and path_section(scope["path"]) != "_nicegui_ws":
                await self._gui.app(scope, receive, send)
            elif is_asset:
                await Response(status_code=404)(scope, receive, send)
            else:
                target = login_path(_with_query(scope, scope["path"]))
                await RedirectResponse(target, 303, {"cache-control": "no-store"})(scope, receive, send)
            return
        if path_section(scope["path"]) == "_nicegui_ws":  # long polling: browsers of today have web sockets
            await Response(status_code=404)(scope, receive, send)
            return
        gui = await self._started()
        nonce = secrets.token_urlsafe(16)
        inner = {**_without_prefix(scope), SESSION: session, NONCE: nonce}
        await gui.app(inner, receive, send if is_asset else _with_headers(send, nonce))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        session = self._session(connection)
        client_id = parse_qs(scope.get("query_string", b"").decode(errors="replace")).get("client_id", [""])[0]
        if (
            path_section(scope["path"]) != "_nicegui_ws"
            or session is None
            or self._gui is None
            or not _is_same_origin(connection)
            or not self._gui.is_page_of(client_id, session)
        ):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._gui.app({**_without_prefix(scope), SESSION: session}, receive, send)

    def _session(self, connection: HTTPConnection) -> Session | None:
        return self._login.session_of(connection.url.scheme, connection.cookies)

    async def _started(self) -> Gui:
        if self._gui is not None:
            return self._gui
        async with self._starting:
            if self._gui is None:
                loop = asyncio.get_running_loop()
                gui_class = await loop.run_in_executor(None, _load)
                gui: Gui = gui_class(self.sessions)
                await gui.start()
                self._gui = gui
                _logger.info("The console has been loaded", extra={"event": "console.loaded"})
            return self._gui


def path_section(path: str) -> str:
    """The first part of a path."""
    return path.lstrip("/").partition("/")[0]


def _plain(path: str) -> str:
    """One address of each page: without slashes at the end, and with one in front, so that it names no other host."""
    return "/" + path.strip("/")


def _with_query(scope: Scope, path: str) -> str:
    return path + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")


def _is_ours(path: str) -> bool:
    return path == "/" or path_section(path) in _SECTIONS | _ASSETS


def _load() -> Any:  # the class Gui, which drags NiceGUI along
    from farcall.console.gui import Gui

    return Gui


def _is_same_origin(connection: HTTPConnection) -> bool:
    """Browsers always say where a page that opens a web socket comes from."""
    origin = urlsplit(connection.headers.get("origin", ""))
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return (origin.scheme, origin.netloc.lower()) == (scheme, connection.url.netloc.lower())


def _without_prefix(scope: Scope) -> Scope:
    """NiceGUI believes anybody's X-Forwarded-Prefix; no proxy of ours sends one."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-prefix"]
    return {**scope, "headers": headers}


def _with_headers(send: Send, nonce: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in page_headers(nonce).items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


def _static(path: str) -> Response:
    name = path.removeprefix("/console/static/")
    file = next((each for each in _STATIC.iterdir() if each.name == name and each.suffix in _KINDS), None)
    if file is None:
        return Response(status_code=404)
    headers = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff"}
    return Response(file.read_bytes(), 200, headers, _KINDS[file.suffix])


def _no_interface(path: str) -> Response:
    error = NotFound(f"This process shows the console; {path[:200]} is answered by those with `--role api`.")
    return Response(json.dumps(error.to_document()), 404, media_type="application/json")
