"""SQL of codes, tokens and devices. Of everything that opens something only a hash is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from farcall.service.accounts.rules import token_hash
from farcall.service.accounts.store import forget_cuts, void_tokens
from farcall.service.db.tables import consents, device_codes, identities, oauth_clients, oauth_codes, settings, tokens
from farcall.service.oauth.rules import CodeRow, DeviceRow, RefreshRow

__all__ = [
    "add_code",
    "add_device",
    "add_token_row",
    "answer_device",
    "consents_of",
    "device_of_code",
    "device_of_user_code",
    "device_polled",
    "device_used",
    "ensure_signing_key",
    "extend_refresh",
    "find_code",
    "find_refresh",
    "find_signing_key",
    "forget_expired",
    "grants_of",
    "is_successor_used",
    "put_consent",
    "refresh_replaced",
    "revoke_family",
    "revoke_successors",
    "revoke_tokens_of_text",
    "session_of_token",
    "token_for_introspection",
    "use_code",
]

_SIGNING_KEY = "signing_key"


def find_signing_key(conn: Connection) -> str | None:
    """The private key, PEM."""
    return conn.execute(select(settings.c.value).where(settings.c.key == _SIGNING_KEY)).scalar()


def ensure_signing_key(conn: Connection, made: str) -> str:
    """The private key; `made` if there was none."""
    found = find_signing_key(conn)
    if found is None:
        conn.execute(insert(settings).values(key=_SIGNING_KEY, value=made))
    return found or made


# --- Authorization codes -----------------------------------------------------------------------------------------


def add_code(conn: Connection, code: str, row: CodeRow, now: float) -> None:
    conn.execute(
        insert(oauth_codes).values(
            hash=token_hash(code),
            client_id=row.client_id,
            session_id=row.session_id,
            identity_id=row.identity_id,
            family_id=row.family_id,
            scopes=" ".join(row.scopes),
            redirect_uri=row.redirect_uri,
            challenge=row.challenge,
            challenge_method=row.challenge_method,
            nonce=row.nonce,
            offline=row.offline,
            created_at=now,
            expires_at=row.expires_at,
        )
    )


def find_code(conn: Connection, code: str) -> CodeRow | None:
    row = conn.execute(select(oauth_codes).where(oauth_codes.c.hash == token_hash(code))).first()
    if row is None:
        return None
    return CodeRow(
        client_id=row.client_id,
        session_id=row.session_id,
        identity_id=row.identity_id,
        family_id=row.family_id,
        scopes=tuple(row.scopes.split()),
        redirect_uri=row.redirect_uri,
        challenge=row.challenge,
        challenge_method=row.challenge_method,
        nonce=row.nonce,
        offline=row.offline,
        expires_at=row.expires_at,
        used_at=row.used_at,
    )


def use_code(conn: Connection, code: str, now: float) -> None:
    """It has been changed for tokens."""
    conn.execute(update(oauth_codes).where(oauth_codes.c.hash == token_hash(code)).values(used_at=now))


# --- Tokens ------------------------------------------------------------------------------------------------------


def add_token_row(
    conn: Connection,
    token: str,
    *,
    kind: str,
    identity_id: str,
    client_id: str,
    label: str,
    resource_server: str,
    scopes: Sequence[str],
    session_id: str | None,
    family_id: str,
    now: float,
    expires_at: float,
) -> None:
    """Remember a token that is about to be given out."""
    conn.execute(
        insert(tokens).values(
            hash=token_hash(token),
            kind=kind,
            identity_id=identity_id,
            client_id=client_id,
            label=label[:255],
            resource_server=resource_server,
            scopes=" ".join(scopes),
            session_id=session_id,
            family_id=family_id,
            created_at=now,
            expires_at=expires_at,
        )
    )


def find_refresh(conn: Connection, token: str, now: float) -> RefreshRow | None:
    row = conn.execute(
        select(tokens, identities.c.disabled_at)
        .join_from(tokens, identities, tokens.c.identity_id == identities.c.id)
        .where(tokens.c.hash == token_hash(token), tokens.c.kind == "refresh")
    ).first()
    if row is None:
        return None
    return RefreshRow(
        hash=row.hash,
        client_id=row.client_id,
        identity_id=row.identity_id,
        resource_server=row.resource_server,
        scopes=tuple((row.scopes or "").split()),
        session_id=row.session_id,
        family_id=row.family_id,
        is_void=row.revoked_at is not None or now >= row.expires_at or row.disabled_at is not None,
        replaced_at=row.replaced_at,
    )


def refresh_replaced(conn: Connection, hashed: str, now: float) -> None:
    """It has been changed for its successor. The first time stays: later ones are told from it."""
    conn.execute(
        update(tokens)
        .where(tokens.c.hash == hashed, tokens.c.replaced_at.is_(None))
        .values(replaced_at=now, used_at=now)
    )


def extend_refresh(conn: Connection, hashed: str, expires_at: float) -> None:
    """It stays the same, and lives on."""
    conn.execute(update(tokens).where(tokens.c.hash == hashed).values(expires_at=expires_at))


def is_successor_used(conn: Connection, row: RefreshRow) -> bool:
    """Whether anything was used that a refresh token had been changed for."""
    used = or_(tokens.c.used_at.is_not(None), tokens.c.replaced_at.is_not(None))
    return conn.execute(select(tokens.c.hash).where(_successors(row), used).limit(1)).first() is not None


def revoke_successors(conn: Connection, row: RefreshRow, now: float) -> None:
    """What a refresh token had been changed for never arrived."""
    void_tokens(conn, _successors(row), now=now)


def revoke_family(conn: Connection, family_id: str, now: float, resource_server: str | None = None) -> Sequence[str]:
    """Everything that one login was given is void. Returns identities, as `void_tokens` does."""
    conditions = [tokens.c.family_id == family_id]
    if resource_server is not None:
        conditions.append(tokens.c.resource_server == resource_server)
    return void_tokens(conn, *conditions, now=now)


def revoke_tokens_of_text(conn: Connection, token: str, client_id: str | None, now: float) -> Sequence[str] | None:
    """Revoke a token by its text; a refresh token with everything that came of it.

    Args:
        client_id: whose it must be; tokens that were given to no client are anybody's who knows them.

    Returns:
        Identities, as `void_tokens` does; None if there is no such token of this client.
    """
    row = conn.execute(select(tokens).where(tokens.c.hash == token_hash(token))).first()
    if row is None or (row.client_id is not None and row.client_id != client_id):
        return None
    if row.kind == "refresh":
        return revoke_family(conn, row.family_id, now, row.resource_server)
    return void_tokens(conn, tokens.c.hash == row.hash, now=now)


def session_of_token(conn: Connection, token: str) -> str | None:
    """The id of the browser's login that a token rests on."""
    return conn.execute(select(tokens.c.session_id).where(tokens.c.hash == token_hash(token))).scalar()


def token_for_introspection(conn: Connection, token: str, now: float) -> Mapping[str, Any] | None:
    """What is stored of a token that counts; of somebody who may ask."""
    row = conn.execute(
        select(tokens, identities.c.disabled_at)
        .join_from(tokens, identities, tokens.c.identity_id == identities.c.id)
        .where(tokens.c.hash == token_hash(token), tokens.c.revoked_at.is_(None), tokens.c.replaced_at.is_(None))
    ).first()
    if row is None or row.disabled_at is not None or (row.expires_at is not None and now >= row.expires_at):
        return None
    return dict(row._mapping)


def _successors(row: RefreshRow) -> Any:  # a condition of SQL
    return and_(
        tokens.c.family_id == row.family_id,
        tokens.c.resource_server == row.resource_server,
        tokens.c.created_at >= row.replaced_at,
        tokens.c.hash != row.hash,
        tokens.c.revoked_at.is_(None),
    )


# --- Devices -----------------------------------------------------------------------------------------------------


def add_device(conn: Connection, device_code: str, row: DeviceRow) -> None:
    conn.execute(
        insert(device_codes).values(
            hash=token_hash(device_code),
            user_code=row.user_code,
            client_id=row.client_id,
            scopes=" ".join(row.scopes),
            state=row.state,
            params_json=json.dumps(dict(row.params)),
            created_at=row.created_at,
            expires_at=row.expires_at,
        )
    )


def device_of_code(conn: Connection, device_code: str) -> DeviceRow | None:
    return _device(conn, device_codes.c.hash == token_hash(device_code))


def device_of_user_code(conn: Connection, user_code: str, now: float) -> DeviceRow | None:
    """A login that waits for its person."""
    return _device(
        conn,
        and_(device_codes.c.user_code == user_code, device_codes.c.state == "pending", device_codes.c.expires_at > now),
    )


def answer_device(
    conn: Connection, hashed: str, *, state: str, session_id: str | None, identity_id: str | None
) -> None:
    conn.execute(
        update(device_codes)
        .where(device_codes.c.hash == hashed, device_codes.c.state == "pending")
        .values(state=state, session_id=session_id, identity_id=identity_id)
    )


def device_polled(conn: Connection, hashed: str, now: float) -> None:
    conn.execute(update(device_codes).where(device_codes.c.hash == hashed).values(last_poll_at=now))


def device_used(conn: Connection, hashed: str) -> None:
    """It has been changed for tokens."""
    conn.execute(update(device_codes).where(device_codes.c.hash == hashed).values(state="used"))


def _device(conn: Connection, condition: Any) -> DeviceRow | None:  # a condition of SQL
    row = conn.execute(select(device_codes).where(condition)).first()
    if row is None:
        return None
    return DeviceRow(
        hash=row.hash,
        user_code=row.user_code,
        client_id=row.client_id,
        scopes=tuple(row.scopes.split()),
        state=row.state,
        params=json.loads(row.params_json),
        session_id=row.session_id,
        identity_id=row.identity_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_poll_at=row.last_poll_at,
    )


# --- What people have let in -------------------------------------------------------------------------------------


def put_consent(conn: Connection, identity_id: str, client_id: str, scopes: Sequence[str], now: float) -> None:
    """Somebody has let a program in."""
    where = and_(consents.c.identity_id == identity_id, consents.c.client_id == client_id)
    known = conn.execute(select(consents.c.scopes).where(where)).scalar()
    if known is None:
        text = " ".join(scopes)
        conn.execute(
            insert(consents).values(
                identity_id=identity_id, client_id=client_id, scopes=text, created_at=now, updated_at=now
            )
        )
        return
    text = " ".join(dict.fromkeys([*known.split(), *scopes]))
    conn.execute(update(consents).where(where).values(scopes=text, updated_at=now))


def consents_of(conn: Connection, identity_id: str) -> Sequence[Mapping[str, Any]]:
    """client_id, client_name (None if it needs no registration), scopes, created_at, updated_at."""
    rows = conn.execute(
        select(consents, oauth_clients.c.name.label("client_name"))
        .select_from(consents.outerjoin(oauth_clients, oauth_clients.c.id == consents.c.client_id))
        .where(consents.c.identity_id == identity_id)
        .order_by(consents.c.created_at)
    )
    return [dict(row._mapping) for row in rows.all()]


def grants_of(conn: Connection, identity_ids: Sequence[str], now: float) -> Sequence[Mapping[str, Any]]:
    """Logins of programs that count: family_id, client_id, label, created_at; newest first."""
    active = and_(
        tokens.c.revoked_at.is_(None),
        tokens.c.replaced_at.is_(None),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
    )
    rows = conn.execute(
        select(tokens.c.family_id, tokens.c.client_id, tokens.c.label, tokens.c.created_at)
        .where(tokens.c.identity_id.in_(identity_ids), tokens.c.family_id.is_not(None), active)
        .order_by(tokens.c.created_at)
    )
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(row.family_id, dict(row._mapping))
    return list(first.values())[::-1]


def forget_expired(conn: Connection, now: float, kept_s: float) -> None:
    """Delete what has been of no use for `kept_s` seconds: codes, devices, tokens, cuts."""
    before = now - kept_s
    for table in (oauth_codes, device_codes, tokens):
        old = select(table.c.hash).where(table.c.expires_at < before).limit(1000)
        conn.execute(delete(table).where(table.c.hash.in_(old)))
    forget_cuts(conn, before)
