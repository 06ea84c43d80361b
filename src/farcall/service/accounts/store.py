"""SQL of identities, tokens and the service's secret."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, or_, select, update

from farcall.service.accounts.rules import (
    Authentication,
    Cut,
    Identity,
    TokenRow,
    is_token_valid,
    new_token,
    token_hash,
)
from farcall.service.db.sql import Prepared, chunks
from farcall.service.db.tables import (
    broker_cuts,
    counters,
    endpoints,
    group_members,
    identities,
    session_authentications,
    settings,
    tokens,
)
from farcall.service.ids import new_id
from farcall.wire.auth import COMPUTE_SERVER
from farcall.wire.topology import BrokerUser, UserKind

__all__ = [
    "accounts_version",
    "add_token",
    "authentications_of",
    "broker_generation",
    "bump_accounts_version",
    "cut_broker_logins",
    "cuts_after",
    "ensure_identity",
    "ensure_secret",
    "find_token",
    "forget_cuts",
    "identity_by_name",
    "log_in",
    "mark_used",
    "ping",
    "revoke_broker_credential",
    "revoke_token",
    "touch",
    "void_tokens",
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
        is_fresh=row.family_id is not None and row.used_at is None,
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


def mark_used(conn: Connection, hashed: str, now: float) -> None:
    """The token was used for the first time: whoever was to get it has it."""
    conn.execute(update(tokens).where(tokens.c.hash == hashed, tokens.c.used_at.is_(None)).values(used_at=now))


def void_tokens(conn: Connection, *conditions: ColumnElement[bool], now: float) -> Sequence[str]:
    """Tokens for which this is true do not count from now on, in any process of the service.

    Returns:
        The identities that can use the compute interface by them no longer; see `cut_broker_logins`.
    """
    active = and_(tokens.c.revoked_at.is_(None), or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now))
    concerned = conn.execute(
        select(tokens.c.identity_id)
        .where(active, *conditions, or_(tokens.c.resource_server.is_(None), tokens.c.resource_server == COMPUTE_SERVER))
        .distinct()
    ).scalars()
    found = list(concerned)
    conn.execute(update(tokens).where(tokens.c.revoked_at.is_(None), *conditions).values(revoked_at=now))
    bump_accounts_version(conn)
    return found


def cut_broker_logins(
    conn: Connection, identity_ids: Sequence[str], *, now: float, with_endpoints: bool = False
) -> Sequence[Cut]:
    """Make the broker logins of these identities void. The caller tells the relay of its own process at once;
    others find out by `cuts_after`.

    Args:
        with_endpoints: those of their endpoints too.
    """
    cuts = [Cut(kind=UserKind.SDK, id=each, generation=revoke_broker_credential(conn, each)) for each in identity_ids]
    if with_endpoints:
        for some in chunks(identity_ids, 100):
            is_theirs = and_(endpoints.c.owner_id.in_(some), endpoints.c.deleted_at.is_(None))
            grown = endpoints.c.credential_generation + 1
            conn.execute(update(endpoints).where(is_theirs).values(credential_generation=grown))
            rows = conn.execute(select(endpoints.c.id, endpoints.c.credential_generation).where(is_theirs)).all()
            cuts += [Cut(kind=UserKind.ENDPOINT, id=row.id, generation=row.credential_generation) for row in rows]
    bump_accounts_version(conn)
    if cuts:
        version = accounts_version(conn)
        conn.execute(
            insert(broker_cuts),
            [
                {"version": version, "kind": str(cut.kind.value), "id": cut.id, "generation": cut.generation, "at": now}
                for cut in cuts
            ],
        )
    return cuts


def cuts_after(conn: Connection, version: int) -> tuple[int, Sequence[Cut]]:
    """What has become void since `version`, and the version now."""
    now = accounts_version(conn)
    if now == version:
        return now, ()
    rows = conn.execute(
        select(broker_cuts).where(broker_cuts.c.version > version).order_by(broker_cuts.c.version)
    ).all()
    return now, [Cut(kind=UserKind(row.kind), id=row.id, generation=row.generation) for row in rows]


def forget_cuts(conn: Connection, before: float) -> None:
    """Delete what every process has read long ago."""
    conn.execute(delete(broker_cuts).where(broker_cuts.c.at < before))


def bump_accounts_version(conn: Connection) -> None:
    """Have every process of the service forget what it remembers of tokens, within seconds. To be called in the
    transaction that changes what somebody may do.
    """
    conn.execute(update(counters).where(counters.c.name == "accounts").values(value=counters.c.value + 1))


def accounts_version(conn: Connection) -> int:
    """Grows with each `bump_accounts_version`."""
    version: int = _VERSION.scalar(conn)
    return version


def revoke_token(conn: Connection, hashed: str, now: float) -> bool:
    """From now on the token does not count. False if it did not before."""
    bump_accounts_version(conn)
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
        tokens.c.family_id,
        tokens.c.used_at,
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
