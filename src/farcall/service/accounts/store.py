"""SQL of identities, tokens and the service's secret."""

from __future__ import annotations

import secrets
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from farcall.service.accounts.rules import Identity, TokenRow, is_token_valid, new_token, token_hash
from farcall.service.db.sql import Prepared
from farcall.service.db.tables import endpoints, identities, settings, tokens
from farcall.service.ids import new_id
from farcall.wire.topology import BrokerUser, UserKind

__all__ = [
    "add_token",
    "broker_generation",
    "ensure_identity",
    "ensure_secret",
    "find_token",
    "identity_by_name",
    "log_in",
    "ping",
    "revoke_broker_credential",
    "revoke_token",
    "touch",
]


def ensure_secret(conn: Connection) -> bytes:
    """The service's secret; made at the first call on a database."""
    found = conn.execute(select(settings.c.value).where(settings.c.key == "secret")).scalar()
    if found is None:
        found = secrets.token_hex(32)
        conn.execute(insert(settings).values(key="secret", value=found))
    return bytes.fromhex(found)


def ensure_identity(conn: Connection, username: str, *, is_admin: bool, now: float) -> Identity:
    """The identity of this name; made if there is none. `is_admin` can only be gained here, not lost."""
    found = identity_by_name(conn, username)
    if found is None:
        made = Identity(id=new_id(), username=username, is_admin=is_admin, credential_generation=1)
        conn.execute(insert(identities).values(**asdict(made), created_at=now))
        return made
    if is_admin and not found.is_admin:
        conn.execute(update(identities).where(identities.c.id == found.id).values(is_admin=True))
        found = replace(found, is_admin=True)
    return found


def identity_by_name(conn: Connection, username: str) -> Identity | None:
    row = conn.execute(select(*_IDENTITY).where(identities.c.username == username)).first()
    return None if row is None else _identity(row)


def add_token(
    conn: Connection, hashed: str, identity_id: str, *, label: str, now: float, expires_at: float | None = None
) -> None:
    """Remember a token that was just given out."""
    conn.execute(
        insert(tokens).values(hash=hashed, identity_id=identity_id, label=label, created_at=now, expires_at=expires_at)
    )


def log_in(conn: Connection, username: str, token: str | None, is_admin: bool, now: float) -> tuple[Identity, str]:
    """The identity of this name, made if there is none, and a token of it that counts: the given one, or a new one."""
    identity = ensure_identity(conn, username, is_admin=is_admin, now=now)
    if token is not None:
        found = find_token(conn, token_hash(token))
        if found is not None and found[0].id == identity.id and is_token_valid(found[1], now=now):
            return identity, token
    token = new_token()
    add_token(conn, token_hash(token), identity.id, label="local login", now=now)
    return identity, token


def find_token(conn: Connection, hashed: str) -> tuple[Identity, TokenRow] | None:
    """Whose token this is, valid or not."""
    row = _FIND_TOKEN.first(conn, hash=hashed)
    if row is None:
        return None
    return _identity(row), TokenRow(created_at=row.created_at, expires_at=row.expires_at, revoked_at=row.revoked_at)


def revoke_token(conn: Connection, hashed: str, now: float) -> bool:
    """From now on the token does not count. False if it did not before."""
    statement = update(tokens).where(tokens.c.hash == hashed, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    return conn.execute(statement).rowcount > 0


def ping(conn: Connection) -> None:
    """Raises if the database cannot be read."""
    conn.execute(select(settings.c.key).limit(1)).all()


def touch(conn: Connection) -> None:
    """Raises if the database cannot be written to. Changes nothing, but takes the way to the disk."""
    conn.execute(update(settings).where(settings.c.key == "secret").values(value=settings.c.value))


def revoke_broker_credential(conn: Connection, identity_id: str) -> int:
    """Make the broker logins of an identity's SDKs invalid. Returns the generation of the next ones."""
    where = identities.c.id == identity_id
    grown = identities.c.credential_generation + 1
    conn.execute(update(identities).where(where).values(credential_generation=grown))
    generation: int = conn.execute(select(identities.c.credential_generation).where(where)).scalar_one()
    return generation


def broker_generation(conn: Connection, user: BrokerUser) -> int | None:
    """The generation that a login must have; None if there is no such endpoint or identity (any more)."""
    if user.kind is UserKind.SDK:
        return conn.execute(select(identities.c.credential_generation).where(identities.c.id == user.id)).scalar()
    statement = select(endpoints.c.credential_generation).where(
        endpoints.c.id == user.id, endpoints.c.deleted_at.is_(None)
    )
    return conn.execute(statement).scalar()


_IDENTITY = (identities.c.id, identities.c.username, identities.c.is_admin, identities.c.credential_generation)

_FIND_TOKEN = Prepared(
    select(*_IDENTITY, tokens.c.created_at, tokens.c.expires_at, tokens.c.revoked_at)
    .join_from(tokens, identities, tokens.c.identity_id == identities.c.id)
    .where(tokens.c.hash == bindparam("hash"))
)


def _identity(row: Any) -> Identity:  # a row with the columns of _IDENTITY
    return Identity(
        id=row.id,
        username=row.username,
        is_admin=bool(row.is_admin),
        credential_generation=row.credential_generation,
    )
