"""HTTP of what operators do to accounts and programs, as the commands of `farcall-service` do it. Ours.

Each is recorded for audit in its transaction, and what it takes away is void when the answer comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Cut, Identity, local_username
from farcall.service.admin import rules, store
from farcall.service.admin.documents import ClientSummary, GivenPassword, NewUser, UserSummary
from farcall.service.admin.routes import client_summary, user_summary
from farcall.service.audit.rules import Actor, actor_of
from farcall.service.clients.store import find_client, revoke_client
from farcall.service.context import Service, caller_of, peer_of, service_of
from farcall.service.ids import canonical_uuid
from farcall.service.users.rules import Person, new_password
from farcall.service.users.store import add_user
from farcall.service.web.bodies import json_response, read_json
from farcall.service.web.openapi import described
from farcall.wire.errors import Conflict, Forbidden, InvalidRequest, NotFound

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()
SHAPES: Final[tuple[type, ...]] = ()
"""Those of `routes`."""
_new_user: Final = msgspec.json.Decoder(NewUser)
_TEXT_LIMIT_CHARS: Final = 1024
_PRIVATE: Final = {"cache-control": "no-store"}
Change = Callable[..., tuple[Person, Sequence[Cut]]]


def _described(summary: str, returns: type) -> dict[str, Any]:
    return described(
        f"{summary} (administrators; ours)",
        returns=returns,
        errors=[Forbidden, NotFound, Conflict],
        tag="administration",
    )


@router.post(
    "/v3/admin/users",
    **described(
        "Make a local account, with a password for the first login (administrators; ours)",
        body=NewUser,
        returns=GivenPassword,
        errors=[Forbidden, Conflict],
        tag="administration",
    ),
)
async def add(request: Request) -> Response:
    service, _, actor = await _operator(request)
    wanted = await read_json(request, _new_user)
    username = local_username(wanted.username, service.settings.local_domain)
    for member in ("display_name", "email", "organization"):
        text = getattr(wanted, member)
        if text is not None and ("\0" in text or len(text) > _TEXT_LIMIT_CHARS):
            raise InvalidRequest(f"member '{member}' must have at most {_TEXT_LIMIT_CHARS} characters, without NUL.")
    password = new_password()
    hashed = await service.passwords.hash(password)

    def unit(conn: Any) -> Person:
        return add_user(
            conn,
            username,
            hashed,
            must_change=True,
            display_name=wanted.display_name,
            email=wanted.email,
            organization=wanted.organization,
            actor=actor,
            now=service.clock(),
        )

    person = await service.db.write(unit)
    return json_response(GivenPassword(user=user_summary(person), password=password), headers=_PRIVATE)


@router.post(
    "/v3/admin/users/{identity_id}/disable",
    **_described("Keep somebody out: tokens, logins, streams and endpoints stop counting", UserSummary),
)
async def disable(request: Request, identity_id: str) -> Response:
    return await _change(request, identity_id, store.change_disabled, True)


@router.post("/v3/admin/users/{identity_id}/enable", **_described("Let somebody in again", UserSummary))
async def enable(request: Request, identity_id: str) -> Response:
    return await _change(request, identity_id, store.change_disabled, False)


@router.post("/v3/admin/users/{identity_id}/grant-admin", **_described("Make somebody an administrator", UserSummary))
async def grant_admin(request: Request, identity_id: str) -> Response:
    return await _change(request, identity_id, store.change_admin, True)


@router.post(
    "/v3/admin/users/{identity_id}/revoke-admin",
    **_described("Take the rights of an administrator away", UserSummary),
)
async def revoke_admin(request: Request, identity_id: str) -> Response:
    return await _change(request, identity_id, store.change_admin, False)


@router.post(
    "/v3/admin/users/{identity_id}/remove-factor",
    **_described("Forget somebody's second factor and recovery codes", UserSummary),
)
async def remove_factor(request: Request, identity_id: str) -> Response:
    return await _change(request, identity_id, store.remove_factor)


@router.post(
    "/v3/admin/users/{identity_id}/log-out",
    **_described("Void every token and login of somebody, who may log in again", UserSummary),
)
async def log_out(request: Request, identity_id: str) -> Response:
    return await _change(request, identity_id, store.end_logins)


@router.post(
    "/v3/admin/users/{identity_id}/reset-password",
    **_described("Give somebody a password for one login, and log them out everywhere", GivenPassword),
)
async def reset_password(request: Request, identity_id: str) -> Response:
    service, caller, actor = await _operator(request)
    identity_id = canonical_uuid(identity_id, "the user id in the path")
    password = new_password()
    hashed = await service.passwords.hash(password)
    person = await _changed(service, store.give_password, identity_id, hashed, caller, actor, service.clock())
    return json_response(GivenPassword(user=user_summary(person), password=password), headers=_PRIVATE)


@router.post(
    "/v3/admin/clients/{client_id}/revoke",
    **_described("Void a program's secret and every token that it was given", ClientSummary),
)
async def revoke(request: Request, client_id: str) -> Response:
    service, _, actor = await _operator(request)
    client_id = canonical_uuid(client_id, "the client id in the path")
    now = service.clock()
    await service.db.write(revoke_client, client_id, actor, now, then=lambda done: service.watch.revoked(done[1]))
    client = await service.db.read(find_client, client_id)
    assert client is not None
    return json_response(client_summary(client))


async def _operator(request: Request) -> tuple[Service, Identity, Actor]:
    """Raises Unauthenticated, Forbidden."""
    caller = await caller_of(request)
    rules.check_operator(caller)
    return service_of(request), caller, actor_of(caller, peer_of(request))


async def _change(request: Request, identity_id: str, change: Change, *arguments: Any) -> Response:
    service, caller, actor = await _operator(request)
    identity_id = canonical_uuid(identity_id, "the user id in the path")
    person = await _changed(service, change, identity_id, *arguments, caller, actor, service.clock())
    return json_response(user_summary(person))


async def _changed(service: Service, change: Change, *arguments: Any) -> Person:
    person, _ = await service.db.write(change, *arguments, then=lambda done: service.watch.revoked(done[1]))
    return person
