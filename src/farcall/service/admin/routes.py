"""HTTP of what operators see: people, programs, groups, the audit table, how the service goes. Ours."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.admin import rules, store
from farcall.service.admin.documents import (
    SHAPES,
    AuditEntry,
    AuditPage,
    ClientPage,
    ClientSummary,
    GroupMember,
    GroupPage,
    GroupSummary,
    ServiceHealth,
    UserPage,
    UserSummary,
)
from farcall.service.admin.health import service_health
from farcall.service.audit.rules import Entry
from farcall.service.clients.rules import Client
from farcall.service.clients.store import list_clients
from farcall.service.context import Service, caller_of, service_of
from farcall.service.groups.rules import Group
from farcall.service.groups.store import list_groups
from farcall.service.users.rules import Person
from farcall.service.web import queries
from farcall.service.web.bodies import json_response
from farcall.service.web.cursors import cursor_text, page_parameters, position_of
from farcall.service.web.openapi import described
from farcall.wire.errors import Forbidden

__all__ = ["SHAPES", "client_summary", "router", "user_summary"]

router: Final = APIRouter()
_LARGEST: Final = 500
_DEFAULT: Final = 100
_PAGE: Final = page_parameters(default=_DEFAULT, most=_LARGEST)


def _parameter(name: str, about: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": about, "schema": {"type": "string", **schema}}


@router.get(
    "/v3/admin/users",
    **described(
        "People and programs that may use the service, by name (administrators; ours)",
        returns=UserPage,
        errors=[Forbidden],
        tag="administration",
        parameters=[
            _parameter("search", "text in user name, display name or e-mail address; or an id"),
            _parameter("kind", "", enum=["user", "client"]),
            _parameter("disabled", "", type="boolean"),
            _parameter("admin", "", type="boolean"),
            *_PAGE,
        ],
    ),
)
async def list_users(request: Request) -> Response:
    service, given = await _for_operator(request), request.query_params
    kind = queries.one_of(given, "kind", ("", "user", "client"), "")
    query = store.UserQuery(
        search=queries.text(given, "search"),
        kind="user" if kind == "user" else "client" if kind else None,
        is_disabled=queries.boolean(given, "disabled"),
        is_admin=queries.boolean(given, "admin"),
        after=queries.uuid(given, queries.CURSOR),
        limit=queries.limit(given, default=_DEFAULT, largest=_LARGEST),
    )
    people, total, has_more = await service.db.read(store.users_page, query)
    logins = await service.db.read(store.last_logins, [person.id for person in people])
    cursor = people[-1].id if has_more else None
    users = [user_summary(person, logins.get(person.id)) for person in people]
    return json_response(UserPage(users=users, total=total, next_cursor=cursor))


@router.get(
    "/v3/admin/clients",
    **described(
        "Registered programs, by name (administrators; ours)",
        returns=ClientPage,
        errors=[Forbidden],
        tag="administration",
        parameters=[
            _parameter("search", "text in the name; or an id"),
            _parameter("revoked", "", type="boolean"),
            *_PAGE,
        ],
    ),
)
async def list_clients_(request: Request) -> Response:
    service, given = await _for_operator(request), request.query_params
    limit = queries.limit(given, default=_DEFAULT, largest=_LARGEST)
    search, is_revoked = queries.text(given, "search"), queries.boolean(given, "revoked")
    after = queries.uuid(given, queries.CURSOR)
    found = await service.db.read(list_clients)
    clients = sorted((each for each in found if _is_wanted(each, search, is_revoked)), key=_client_key)
    last = next((_client_key(each) for each in found if each.id == after), ("", ""))
    rest = [each for each in clients if _client_key(each) > last]
    cursor = rest[limit - 1].id if len(rest) > limit else None
    page = [client_summary(each) for each in rest[:limit]]
    return json_response(ClientPage(clients=page, total=len(clients), next_cursor=cursor))


@router.get(
    "/v3/admin/groups",
    **described(
        "Groups of people, with their members, by name (administrators; ours)",
        returns=GroupPage,
        errors=[Forbidden],
        tag="administration",
        parameters=[_parameter("search", "text in name or description; or an id"), *_PAGE],
    ),
)
async def list_groups_(request: Request) -> Response:
    service, given = await _for_operator(request), request.query_params
    limit = queries.limit(given, default=_DEFAULT, largest=_LARGEST)
    search, after = queries.text(given, "search"), queries.uuid(given, queries.CURSOR)
    ids, total, has_more = await service.db.read(store.group_ids, search, after, limit)
    by_id = {group.id: group for group in await service.db.read(list_groups, ids)}
    groups = [_group_summary(by_id[each]) for each in ids if each in by_id]
    return json_response(GroupPage(groups=groups, total=total, next_cursor=ids[-1] if has_more else None))


@router.get(
    "/v3/admin/audit",
    **described(
        "Who did what, newest first (administrators; ours)",
        returns=AuditPage,
        errors=[Forbidden],
        tag="administration",
        parameters=[
            _parameter("action", "this one; with a dot at the end all of a kind: `user.`"),
            _parameter("actor", "user name or id of who did it"),
            _parameter("object", "id of what it was done to"),
            _parameter("outcome", "", enum=["done", "refused"]),
            _parameter("since", "Unix seconds", type="number"),
            _parameter("until", "Unix seconds", type="number"),
            *_PAGE,
        ],
    ),
)
async def list_audit(request: Request) -> Response:
    service, given = await _for_operator(request), request.query_params
    before = position_of(queries.text(given, queries.CURSOR), int)
    limit = queries.limit(given, default=_DEFAULT, largest=_LARGEST)
    query = store.AuditQuery(
        action=queries.text(given, "action"),
        actor=queries.text(given, "actor"),
        object_id=queries.text(given, "object"),
        outcome=queries.one_of(given, "outcome", ("", "done", "refused"), "") or None,
        since=queries.time(given, "since"),
        until=queries.time(given, "until"),
        before=before[0] if before else None,
        limit=limit,
    )
    found = await service.db.read(store.audit_page, query)
    cursor = cursor_text(found[limit - 1].seq) if len(found) > limit else None
    return json_response(AuditPage(entries=[_audit_entry(each) for each in found[:limit]], next_cursor=cursor))


@router.get(
    "/v3/admin/health",
    **described(
        "How the service goes, for an operator on call (administrators; ours)",
        returns=ServiceHealth,
        errors=[Forbidden],
        tag="administration",
    ),
)
async def get_service_health(request: Request) -> Response:
    service = await _for_operator(request)
    return json_response(await service_health(service))


def user_summary(person: Person, last_login_at: float | None = None) -> UserSummary:
    return UserSummary(
        id=person.id,
        username=person.username,
        kind=person.kind,
        display_name=person.display_name,
        email=person.email,
        organization=person.organization,
        provider=person.provider,
        person_id=person.person_id,
        is_admin=person.is_admin,
        has_password=person.has_password,
        has_totp=person.has_totp,
        created_at=person.created_at,
        disabled_at=person.disabled_at,
        last_login_at=last_login_at,
    )


async def _for_operator(request: Request) -> Service:
    """Raises Unauthenticated, Forbidden."""
    rules.check_operator(await caller_of(request))
    return service_of(request)


def _is_wanted(client: Client, search: str | None, is_revoked: bool | None) -> bool:
    is_found = search is None or search.lower() in client.name.lower() or search.strip().lower() == client.id
    return is_found and is_revoked in (None, client.revoked_at is not None)


def _client_key(client: Client) -> tuple[str, str]:
    return client.name.lower(), client.id


def client_summary(client: Client) -> ClientSummary:
    return ClientSummary(
        client_id=client.id,
        name=client.name,
        is_confidential=client.is_confidential,
        redirect_uris=list(client.redirect_uris),
        owner_id=client.owner_id,
        created_at=client.created_at,
        revoked_at=client.revoked_at,
    )


def _group_summary(group: Group) -> GroupSummary:
    members = [
        GroupMember(identity_id=each.identity_id, username=each.username, role=each.role) for each in group.members
    ]
    return GroupSummary(
        id=group.id, name=group.name, description=group.description, created_at=group.created_at, members=members
    )


def _audit_entry(entry: Entry) -> AuditEntry:
    return AuditEntry(
        seq=entry.seq,
        at=entry.at,
        actor_id=entry.actor_id,
        actor_name=entry.actor_name,
        action=entry.action,
        object_kind=entry.object_kind,
        object_id=entry.object_id,
        address=entry.address,
        outcome=entry.outcome,
        detail=dict(entry.detail),
    )
