"""HTTP of links that log a browser in once: see `links`. Only for this machine, and never through a proxy."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.context import caller_of, service_of
from farcall.service.login.links import LINK_LIFETIME_S
from farcall.service.login.rules import safe_next
from farcall.service.login.session import finish_login
from farcall.service.login.store import Proof
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.service.web.pages import page
from farcall.service.web.peers import is_local
from farcall.wire.errors import Conflict, Forbidden

__all__ = ["SHAPES", "login_link_path", "router"]

router: Final = APIRouter()


class LoginLinkDocument(msgspec.Struct, kw_only=True):
    """POST /v3/login-links. `path`: to be opened at this service, on this machine, once, within `lifetime_s`."""

    path: str
    lifetime_s: float


SHAPES: Final = (LoginLinkDocument,)


def login_link_path(code: str) -> str:
    """Where a code is used."""
    return f"/login/once?{urlencode({'code': code, 'next': '/'})}"


@router.post(
    "/v3/login-links",
    **described(
        "A link that logs a browser on this machine in as the caller, once; for administrators (ours)",
        returns=LoginLinkDocument,
        errors=[Forbidden, Conflict],
        tag="login",
    ),
)
async def post_login_link(request: Request) -> Response:
    service, caller = service_of(request), await caller_of(request)
    if not caller.is_admin or not is_local(request):
        raise Forbidden("Only an administrator, on the machine that the service runs on, is given a login link.")
    if service.cluster is not None:
        raise Conflict("A service of several processes makes no login links. Log in with an account.")
    return json_response({"path": login_link_path(service.links.make(caller.id)), "lifetime_s": LINK_LIFETIME_S})


@router.get("/login/once", include_in_schema=False)
async def get_login_once(request: Request) -> Response:
    service = service_of(request)
    is_ahead = "prefetch" in request.headers.get("sec-purpose", "")  # a browser that guesses where somebody will go
    identity_id = None
    if is_local(request) and not is_ahead:
        identity_id = service.links.take(request.query_params.get("code", "")[:100])
    if identity_id is None:
        return page(
            request,
            service.secret,
            "message.html",
            403,
            title="The link does not count",
            text="It is for the machine that the service runs on, for a quarter of an hour, and for one time. "
            "`farcall-service login-link` prints another one.",
            bad=True,
            links=[{"url": "/login", "label": "Log in with a password"}],
        )
    return await finish_login(request, Proof(identity_id=identity_id), safe_next(request.query_params.get("next")))
