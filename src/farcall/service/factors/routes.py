"""Pages of the second factor: the step of a login that asks for a code, and setting up and removing the app."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.totp import (
    RECOVERY_CODES,
    new_recovery_codes,
    new_totp_secret,
    provisioning_uri,
    qr_svg,
    recovery_code_hash,
)
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.context import service_of
from farcall.service.factors.store import (
    begin_totp,
    confirm_totp,
    factor_of,
    remove_totp,
    replace_recovery_codes,
    use_code,
)
from farcall.service.login.routes import account_page, begin_anew, go_on
from farcall.service.login.rules import Session, read_pending
from farcall.service.login.session import session_of
from farcall.service.login.store import local_account_of_person
from farcall.service.login.ways import next_step
from farcall.service.users.rules import LocalAccount
from farcall.service.users.store import local_account_of
from farcall.service.web.pages import browser_of, checked_form, client_address, page, redirect

__all__ = ["SHAPES", "router"]

router: Final = APIRouter(include_in_schema=False)
SHAPES: Final = ()

_LONGEST_CODE: Final = 40
_WRONG_CODE: Final = "This code is wrong, or was used before. Wait for the next one."
_WRONG_EITHER: Final = "The password or the code is wrong."


# --- Logging in --------------------------------------------------------------------------------------------------


@router.post("/login/totp")
async def post_totp(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    pending = read_pending(service.secret, browser_of(request), form.get("pending", ""), now=service.clock())
    account = await service.db.read(local_account_of, pending.identity_id) if pending else None
    if pending is None or account is None or account.is_disabled or next_step(account, pending.done) != "totp":
        return begin_anew(request, pending)
    address = client_address(request)
    wait_s = service.factor_guesses.begin(account.username, address, service.clock())
    if wait_s:
        return await go_on(request, account, pending, _too_many(wait_s))
    if not await service.db.write(_use, account, form.get("code", "")[:_LONGEST_CODE], address, service.clock()):
        return await go_on(request, account, pending, _WRONG_CODE)
    service.factor_guesses.succeeded(account.username, address)
    return await go_on(request, account, replace(pending, done=(*pending.done, "totp")))


def _use(conn: Any, account: LocalAccount, code: str, address: str | None, now: float) -> bool:
    proof = use_code(conn, account.identity_id, code, now)
    actor = Actor(id=account.identity_id, name=account.username, address=address)
    if proof is None:
        record(conn, actor, "login.code", "user", account.identity_id, at=now, outcome="refused")
    elif proof == "recovery":
        record(conn, actor, "login.recovery-code", "user", account.identity_id, at=now)
    return proof is not None


# --- Setting up and removing -------------------------------------------------------------------------------------


@router.get("/account/totp")
async def get_totp(request: Request) -> Response:
    found = await _mine(request)
    return found if isinstance(found, Response) else await _totp_page(request, found[1])


@router.post("/account/totp/confirm")
async def post_confirm(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    found = await _mine(request)
    if isinstance(found, Response):
        return found
    _, account = found
    fault = await _password_fault(request, account, form)
    if fault:
        return await _totp_page(request, account, fault)
    codes = new_recovery_codes()
    hashes = [recovery_code_hash(each) for each in codes]
    code = form.get("code", "")[:_LONGEST_CODE]
    if not await service.db.write(_confirm, account, code, hashes, client_address(request), service.clock()):
        return await _totp_page(request, account, "This code does not fit. Is the clock of your device right?")
    _let_in(request, account)
    return _codes_page(request, codes, is_first=True)


@router.post("/account/totp/recovery")
async def post_recovery(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    found = await _mine(request)
    if isinstance(found, Response):
        return found
    _, account = found
    codes = new_recovery_codes()
    hashes = [recovery_code_hash(each) for each in codes]
    fault = await _both_fault(request, account, form)
    if fault:
        return await _totp_page(request, account, fault)
    await service.db.write(_replace_codes, account, hashes, client_address(request), service.clock())
    return _codes_page(request, codes, is_first=False)


@router.post("/account/totp/remove")
async def post_remove(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    found = await _mine(request)
    if isinstance(found, Response):
        return found
    session, account = found
    fault = await _both_fault(request, account, form)
    if fault:
        return await _totp_page(request, account, fault)
    await service.db.write(_remove, account, client_address(request), service.clock())
    return await account_page(request, session, notice="The second factor was removed.")


def _confirm(conn: Any, account: LocalAccount, code: str, hashes: list[str], address: str | None, now: float) -> bool:
    is_confirmed = confirm_totp(conn, account.identity_id, code, hashes, now)
    if is_confirmed:
        _record(conn, account, "user.totp-add", address, now)
    return is_confirmed


def _replace_codes(conn: Any, account: LocalAccount, hashes: list[str], address: str | None, now: float) -> None:
    if replace_recovery_codes(conn, account.identity_id, hashes):
        _record(conn, account, "user.recovery-codes", address, now)


def _remove(conn: Any, account: LocalAccount, address: str | None, now: float) -> None:
    if remove_totp(conn, account.identity_id):
        _record(conn, account, "user.totp-remove", address, now)


def _record(conn: Any, account: LocalAccount, action: str, address: str | None, now: float) -> None:
    actor = Actor(id=account.identity_id, name=account.username, address=address)
    record(conn, actor, action, "user", account.identity_id, at=now)


# --- Helpers -----------------------------------------------------------------------------------------------------


async def _mine(request: Request) -> tuple[Session, LocalAccount] | Response:
    """Who is logged in, with their account of this service; or where to go if there is none."""
    session = await session_of(request)
    if session is None:
        return redirect("/login?next=/account/totp")
    account = await service_of(request).db.read(local_account_of_person, session)
    return redirect("/account") if account is None else (session, account)


async def _password_fault(request: Request, account: LocalAccount, form: Any) -> str:
    """Why this is not its owner, as far as the password goes; empty if it is. Counts as an attempt, until `_let_in`."""
    service = service_of(request)
    wait_s = service.factor_guesses.begin(account.username, client_address(request), service.clock())
    if wait_s:
        return _too_many(wait_s)
    checked = await service.passwords.check(account.password_hash, form.get("password", ""))
    return "" if checked.is_right else _WRONG_EITHER


async def _both_fault(request: Request, account: LocalAccount, form: Any) -> str:
    """Likewise of the password and a code together."""
    service = service_of(request)
    fault = await _password_fault(request, account, form)
    if fault:
        return fault
    code = form.get("code", "")[:_LONGEST_CODE]
    if not await service.db.write(_use, account, code, client_address(request), service.clock()):
        return _WRONG_EITHER
    _let_in(request, account)
    return ""


def _let_in(request: Request, account: LocalAccount) -> None:
    service_of(request).factor_guesses.succeeded(account.username, client_address(request))


async def _totp_page(request: Request, account: LocalAccount, error: str = "") -> Response:
    service = service_of(request)
    factor = await service.db.read(factor_of, account.identity_id)
    secret = "" if factor is None or factor.is_confirmed else factor.pending_secret
    if secret is None:
        secret = await service.db.write(begin_totp, account.identity_id, new_totp_secret())
    uri = provisioning_uri(secret, account.username, request.url.netloc) if secret else ""
    return page(
        request,
        service.secret,
        "totp-setup.html",
        400 if error else 200,
        username=account.username,
        shared=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        qr=qr_svg(uri) if uri else "",
        codes_left=factor.recovery_codes if factor else 0,
        codes=RECOVERY_CODES,
        error=error,
    )


def _codes_page(request: Request, codes: tuple[str, ...], *, is_first: bool) -> Response:
    return page(request, service_of(request).secret, "recovery-codes.html", codes=codes, is_first=is_first)


def _too_many(wait_s: float) -> str:
    return f"That were too many attempts. Wait {max(1, round(wait_s))} seconds, then try again."
