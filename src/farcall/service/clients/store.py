"""SQL of OAuth 2 clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from farcall.service.accounts.rules import Cut, client_username
from farcall.service.accounts.store import cut_broker_logins, void_tokens
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.clients.rules import Client, built_in_client, canonical_client_id
from farcall.service.db.tables import identities, oauth_clients, tokens
from farcall.wire.errors import NotFound

__all__ = ["add_client", "find_client", "list_clients", "revoke_client"]


def add_client(conn: Connection, client: Client, local_domain: str, actor: Actor) -> None:
    """Remember a new client; one with a secret is an identity too."""
    if client.is_confidential:
        conn.execute(
            insert(identities).values(
                id=client.id,
                username=client_username(client.id, local_domain),
                is_admin=False,
                credential_generation=1,
                created_at=client.created_at,
                kind="client",
                display_name=client.name,
                person_id=client.id,
            )
        )
    conn.execute(
        insert(oauth_clients).values(
            id=client.id,
            name=client.name,
            secret_hash=client.secret_hash,
            is_confidential=client.is_confidential,
            redirect_uris_json=json.dumps(client.redirect_uris),
            owner_id=client.owner_id,
            created_at=client.created_at,
        )
    )
    detail = {"name": client.name, "is_confidential": client.is_confidential}
    record(conn, actor, "client.create", "client", client.id, at=client.created_at, detail=detail)


def find_client(conn: Connection, client_id: str) -> Client | None:
    """The client of this id, revoked or not."""
    canonical = canonical_client_id(client_id)
    if canonical is None:
        return None
    built_in = built_in_client(canonical)
    if built_in is not None:
        return built_in
    row = conn.execute(select(oauth_clients).where(oauth_clients.c.id == canonical)).first()
    return None if row is None else _client(row)


def list_clients(conn: Connection) -> Sequence[Client]:
    """All registered clients, oldest first."""
    return [_client(row) for row in conn.execute(select(oauth_clients).order_by(oauth_clients.c.created_at)).all()]


def revoke_client(conn: Connection, name_or_id: str, actor: Actor, now: float) -> tuple[Client, Sequence[Cut]]:
    """From now on neither the client nor anything that was given to it counts.

    Raises:
        NotFound: no client of this id, or none or several of this name.
    """
    client = _one_client(conn, name_or_id)
    conn.execute(
        update(oauth_clients)
        .where(oauth_clients.c.id == client.id, oauth_clients.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    conn.execute(
        update(identities).where(identities.c.id == client.id, identities.c.kind == "client").values(disabled_at=now)
    )
    concerned = void_tokens(conn, tokens.c.client_id == client.id, now=now)
    cuts = cut_broker_logins(conn, [each for each in concerned if each != client.id], now=now)
    if client.is_confidential:
        cuts = [*cuts, *cut_broker_logins(conn, [client.id], now=now, with_endpoints=True)]
    record(conn, actor, "client.revoke", "client", client.id, at=now, detail={"name": client.name})
    return client, cuts


def _one_client(conn: Connection, name_or_id: str) -> Client:
    canonical = canonical_client_id(name_or_id)
    condition = oauth_clients.c.id == canonical if canonical else oauth_clients.c.name == name_or_id
    found = [_client(row) for row in conn.execute(select(oauth_clients).where(condition)).all()]
    active = [each for each in found if each.revoked_at is None] or found
    if len(active) != 1:
        what = "no client is" if not active else f"{len(active)} clients are"
        raise NotFound(f"{what.capitalize()} called {name_or_id!r}. `farcall-service client list` shows all, with ids.")
    return active[0]


def _client(row: Any) -> Client:  # a row of `oauth_clients`
    return Client(
        id=row.id,
        name=row.name,
        is_confidential=row.is_confidential,
        redirect_uris=tuple(json.loads(row.redirect_uris_json)),
        secret_hash=row.secret_hash,
        owner_id=row.owner_id,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
