"""Logging in to the console, and out: the console is an OAuth client of the service that it is part of.

`/console/login` sends the browser to the service's own login, `/console/callback` takes the code that it comes back
with; the tokens stay in `sessions`. `/console/logged-out` is where a logout leads.
"""

from __future__ import annotations

import html
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from farcall.console.api import Api
from farcall.console.flow import authorization_path, id_claims, passed_on, returned, safe_next
from farcall.console.sessions import Session, Sessions
from farcall.wire.auth import AUTH_SERVER, CONSOLE_CALLBACK_PATH, CONSOLE_CLIENT_ID
from farcall.wire.errors import ApiError

__all__ = ["Login", "cookie_name", "log_out", "login_path", "refusal_page"]

_logger = logging.getLogger(__name__)
_SESSION: Final = "farcall_console"
_BROWSER: Final = "farcall_console_browser"
_HEADERS: Final = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
_PAGE_HEADERS: Final = {
    **_HEADERS,
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def login_path(next: str, **demands: str) -> str:
    """Where somebody logs in and comes back to `next`.

    Args:
        demands: what the login has to satisfy, as in the query of the authorization request.
    """
    return f"/console/login?{urlencode({'next': next, **demands})}"


def cookie_name(scheme: str, name: str = _SESSION) -> str:
    """With the prefix that has browsers refuse such a cookie from elsewhere, where they can (https, wss)."""
    return f"__Host-{name}" if scheme in ("https", "wss") else name


async def log_out(session: Session) -> None:
    """Its tokens count no more, and neither does the login of the browser that they came from."""
    for token in session.tokens:
        try:
            await session.api.form("/v2/oauth2/token/revoke", {"token": token, "client_id": CONSOLE_CLIENT_ID})
        except ApiError:
            _logger.warning("A token could not be revoked", exc_info=True, extra={"event": "console.revoke_failed"})


def refusal_page(error: ApiError, next: str) -> Response:
    """That a login was not accepted, though it is new; with a way to try again."""
    return _message(403, "The service does not accept this login", str(error)[:500], (login_path(next), "Try again"))


class Login:
    """The pages of it.

    Args:
        api: the interface.
        lifetime_s: a login to the console ends after so long, or with its token.
        clock: Unix seconds.
    """

    def __init__(
        self, api: ASGIApp, sessions: Sessions, *, lifetime_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._sessions = sessions
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self.pages: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
            "/console/login": self.begin,
            CONSOLE_CALLBACK_PATH: self.come_back,
            "/console/logged-out": self.logged_out,
        }

    def session_of(self, scheme: str, cookies: Mapping[str, str]) -> Session | None:
        return self._sessions.find(cookies.get(cookie_name(scheme)))

    async def begin(self, request: Request) -> Response:
        """GET /console/login"""
        browser = request.cookies.get(cookie_name(request.url.scheme, _BROWSER)) or ""
        is_new = not 20 <= len(browser) <= 100
        browser = secrets.token_urlsafe(32) if is_new else browser
        path = authorization_path(
            self._key,
            browser,
            base=_base(request),
            next=safe_next(request.query_params.get("next")),
            demands=passed_on(request.query_params),
            now=self._clock(),
        )
        response = RedirectResponse(path, 303, _HEADERS)
        if is_new:
            _set_cookie(request, response, _BROWSER, browser, None)
        return response

    async def come_back(self, request: Request) -> Response:
        """GET /console/callback"""
        query = request.query_params
        browser = request.cookies.get(cookie_name(request.url.scheme, _BROWSER))
        back = returned(self._key, browser, query.get("state", "")[:8000], self._clock())
        if back is None:
            return _message(
                400,
                "The login does not fit",
                "It was begun in another browser, or too long ago, or this browser keeps no cookies for this address.",
                ("/console/login", "Log in"),
            )
        again = ("/console/login?" + urlencode({"next": back.next}), "Try again")
        if query.get("error") or not query.get("code"):
            text = query.get("error_description") or query.get("error") or "The service sent no code."
            return _message(403, "Not logged in", text[:500], again)
        address = request.client.host if request.client else "127.0.0.1"
        try:
            session, lifetime_s = await self._exchange(_base(request), address, query["code"], back.verifier)
        except ApiError as exc:
            return _message(403, "Not logged in", str(exc)[:500], again)
        old = self.session_of(request.url.scheme, request.cookies)
        if old is not None:
            self._sessions.end(old)
        cookie = self._sessions.begin(session, lifetime_s)
        # Its path is the same for all, so that the address bar tells a page and no code.
        response = RedirectResponse(back.next, 303, _HEADERS)
        _set_cookie(request, response, _SESSION, cookie, lifetime_s)
        return response

    async def logged_out(self, request: Request) -> Response:
        """GET /console/logged-out"""
        response = _message(
            200,
            "Logged out",
            "This browser is logged out. Programs that you let in stay logged in.",
            ("/compute", "Log in again"),
        )
        if self.session_of(request.url.scheme, request.cookies) is None:
            _set_cookie(request, response, _SESSION, "", 0)
        return response

    async def _exchange(self, base: str, address: str, code: str, verifier: str) -> tuple[Session, float]:
        api = Api(self._api, base=base, address=address)
        fields = {
            "grant_type": "authorization_code",
            "client_id": CONSOLE_CLIENT_ID,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": base + CONSOLE_CALLBACK_PATH,
        }
        answer = await api.form("/v2/oauth2/token", fields)
        others = {each["resource_server"]: each["access_token"] for each in answer.get("other_tokens", [])}
        token, projects = answer["access_token"], others.get(AUTH_SERVER, answer["access_token"])
        api.with_token(token)
        claims = id_claims(answer["id_token"])
        session = Session(
            username=str(claims.get("preferred_username", "")),
            name=str(claims.get("name") or claims.get("preferred_username", "")),
            identity_id=str(claims["sub"]),
            is_operator=await _is_operator(api),
            base=base,
            tokens=tuple({token, projects, *others.values()}),
            api=api,
            projects=Api(self._api, base=base, address=address, token=projects),
            began_at=self._clock(),
        )
        return session, min(float(answer.get("expires_in") or self._lifetime_s), self._lifetime_s)


async def _is_operator(api: Api) -> bool:
    try:
        return "tasks" in await api.get("/v3/service")
    except ApiError:
        return False


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _set_cookie(request: Request, response: Response, name: str, value: str, lifetime_s: float | None) -> None:
    scheme = request.url.scheme
    response.set_cookie(
        cookie_name(scheme, name),
        value,
        max_age=None if lifetime_s is None else int(lifetime_s),
        path="/",
        httponly=True,
        samesite="lax",
        secure=scheme == "https",
    )


def _message(status: int, title: str, text: str, link: tuple[str, str]) -> Response:
    """A page without scripts, in the look of the login."""
    url, label = link
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)} - Farcall</title><link rel="stylesheet" href="/static/farcall.css"></head>'
        f'<body><main><h1>{html.escape(title)}</h1><p role="{"status" if status < 400 else "alert"}">'
        f"{html.escape(text)}</p>"
        f'<p><a href="{quote(url, safe="/?=&%")}">{html.escape(label)}</a></p></main></body></html>'
    )
    return Response(body, status, dict(_PAGE_HEADERS), "text/html; charset=utf-8")
