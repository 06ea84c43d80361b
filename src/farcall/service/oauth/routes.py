"""HTTP of the OAuth 2 server: pages for people who let programs in, JSON for the programs, and who is who."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from fastapi import APIRouter
from oauthlib.common import add_params_to_uri
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.throttle import address_key
from farcall.service.audit.store import record
from farcall.service.clients.rules import Client
from farcall.service.clients.store import find_client
from farcall.service.context import caller_of, service_of
from farcall.service.ids import canonical_uuid
from farcall.service.login.rules import LOGIN_AFTER, Session, Unmet
from farcall.service.login.session import actor_of_request, login_redirect, session_of, unmet_of
from farcall.service.oauth import server
from farcall.service.oauth.rules import (
    DEVICE_GRANT,
    Answer,
    AuthorizationAsked,
    DeviceRow,
    Lifetimes,
    Refused,
    discovery_document,
    identity_document,
    scope_text,
    typed_user_code,
    userinfo_document,
)
from farcall.service.oauth.server import Asking
from farcall.service.oauth.store import answer_device, consents_of, device_of_user_code, put_consent
from farcall.service.users.store import find_people
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.service.web.pages import base_url, checked_form, client_address, page, redirect
from farcall.wire.auth import AUTH_SERVER, NATIVE_CLIENTS, SERVER_OF_SCOPE
from farcall.wire.errors import Forbidden, InvalidRequest, NotFound, RateLimited

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()

_AUTH_SCOPES: Final = tuple(scope for scope, name in SERVER_OF_SCOPE.items() if name == AUTH_SERVER)
_LARGEST_LOOKUP: Final = 100
_HEADERS: Final = ("authorization", "content-type")


class IdentityDocument(msgspec.Struct, kw_only=True):
    """Somebody, as others may see them."""

    id: str
    username: str
    name: str | None
    email: str | None
    organization: str | None
    status: str
    identity_provider: str
    identity_type: str


class IdentitiesDocument(msgspec.Struct, kw_only=True):
    """GET /v2/api/identities."""

    identities: list[IdentityDocument]


class ConsentDocument(msgspec.Struct, kw_only=True):
    """A program that somebody has let in."""

    client: str
    client_name: str
    scope_name: str
    created: str


class ConsentsDocument(msgspec.Struct, kw_only=True):
    """GET /v2/api/identities/{id}/consents."""

    consents: list[ConsentDocument]


SHAPES: Final = (IdentitiesDocument, ConsentsDocument)
_OBJECT: Final = {"type": "object"}


def _form_described(summary: str, fields: Mapping[str, str], required: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments for a route that takes a form and answers as OAuth 2 says."""
    schema = {
        "type": "object",
        "required": list(required),
        "properties": {name: {"type": "string", "description": text} for name, text in fields.items()},
    }
    arguments = described(summary, returns=_OBJECT, tag="login", open_to_all=True, errors=[RateLimited])
    arguments["openapi_extra"]["requestBody"] = {
        "required": True,
        "content": {"application/x-www-form-urlencoded": {"schema": schema}},
    }
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    }
    for status, text in ((400, "What is wrong with the request"), (401, "The program cannot say who it is")):
        arguments["responses"][status] = {"description": text, "content": {"application/json": {"schema": error}}}
    return arguments


# --- For programs ------------------------------------------------------------------------------------------------


@router.get(
    "/.well-known/openid-configuration",
    **described("Where everything is (OpenID Connect discovery)", returns=_OBJECT, tag="login", open_to_all=True),
)
@router.get("/.well-known/oauth-authorization-server", include_in_schema=False)
async def get_discovery(request: Request) -> Response:
    return json_response(discovery_document(base_url(request)))


@router.get(
    "/jwk.json",
    **described("The keys that id_tokens are signed with", returns=_OBJECT, tag="login", open_to_all=True),
)
async def get_keys(request: Request) -> Response:
    key = await service_of(request).signing_keys.key()
    return json_response({"keys": [key.public_document()]}, headers={"cache-control": "max-age=3600"})


@router.post(
    "/v2/oauth2/token",
    **_form_described(
        "Change a code, a refresh token, a device code or a client's secret for tokens",
        {
            "grant_type": f"authorization_code, refresh_token, client_credentials, or {DEVICE_GRANT}",
            "client_id": "of a program without a secret; others send both by HTTP Basic, or here",
            "client_secret": "see client_id",
            "code": "for authorization_code",
            "code_verifier": "for authorization_code",
            "redirect_uri": "for authorization_code: the same as before",
            "refresh_token": "for refresh_token",
            "device_code": "for the device's grant",
            "scope": "for client_credentials: separated by spaces",
        },
        ("grant_type",),
    ),
)
async def post_token(request: Request) -> Response:
    service = service_of(request)
    asking = await _asking(request)
    grant = dict(_form(asking.body)).get("grant_type")
    key = None if grant in ("client_credentials", "refresh_token") else await service.signing_keys.key()
    return await _answered(request, lambda: service.db.write(server.exchange, asking, key))


@router.post(
    "/v2/oauth2/token/revoke",
    **_form_described(
        "Revoke a token; a refresh token with everything that came of it",
        {"token": "the token", "token_type_hint": "ignored", "client_id": "of a program without a secret"},
        ("token",),
    ),
)
async def post_revoke(request: Request) -> Response:
    service, asking = service_of(request), await _asking(request)
    return await _answered(request, lambda: service.db.write(server.revoke, asking))


@router.post(
    "/v2/oauth2/token/introspect",
    **_form_described(
        "What a token is worth; for programs with a secret",
        {"token": "the token", "token_type_hint": "ignored"},
        ("token",),
    ),
)
async def post_introspect(request: Request) -> Response:
    service, asking = service_of(request), await _asking(request)
    return await _answered(request, lambda: service.db.read(server.introspect, asking))


@router.post(
    "/v2/oauth2/device",
    **_form_described(
        "Begin a login whose person is at another device",
        {"client_id": "the program", "scope": "separated by spaces", "session_…": "what the login has to satisfy"},
        ("client_id",),
    ),
)
async def post_device_begin(request: Request) -> Response:
    service, asking = service_of(request), await _asking(request)
    wait_s = service.device_rate.take(address_key(client_address(request)), service.clock())
    if wait_s:
        raise RateLimited("Too many logins were begun from this address.", {"retry_after_s": math.ceil(wait_s)})
    return await _answered(request, lambda: service.db.write(server.begin_device, asking))


@router.get(
    "/v2/oauth2/userinfo",
    **described("Who the token belongs to, with all linked identities", returns=_OBJECT, tag="login"),
)
@router.post("/v2/oauth2/userinfo", include_in_schema=False)
async def get_userinfo(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request, *_AUTH_SCOPES)
    people = await service.db.read(find_people, sorted(caller.linked))
    person = next(each for each in people if each.id == caller.id)
    logged_in_at = {each.identity_id: each.at for each in reversed(caller.authentications)}
    return json_response(userinfo_document(person, people, logged_in_at))


@router.get(
    "/v2/api/identities",
    **described(
        "People by id or user name",
        returns=IdentitiesDocument,
        tag="login",
        parameters=[
            {"name": "ids", "in": "query", "description": "separated by commas", "schema": {"type": "string"}},
            {"name": "usernames", "in": "query", "description": "separated by commas", "schema": {"type": "string"}},
        ],
    ),
)
async def get_identities(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request, *_AUTH_SCOPES)
    ids = [canonical_uuid(each, "query parameter 'ids'") for each in _listed(request, "ids")]
    usernames = _listed(request, "usernames")
    if len(ids) + len(usernames) > _LARGEST_LOOKUP:
        raise InvalidRequest(f"At most {_LARGEST_LOOKUP} people can be looked up at once.")
    found = await service.db.read(find_people, ids, usernames)
    return json_response({"identities": [identity_document(each, caller) for each in found]})


@router.get(
    "/v2/api/identities/{identity_id}",
    **described("One person by id", returns=_OBJECT, tag="login"),
)
async def get_identity(identity_id: str, request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request, *_AUTH_SCOPES)
    found = await service.db.read(find_people, [canonical_uuid(identity_id, "identity id")])
    if not found:
        raise NotFound(f"There is no identity {identity_id}.")
    return json_response({"identity": identity_document(found[0], caller)})


@router.get(
    "/v2/api/identities/{identity_id}/consents",
    **described("The programs that one has let in", returns=ConsentsDocument, errors=[Forbidden], tag="login"),
)
async def get_consents(identity_id: str, request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request, *_AUTH_SCOPES)
    wanted = canonical_uuid(identity_id, "identity id")
    if wanted not in caller.linked:
        raise Forbidden(f"{caller.username} may not see which programs somebody else has let in.")
    found = await service.db.read(consents_of, wanted)
    return json_response({"consents": [item for row in found for item in _consent_items(row)]})


def _consent_items(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = row["client_name"] or NATIVE_CLIENTS.get(row["client_id"], "")
    created = datetime.fromtimestamp(row["created_at"], timezone.utc).isoformat()
    return [
        {"client": row["client_id"], "client_name": name, "scope_name": scope, "created": created}
        for scope in row["scopes"].split()
    ]


# --- For people --------------------------------------------------------------------------------------------------


@router.get("/v2/oauth2/authorize", include_in_schema=False)
async def get_authorize(request: Request) -> Response:
    return await _authorize(request, request.url.query, decision=None)


@router.post("/v2/oauth2/authorize", include_in_schema=False)
async def post_authorize(request: Request) -> Response:
    form = await checked_form(request, service_of(request).secret)
    return await _authorize(request, form.get("query", ""), decision=form.get("decision", ""))


async def _authorize(request: Request, query: str, decision: str | None) -> Response:
    """Everything is checked at each of both steps: between them is a browser."""
    service = service_of(request)
    asking = _asking_of(request, f"{base_url(request)}/v2/oauth2/authorize?{query}")
    asked = await service.db.read(server.check_authorization, asking)
    if isinstance(asked, Refused):
        return _refusal(request, asked)
    parameters = dict(_form(query))
    session = await session_of(request)
    unmet = await unmet_of(service, session, parameters)
    if parameters.get("prompt") == "none" and (session is None or unmet or not asked.client.is_first_party):
        error = "login_required" if session is None or unmet else "consent_required"
        return redirect(_with_error(asked, error))
    if session is None or unmet is not None:
        return login_redirect(service, "/v2/oauth2/authorize", query, unmet or Unmet(text=""))
    if decision is None and not asked.client.is_first_party:
        return _consent_page(
            request, asked.client, asked.scopes, session,
            action="/v2/oauth2/authorize", hidden={"query": query}, back=f"/v2/oauth2/authorize?{query}",
            where=_shown(asked.redirect_uri),
        )  # fmt: skip
    if decision != "allow" and not asked.client.is_first_party:
        return redirect(server.deny(asked))
    done = await service.db.write(server.authorize, asking, session, session.person_id)
    return _refusal(request, done) if isinstance(done, Refused) else redirect(done)


def _refusal(request: Request, refused: Refused) -> Response:
    if refused.location is not None:
        return redirect(refused.location)
    return _message(request, 400, "This cannot be done", refused.text, bad=True)


@router.get("/v2/web/auth-code", include_in_schema=False)
async def get_auth_code(request: Request) -> Response:
    query = request.query_params
    error = query.get("error_description") or query.get("error") or "The link is not complete."
    if query.get("error") == "access_denied":
        error = "You did not let the program in. If that was a mistake, begin again there."
    return page(
        request, service_of(request).secret, "auth-code.html", code=query.get("code", "")[:200], error=error[:500]
    )


@router.get("/device", include_in_schema=False)
async def get_device(request: Request) -> Response:
    service, session = service_of(request), await session_of(request)
    typed = request.query_params.get("user_code", "")[:20]
    if session is None:
        return login_redirect(service, "/device", request.url.query, Unmet(text=""))
    if not typed:
        return _device_page(request)
    found = await _device_for(request, session, typed)
    if isinstance(found, Response):
        return found
    row, client = found
    return _consent_page(
        request, client, row.scopes, session, action="/device", hidden={"user_code": row.user_code},
        back=f"/device?{urlencode({'user_code': row.user_code})}", device=row.user_code,
    )  # fmt: skip


@router.post("/device", include_in_schema=False)
async def post_device(request: Request) -> Response:
    service = service_of(request)
    form = await checked_form(request, service.secret)
    session = await session_of(request)
    typed = form.get("user_code", "")[:20]
    if session is None:
        return login_redirect(service, "/device", urlencode({"user_code": typed}), Unmet(text=""))
    found = await _device_for(request, session, typed)
    if isinstance(found, Response):
        return found
    row, client = found
    is_allowed = form.get("decision") == "allow"
    await service.db.write(_answer_device, request, row, client, session, is_allowed, service.clock())
    title = "The device is logged in" if is_allowed else "The device was not let in"
    text = "You can close this page and go back to it." if is_allowed else "It is told so."
    return _message(request, 200, title, text)


async def _device_for(request: Request, session: Session, typed: str) -> tuple[DeviceRow, Client] | Response:
    """The device whose code was typed; or the page that is to be shown instead."""
    service = service_of(request)
    wait_s = service.code_guesses.attempt(session.person_id, service.clock())
    if wait_s:
        error = f"That were too many wrong codes. Wait {max(1, round(wait_s))} seconds, then try again."
        return _device_page(request, typed, error, 429)
    row = await service.db.read(device_of_user_code, typed_user_code(typed), service.clock())
    client = await service.db.read(find_client, row.client_id) if row else None
    if row is None or client is None or client.revoked_at is not None:
        return _device_page(request, typed, "No device waits with this code. Codes live for a few minutes.", 404)
    service.code_guesses.succeeded(session.person_id)
    unmet = await unmet_of(service, session, _demanded(row))
    if unmet is not None:
        return login_redirect(service, "/device", urlencode({**_demanded(row), "user_code": row.user_code}), unmet)
    return row, client


def _demanded(row: DeviceRow) -> dict[str, str]:
    """What the login has to satisfy; one that shall be new must be newer than the device's request."""
    demanded = dict(row.params)
    if "login" in demanded.pop("prompt", "").split():
        demanded[LOGIN_AFTER] = str(int(row.created_at))
    return demanded


def _answer_device(
    conn: Any, request: Request, row: DeviceRow, client: Client, session: Session, is_allowed: bool, now: float
) -> None:
    state = "approved" if is_allowed else "denied"
    answer_device(conn, row.hash, state=state, session_id=session.id, identity_id=session.person_id)
    if is_allowed:
        put_consent(conn, session.person_id, client.id, row.scopes, now)
    detail = {"client": client.name, "scopes": list(row.scopes), "device": True}
    record(
        conn, actor_of_request(request, session), "oauth.consent", "client", client.id, at=now,
        outcome="done" if is_allowed else "refused", detail=detail,
    )  # fmt: skip


def _consent_page(
    request: Request,
    client: Client,
    scopes: tuple[str, ...],
    session: Session,
    *,
    action: str,
    hidden: Mapping[str, str],
    back: str,
    where: str = "",
    device: str = "",
) -> Response:
    return page(
        request,
        service_of(request).secret,
        "consent.html",
        leads_away=True,
        client=client,
        scopes=[scope_text(each) for each in scopes],
        username=session.person_name,
        action=action,
        hidden=hidden,
        where=where,
        device=device,
        other=f"/login?{urlencode({'next': back, 'again': '1'})}",
    )


def _device_page(request: Request, typed: str = "", error: str = "", status: int = 200) -> Response:
    return page(request, service_of(request).secret, "device.html", status, user_code=typed, error=error)


def _message(request: Request, status: int, title: str, text: str, *, bad: bool = False) -> Response:
    return page(request, service_of(request).secret, "message.html", status, title=title, text=text, bad=bad, links=[])


def _shown(uri: str) -> str:
    """Where people will be sent, as they understand it."""
    parts = urlsplit(uri)
    return "this computer" if parts.hostname in ("127.0.0.1", "::1", "localhost") else parts.netloc


def _with_error(asked: AuthorizationAsked, error: str) -> str:
    pairs = [("error", error), *([("state", asked.state)] if asked.state else [])]
    return str(add_params_to_uri(asked.redirect_uri, pairs))


# --- Helpers -----------------------------------------------------------------------------------------------------


async def _answered(request: Request, ask: Callable[[], Awaitable[Answer]]) -> Response:
    """Run a program's request; who asks too often, or guesses secrets, has to wait."""
    service, address = service_of(request), address_key(client_address(request))
    if service.rate.take(f"address {address}", service.clock()):
        raise RateLimited("Too many requests from this address. Wait a moment.", {"retry_after_s": 1})
    wait_s = service.secret_guesses.wait_s(address, service.clock())
    if wait_s:
        raise RateLimited(
            "Too many requests from this address had a wrong client id or secret. Wait, and correct them.",
            {"retry_after_s": math.ceil(wait_s)},
        )
    answer = await ask()
    if answer.is_bad_client:
        service.secret_guesses.attempt(address, service.clock())
    if answer.is_revoking:
        service.watch.revoked(answer.cuts)
    return json_response(dict(answer.document), answer.status, dict(answer.headers))


async def _asking(request: Request) -> Asking:
    body = (await request.body()).decode("utf-8", errors="replace")
    return _asking_of(request, str(request.url), body)


def _asking_of(request: Request, uri: str, body: str = "") -> Asking:
    service = service_of(request)
    settings = service.settings
    return Asking(
        base=base_url(request),
        host=request.url.netloc,
        uri=uri,
        body=body,
        headers={name: request.headers[name] for name in _HEADERS if name in request.headers},
        address=client_address(request),
        now=service.clock(),
        lifetimes=Lifetimes(
            access_s=settings.access_token_s,
            refresh_s=settings.refresh_token_s,
            code_s=settings.code_s,
            device_code_s=settings.device_code_s,
        ),
    )


def _form(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return []


def _listed(request: Request, name: str) -> list[str]:
    return [each.strip() for each in request.query_params.get(name, "").split(",") if each.strip()]
