"""SQL of identities, tokens and the service's secret."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from farcall.service.accounts.rules import Authentication, Identity, TokenRow, is_token_valid, new_token, token_hash
from farcall.service.db.sql import Prepared
from farcall.service.db.tables import (
    counters,
    endpoints,
    group_members,
    identities,
    session_authentications,
    settings,
    tokens,
)
from farcall.service.ids import new_id
from farcall.wire.topology import BrokerUser, UserKind

__all__ = [
    "accounts_version",
    "add_token",
    "authentications_of",
    "broker_generation",
    "bump_accounts_version",
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
        conn.execute(
            insert(identities).values(
                id=made.id,
                username=username,
                is_admin=is_admin,
                credential_generation=1,
                created_at=now,
                person_id=made.id,
            )
        )
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
    """Whose access token this is, valid or not, with everything that decisions ask for."""
    row = _FIND_TOKEN.first(conn, hash=hashed)
    if row is None:
        return None
    person_id = row.person_id or row.id
    linked = {each.id: each.username for each in _LINKED.all(conn, person_id=person_id)}
    identity = Identity(
        id=row.id,
        username=row.username,
        is_admin=bool(row.is_admin),
        credential_generation=row.credential_generation,
        kind=row.kind,
        person_id=person_id,
        linked=frozenset(linked),
        groups=frozenset(each.group_id for each in _GROUPS.all(conn, person_id=person_id)),
        scopes=None if row.scopes is None else frozenset(row.scopes.split()),
        authentications=authentications_of(conn, row.session_id, linked) if row.session_id else (),
    )
    return identity, TokenRow(
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        is_disabled=row.disabled_at is not None,
    )


def authentications_of(conn: Connection, session_id: str, linked: Mapping[str, str]) -> tuple[Authentication, ...]:
    """What a login rests on, the newest first. `linked`: id → user name, of those that count."""
    rows = _AUTHENTICATIONS.all(conn, session_id=session_id)
    return tuple(
        Authentication(
            identity_id=row.identity_id,
            username=linked[row.identity_id],
            at=row.at,
            mfa=bool(row.mfa),
            provider=row.provider,
        )
        for row in rows
        if row.identity_id in linked
    )


def bump_accounts_version(conn: Connection) -> None:
    """Have every process of the service forget what it remembers of tokens, within seconds. To be called in the
    transaction that takes a right away.
    """
    conn.execute(update(counters).where(counters.c.name == "accounts").values(value=counters.c.value + 1))


def accounts_version(conn: Connection) -> int:
    """Grows with each `bump_accounts_version`."""
    version: int = _VERSION.scalar(conn)
    return version


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
    select(
        *_IDENTITY,
        identities.c.kind,
        identities.c.person_id,
        identities.c.disabled_at,
        tokens.c.created_at,
        tokens.c.expires_at,
        tokens.c.revoked_at,
        tokens.c.scopes,
        tokens.c.session_id,
    )
    .join_from(tokens, identities, tokens.c.identity_id == identities.c.id)
    .where(tokens.c.hash == bindparam("hash"), tokens.c.kind == "access")
)
_IS_OF_PERSON = (identities.c.person_id == bindparam("person_id")) | (identities.c.id == bindparam("person_id"))
_LINKED = Prepared(
    select(identities.c.id, identities.c.username).where(_IS_OF_PERSON, identities.c.disabled_at.is_(None))
)
_GROUPS = Prepared(
    select(group_members.c.group_id)
    .join_from(group_members, identities, group_members.c.identity_id == identities.c.id)
    .where(_IS_OF_PERSON, identities.c.disabled_at.is_(None))
    .distinct()
)
_AUTHENTICATIONS = Prepared(
    select(
        session_authentications.c.identity_id,
        session_authentications.c.at,
        session_authentications.c.mfa,
        session_authentications.c.provider,
    )
    .where(session_authentications.c.session_id == bindparam("session_id"))
    .order_by(session_authentications.c.at.desc())
)
_VERSION = Prepared(select(counters.c.value).where(counters.c.name == "accounts"))


def _identity(row: Any) -> Identity:  # a row with the columns of _IDENTITY
    return Identity(
        id=row.id,
        username=row.username,
        is_admin=bool(row.is_admin),
        credential_generation=row.credential_generation,
    )
