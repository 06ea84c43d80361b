"""Browsers on their way to a provider and back: to log in, or to make another identity one's own. No scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.context import Service, service_of
from farcall.service.login.rules import Session, is_lately, login_after, safe_next
from farcall.service.login.session import SESSION_COOKIE, actor_of_request, finish_login, query_of, session_of, unmet_of
from farcall.service.login.store import Proof
from farcall.service.oidc.login import COOKIE_PREFIX, Finished
from farcall.service.oidc.rules import PENDING_S, LoginRefused, OidcPerson, PersonRefused, ProviderUnavailable
from farcall.service.oidc.store import link, person_of, receive, unlink
from farcall.service.web.pages import base_url, checked_form, client_address, page, redirect, set_cookie
from farcall.service.web.sealed import seal, unseal
from farcall.wire.errors import ApiError, Forbidden, NotFound

__all__ = ["SHAPES", "router"]

router: Final = APIRouter(include_in_schema=False)
SHAPES: Final = ()

_COOKIE_PATH: Final = "/login/oidc"
_TABS: Final = 4
"""So many logins may be under way in one browser."""
_LINK: Final = "oidc-link"
_LINK_S: Final = 600.0


# --- To the provider and back ------------------------------------------------------------------------------------


@router.get("/login/oidc/callback")
async def get_callback(request: Request) -> Response:
    service = service_of(request)
    try:
        finished = await service.oidc.finish(dict(request.query_params), request.cookies)
        response = await (_offer_link(request, finished) if finished.link_session else _enter(request, finished))
    except (Forbidden, ProviderUnavailable) as exc:
        if isinstance(exc, PersonRefused):  # others cost nothing to make, and must not fill the table
            await service.db.write(_put_refusal, client_address(request), str(exc), service.clock())
        return _message(request, exc)
    response.delete_cookie(finished.cookie, path=_COOKIE_PATH)
    return response


@router.get("/login/oidc/{provider}")
async def get_login(provider: str, request: Request) -> Response:
    service = service_of(request)
    next = safe_next(request.query_params.get("next"))
    query = query_of(next)
    session = await session_of(request)
    unmet = await unmet_of(service, session, query)
    # Whoever is logged in and still sent here must prove themselves anew; so must who has to satisfy a demand.
    is_fresh = unmet is not None and (
        session is not None or unmet.mfa or login_after(query) is not None or "session_required_policies" in query
    )
    return await _begin(
        request,
        provider,
        next=next,
        max_age_s=0 if is_fresh else None,
        prompt=request.query_params.get("again") == "1",
        wants_mfa=unmet is not None and unmet.mfa,
        hint=unmet.username if unmet else None,
    )


async def _begin(request: Request, provider: str, **wishes: Any) -> Response:
    service = service_of(request)
    try:
        begun = await service.oidc.begin(provider, redirect_uri=f"{base_url(request)}/login/oidc/callback", **wishes)
    except (NotFound, ProviderUnavailable) as exc:
        return _message(request, exc)
    response = redirect(begun.url)
    begun_before = [name for name in request.cookies if name.startswith(COOKIE_PREFIX)]
    for name in begun_before[:-_TABS]:  # given up; a header with all of them would be refused one day
        response.delete_cookie(name, path=_COOKIE_PATH)
    response.set_cookie(
        begun.cookie,
        begun.value,
        max_age=int(PENDING_S),
        path=_COOKIE_PATH,
        httponly=True,
        samesite="lax",  # it must come along when the provider sends the browser back
        secure=request.url.scheme == "https",
    )
    return response


async def _enter(request: Request, finished: Finished) -> Response:
    service, person = service_of(request), finished.person
    entered = await service.db.write(
        receive, person, _reserved(service), client_address(request), service.clock(), savepoint=True
    )
    return await finish_login(request, _proof(person, entered.identity_id), safe_next(finished.next))


# --- Linking -----------------------------------------------------------------------------------------------------


@router.get("/account/link/{provider}")
async def get_link(provider: str, request: Request) -> Response:
    session = await session_of(request)
    if session is None or not is_lately(session, service_of(request).clock()):
        return _log_in_again()
    return await _begin(request, provider, next="/account", link_session=session.id, prompt=True)


async def _offer_link(request: Request, finished: Finished) -> Response:
    """Ask before anything is joined: who came back may not be whom the person in front of the browser thinks."""
    service, session = service_of(request), await session_of(request)
    if session is None or session.id != finished.link_session:
        raise LoginRefused("The login that you wanted to add an identity to has ended meanwhile. Begin again.")
    person = finished.person
    owner = await service.db.read(person_of, person.issuer, person.subject)
    if owner == session.person_id:  # it is theirs already; then this was just a login
        return await _enter(request, finished)
    document = {"person": asdict(person), "session": session.id}
    return page(
        request,
        service.secret,
        "link.html",
        mine=session.person_name,
        theirs=person.username,
        provider=service.oidc.label(person.provider),
        is_known=owner is not None,
        sealed=seal(service.secret, _LINK, document, expires_at=service.clock() + _LINK_S),
    )


@router.post("/account/link")
async def post_link(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    session, now = await session_of(request), service.clock()
    document = unseal(service.secret, _LINK, form.get("sealed"), now=now)
    if session is None or document is None or document["session"] != session.id:
        return _log_in_again()
    person = OidcPerson(**{**document["person"], "amr": tuple(document["person"]["amr"])})
    try:
        identity_id = await service.db.write(
            _link, person, _reserved(service), session, actor_of_request(request, session), now, savepoint=True
        )
    except LoginRefused as exc:
        return _message(request, exc, "Nothing was changed")
    service.authenticator.forget()
    return await finish_login(request, _proof(person, identity_id), "/account")


@router.post("/account/unlink")
async def post_unlink(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    session, now = await session_of(request), service.clock()
    if session is None or not is_lately(session, now):
        return _log_in_again()
    actor = actor_of_request(request, session)
    await service.db.write(unlink, session.person_id, form.get("identity_id", "")[:36], actor, now)
    service.authenticator.forget()
    response = redirect("/login")
    set_cookie(request, response, SESSION_COOKIE, "", 0)
    return response


def _link(conn: Any, person: OidcPerson, reserved: frozenset[str], session: Session, actor: Actor, now: float) -> str:
    entered = receive(conn, person, reserved, actor.address, now)
    link(conn, session.person_id, entered.person_id, actor, now)
    return entered.identity_id


# --- Helpers -----------------------------------------------------------------------------------------------------


def _proof(person: OidcPerson, identity_id: str) -> Proof:
    return Proof(
        identity_id=identity_id, mfa=person.mfa, provider=person.provider, acr=person.acr, amr=person.amr, at=person.at
    )


def _reserved(service: Service) -> frozenset[str]:
    """Domains of names that are given out here: of local accounts, and of the operator on this machine."""
    return frozenset({service.settings.local_domain.lower(), "localhost"})


def _log_in_again() -> Response:
    return redirect(f"/login?{urlencode({'next': '/account', 'again': '1'})}")


def _message(request: Request, exc: ApiError, title: str = "You are not logged in") -> Response:
    return page(
        request,
        service_of(request).secret,
        "message.html",
        exc.http_status,
        title=title,
        text=str(exc),
        bad=True,
        links=[{"url": "/login?again=1", "label": "Back to the login"}],
    )


def _put_refusal(conn: Any, address: str | None, reason: str, now: float) -> None:
    actor = Actor(id=None, name="(unknown)", address=address)
    record(conn, actor, "login", "user", None, at=now, outcome="refused", detail={"reason": reason[:300]})
