"""RabbitMQ's questions about logins, queues and exchanges, as `rabbitmq_auth_backend_http` asks them: who is this, may
they read that. The answers are those that the embedded broker gets; whatever is not understood is denied.

Only RabbitMQ may ask: it names a secret in the path (setting `broker_auth_secret`) or, without one, is on this machine.
Source: README of the plugin rabbitmq_auth_backend_http 3.10 (form-encoded questions, answers as text).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from farcall.service.accounts.rules import is_broker_password
from farcall.service.accounts.store import broker_generation
from farcall.service.context import Service, service_of
from farcall.wire.topology import BrokerUser, may_access, may_publish

__all__ = ["router"]

_logger = logging.getLogger(__name__)
router: Final = APIRouter(prefix="/rabbitmq", include_in_schema=False)
_FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
_BODY_LIMIT: Final = 16 * 1024


@router.post("/{question}")
async def answer(request: Request, question: str) -> Response:
    return await _answer(request, question, None)


@router.post("/{key}/{question}")
async def answer_with_key(request: Request, key: str, question: str) -> Response:
    return await _answer(request, question, key)


async def _answer(request: Request, question: str, key: str | None) -> Response:
    service = service_of(request)
    if service.rabbitmq is None or not _may_ask(request, service, key):
        return PlainTextResponse("deny")
    body = await request.body()
    form = {name: values[-1] for name, values in parse_qs(body[:_BODY_LIMIT].decode(errors="replace")).items()}
    user = BrokerUser.from_name(form.get("username", ""))
    allowed = user is not None and await _is_allowed(service, question, user, form)
    return PlainTextResponse("allow" if allowed else "deny")


async def _is_allowed(service: Service, question: str, user: BrokerUser, form: dict[str, str]) -> bool:
    if question == "user":
        if not is_broker_password(service.secret, user, form.get("password", "")):
            return False
        return await _counts(service, user)
    if service.rabbitmq is None or form.get("vhost") != service.rabbitmq.vhost:
        return False
    name, permission = form.get("name", ""), form.get("permission", "")
    if question == "vhost":
        return await _counts(service, user)
    if question == "topic":
        return permission == "write" and may_publish(user, name, form.get("routing_key", ""))
    if question != "resource":
        return False
    resource = form.get("resource", "")
    if not may_access(user, permission, resource, name) or not await _counts(service, user):
        return False
    if permission == "read":
        await service.relay.prepare_queue(name)  # its owner comes to read; RabbitMQ looks for it after our answer
    return True


async def _counts(service: Service, user: BrokerUser) -> bool:
    """Whether the login has not been revoked."""
    return await service.db.read(broker_generation, user) == user.generation


def _may_ask(request: Request, service: Service, key: str | None) -> bool:
    secret = service.settings.broker_auth_secret
    if secret is not None:
        is_right = key is not None and hmac.compare_digest(key.encode(), secret.encode())
    else:
        is_right = key is None and _is_local(request)
    if not is_right:
        _logger.warning(
            "Somebody asked what only RabbitMQ may ask; if it was RabbitMQ, correct its auth_http paths",
            extra={"event": "broker.stranger_asked", "peer": request.client.host if request.client else None},
        )
    return is_right


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
