"""The pages of the login itself: log in, choose a password, the account, log out. No scripts anywhere."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.passwords import SHORTEST_PASSWORD, why_weak
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.context import Service, service_of
from farcall.service.login.rules import Pending, Session, account_key, pending_text, read_pending, safe_next
from farcall.service.login.session import (
    SESSION_COOKIE,
    actor_of_request,
    finish_login,
    query_of,
    session_of,
    unmet_of,
)
from farcall.service.login.store import Proof, end_session, local_account_of_person, set_password_hash
from farcall.service.login.ways import Way, next_step, other_ways
from farcall.service.oauth.store import grants_of
from farcall.service.users.rules import LocalAccount
from farcall.service.users.store import (
    find_local_account,
    find_people,
    local_account_of,
    set_password,
    void_logins,
)
from farcall.service.web.pages import (
    browser_of,
    checked_form,
    client_address,
    page,
    redirect,
    set_cookie,
    stylesheet,
)

__all__ = ["SHAPES", "router"]

router: Final = APIRouter(include_in_schema=False)
SHAPES: Final = ()

_WRONG: Final = "The user name or the password is wrong."


@router.get("/static/farcall.css")
async def get_stylesheet() -> Response:
    headers = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff"}
    return Response(stylesheet(), 200, headers, "text/css; charset=utf-8")


# --- Logging in --------------------------------------------------------------------------------------------------


@router.get("/login")
async def get_login(request: Request) -> Response:
    service, session = service_of(request), await session_of(request)
    next = safe_next(request.query_params.get("next"))
    query = query_of(next)
    unmet = await unmet_of(service, session, query)
    if session is not None and unmet is None and request.query_params.get("again") != "1":
        return redirect(next)
    message = unmet.text if unmet else ""
    username = request.query_params.get("username") or (unmet.username if unmet else "") or ""
    return _login_page(
        request,
        next,
        username=username[:255],
        message=message[:500],
        said=query.get("session_message", "")[:500],
        needs_factor=unmet is not None and unmet.mfa,
        again=session is not None,
    )


@router.post("/login")
async def post_login(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    next, name, password = safe_next(form.get("next")), form.get("username", "")[:255], form.get("password", "")
    address = client_address(request)
    key = account_key(name, service.settings.local_domain)
    wait_s = service.attempts.begin(key, address, service.clock())
    if wait_s:
        error = f"That were too many attempts. Wait {max(1, round(wait_s))} seconds, then try again."
        response = _login_page(request, next, 429, username=name, error=error)
        response.headers["retry-after"] = str(max(1, round(wait_s)))
        return response
    account = await service.db.read(find_local_account, name, service.settings.local_domain)
    checked = await service.passwords.check(account.password_hash if account else None, password)
    if account is None or not checked.is_right or account.is_disabled:
        await _record_failure(request, account)
        return _login_page(request, next, 403, username=name, error=_WRONG)
    service.attempts.succeeded(key, address)
    if checked.new_hash is not None:
        await service.db.write(set_password_hash, account.identity_id, checked.new_hash)
    pending = Pending(identity_id=account.identity_id, done=("password",), next=next, at=service.clock())
    return await go_on(request, account, pending)


async def go_on(request: Request, account: LocalAccount, pending: Pending, error: str = "") -> Response:
    """The next step of a login, or its end. `error`: what was wrong with the step as it was just tried."""
    service = service_of(request)
    step = next_step(account, pending.done)
    if step is None:
        return await finish_login(
            request, Proof(identity_id=account.identity_id, mfa="totp" in pending.done), pending.next
        )
    browser = browser_of(request) or ""
    return page(
        request,
        service.secret,
        f"{step}.html",
        400 if error else 200,
        pending=pending_text(service.secret, browser, pending),
        username=account.username,
        shortest=SHORTEST_PASSWORD,
        error=error,
    )


def begin_anew(request: Request, pending: Pending | None) -> Response:
    """A login whose steps do not fit together (any more): the first page again."""
    next = safe_next(pending.next if pending else None)
    return _login_page(request, next, 400, error="That took too long. Begin anew.")


@router.post("/login/new-password")
async def post_new_password(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    pending = read_pending(service.secret, browser_of(request), form.get("pending", ""), now=service.clock())
    account = await service.db.read(local_account_of, pending.identity_id) if pending else None
    if pending is None or account is None or account.is_disabled or next_step(account, pending.done) != "new-password":
        return begin_anew(request, pending)
    error = await _new_password_fault(service, account, form.get("password", ""), form.get("again", ""))
    if error:
        return await go_on(request, account, pending, error)
    await _set_password(request, account, form["password"])
    done = (*pending.done, "new-password")
    return await go_on(
        request, account, Pending(identity_id=account.identity_id, done=done, next=pending.next, at=pending.at)
    )


@router.get("/logout")
async def get_logout(request: Request) -> Response:
    return redirect("/account")


@router.post("/logout")
async def post_logout(request: Request) -> Response:
    service = service_of(request)
    await checked_form(request, service.secret)
    session = await session_of(request)
    if session is not None:
        await service.db.write(end_session, session.id, service.clock())
        service.watch.revoked(())
    response = page(
        request,
        service.secret,
        "message.html",
        title="Logged out",
        text="This browser is logged out. Programs that you let in stay logged in.",
        bad=False,
        links=[{"url": "/login", "label": "Log in again"}],
    )
    set_cookie(request, response, SESSION_COOKIE, "", 0)
    return response


# --- The account -------------------------------------------------------------------------------------------------


@router.get("/account")
async def get_account(request: Request) -> Response:
    session = await session_of(request)
    if session is None:
        return redirect("/login?next=/account")
    return await account_page(request, session)


async def account_page(
    request: Request, session: Session, status: int = 200, *, notice: str = "", error: str = ""
) -> Response:
    """The page about oneself."""
    service = service_of(request)
    linked = await service.db.read(find_people, (), (), session.person_id)
    grants = await service.db.read(grants_of, [each.id for each in linked], service.clock())
    person = next(each for each in linked if each.id == session.person_id)
    account = await service.db.read(local_account_of_person, session)
    shown = [{"label": each["label"], "since": _day(each["created_at"])} for each in grants]
    return page(
        request,
        service.secret,
        "account.html",
        status,
        person=person,
        linked=linked,
        labels={each.name: each.shown_as for each in service.oidc.providers},
        account=account,
        ways=[Way(label=each.shown_as, url=f"/account/link/{each.name}") for each in service.oidc.providers],
        grants=shown,
        notice=notice,
        error=error,
    )


@router.post("/account/password")
async def post_password(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    session = await session_of(request)
    account = await service.db.read(local_account_of_person, session) if session else None
    if session is None or account is None:
        return redirect("/login?next=/account")
    address = client_address(request)
    wait_s = service.attempts.begin(account.username, address, service.clock())
    if wait_s:
        error = f"That were too many attempts. Wait {max(1, round(wait_s))} seconds, then try again."
        return await account_page(request, session, 429, error=error)
    if not (await service.passwords.check(account.password_hash, form.get("old", ""))).is_right:
        await _record_failure(request, account)
        return await account_page(request, session, 403, error="The password that you have now is another one.")
    service.attempts.succeeded(account.username, address)
    error = await _new_password_fault(service, account, form.get("password", ""), form.get("again", ""))
    if error:
        return await account_page(request, session, 400, error=error)
    await _set_password(request, account, form["password"], stays=session)
    return await account_page(request, session, notice="The password was changed. Other browsers are logged out.")


@router.post("/account/revoke")
async def post_revoke(request: Request) -> Response:
    service = service_of(request)
    await checked_form(request, service.secret)
    session = await session_of(request)
    if session is None:
        return redirect("/login?next=/account")
    cuts = await service.db.write(_void_all, session, actor_of_request(request, session), service.clock())
    service.watch.revoked(cuts)
    response = redirect("/login")
    set_cookie(request, response, SESSION_COOKIE, "", 0)
    return response


# --- Helpers -----------------------------------------------------------------------------------------------------


def _login_page(
    request: Request,
    next: str,
    status: int = 200,
    *,
    username: str = "",
    message: str = "",
    said: str = "",
    needs_factor: bool = False,
    again: bool = False,
    error: str = "",
) -> Response:
    """Args: said: what the program wants to tell. needs_factor, again: see `login.html` and `other_ways`."""
    service = service_of(request)
    return page(
        request,
        service.secret,
        "login.html",
        status,
        host=request.url.netloc,
        ways=other_ways(service, next, again=again),
        next=next,
        said=said,
        needs_factor=needs_factor,
        username=username,
        message=message,
        error=error,
    )


async def _new_password_fault(service: Service, account: LocalAccount, password: str, again: str) -> str:
    """Why this cannot be the new password; empty if it can."""
    if password != again:
        return "The two passwords are not the same."
    reason = why_weak(password, account.username)
    if reason is not None:
        return f"The password {reason}."
    if (await service.passwords.check(account.password_hash, password)).is_right:
        return "The new password must be another one."
    return ""


async def _set_password(request: Request, account: LocalAccount, password: str, stays: Session | None = None) -> None:
    service = service_of(request)
    hashed = await service.passwords.hash(password)
    actor = Actor(id=account.identity_id, name=account.username, address=client_address(request))
    await service.db.write(_put_password, account, hashed, actor, stays, service.clock())


def _put_password(
    conn: Any, account: LocalAccount, hashed: str, actor: Actor, stays: Session | None, now: float
) -> None:
    set_password(
        conn, account.identity_id, hashed, must_change=False, actor=actor, now=now, but=stays.id if stays else None
    )


def _void_all(conn: Any, session: Session, actor: Actor, now: float) -> Any:
    cuts = [cut for each in sorted(session.usernames) for cut in void_logins(conn, each, now=now)]
    record(conn, actor, "user.log-out-everywhere", "user", session.person_id, at=now)
    return cuts


async def _record_failure(request: Request, account: LocalAccount | None) -> None:
    """An account that does not exist is not named: people type passwords into the wrong field."""
    service = service_of(request)
    name = account.username if account else "(unknown)"
    actor = Actor(id=account.identity_id if account else None, name=name, address=client_address(request))
    await service.db.write(_put_failure, actor, service.clock())


def _put_failure(conn: Any, actor: Actor, now: float) -> None:
    record(conn, actor, "login", "user", actor.id, at=now, outcome="refused")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
