"""The browser that sends a request: is it logged in, does that do, and how it becomes so."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from farcall.service.audit.rules import NOBODY, Actor
from farcall.service.context import Service, service_of
from farcall.service.login.policies import unmet_policies
from farcall.service.login.rules import (
    Session,
    Unmet,
    demand_of_query,
    login_after,
    to_come_back_to,
    unmet_demand,
)
from farcall.service.login.store import Proof, find_session, log_in_browser
from farcall.service.web.csrf import new_cookie
from farcall.service.web.pages import client_address, cookie_name, redirect, set_cookie

__all__ = ["SESSION_COOKIE", "actor_of_request", "finish_login", "login_redirect", "session_of", "unmet_of"]

SESSION_COOKIE = "farcall_session"


async def session_of(request: Request) -> Session | None:
    """The login of the browser; None if it is not logged in."""
    cookie = session_cookie(request)
    if cookie is None:
        return None
    service = service_of(request)
    return await service.db.read(find_session, cookie, service.clock())


def session_cookie(request: Request) -> str | None:
    value = request.cookies.get(cookie_name(request, SESSION_COOKIE))
    return value if value and len(value) <= 100 else None


async def unmet_of(service: Service, session: Session | None, query: Mapping[str, str]) -> Unmet | None:
    """Why the login does not do for a request with these parameters; None if it does."""
    demand = demand_of_query(query)
    if session is None:
        name = next((each for each in demand.identities if "@" in each), None)
        return Unmet(text="", username=name, mfa=bool(demand.mfa))
    unmet = unmet_demand(demand, session, login_after(query))
    if unmet is None and demand.policies:
        unmet = await service.db.read(unmet_policies, demand.policies, session, service.clock())
    return unmet


def login_redirect(service: Service, path: str, query: str, unmet: Unmet) -> Response:
    """To the login page, whoever is logged in now, and from there back to this request."""
    prompt = dict(parse_qsl(query)).get("prompt", "")
    here = f"{path}?{query}" if query else path
    if "login" in prompt.split():
        here = to_come_back_to(here, service.clock())
    values = {"next": here, "again": "1"}
    if unmet.username:
        values["username"] = unmet.username
    return redirect(f"/login?{urlencode(values)}")


async def finish_login(request: Request, proof: Proof, next: str) -> Response:
    """Somebody has proved who they are: log their browser in and lead on.

    Args:
        next: as `safe_next` lets through.

    Raises:
        Forbidden: the account is disabled.
    """
    service = service_of(request)
    cookie = new_cookie()
    lifetime_s = service.settings.login_s
    await service.db.write(
        log_in_browser, cookie, proof, session_cookie(request), lifetime_s, actor_of_request(request), service.clock()
    )
    response = redirect(next)
    set_cookie(request, response, SESSION_COOKIE, cookie, lifetime_s)
    return response


def actor_of_request(request: Request, session: Session | None = None) -> Actor:
    """Who is recorded for what this browser does."""
    if session is None:
        return Actor(id=None, name=NOBODY.name, address=client_address(request))
    return Actor(id=session.person_id, name=session.person_name, address=client_address(request))


def query_of(path_and_query: str) -> Mapping[str, str]:
    """The parameters of a path."""
    return dict(parse_qsl(urlsplit(path_and_query).query, keep_blank_values=True))
