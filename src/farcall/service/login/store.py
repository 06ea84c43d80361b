"""SQL of browser logins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, exists, insert, or_, select, update

from farcall.service.accounts.store import authentications_of, void_tokens
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.db.tables import auth_sessions, identities, local_accounts, session_authentications, tokens
from farcall.service.ids import new_id
from farcall.service.login.rules import Session, cookie_hash
from farcall.service.users.rules import LocalAccount
from farcall.service.users.store import local_account_of
from farcall.wire.auth import CONSOLE_CLIENT_ID
from farcall.wire.errors import Forbidden

__all__ = ["Proof", "end_session", "find_session", "forget_sessions", "log_in_browser", "set_password_hash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """Somebody has just proved that they are an identity.

    Attributes:
        mfa: with a second factor.
        provider: who says so; None: this service.
        acr, amr: what the provider says about how.
    """

    identity_id: str
    mfa: bool = False
    provider: str | None = None
    acr: str | None = None
    amr: Sequence[str] = ()
    at: float | None = None


def log_in_browser(
    conn: Connection, cookie: str, proof: Proof, old_cookie: str | None, lifetime_s: float, actor: Actor, now: float
) -> str:
    """Remember a proof in the browser's login, under a new cookie. A login of another person there ends.

    Args:
        cookie: new; the old one is void afterwards.
        actor: its name and id are filled in.

    Returns:
        The session's id.

    Raises:
        Forbidden: the identity, or the person that it belongs to, is disabled.
    """
    identity = conn.execute(select(identities).where(identities.c.id == proof.identity_id)).one()
    person_id = identity.person_id or identity.id
    person = conn.execute(select(identities).where(identities.c.id == person_id)).one()
    if identity.disabled_at is not None or person.disabled_at is not None:
        raise Forbidden(f"The account {identity.username} is disabled. Ask whoever runs this service.")
    old = find_session(conn, old_cookie, now) if old_cookie else None
    if old is not None and old.person_id == person_id:
        session_id = old.id
        conn.execute(
            update(auth_sessions)
            .where(auth_sessions.c.id == old.id)
            .values(cookie_hash=cookie_hash(cookie), expires_at=now + lifetime_s)
        )
    else:
        if old is not None:
            end_session(conn, old.id, now)
        session_id = new_id()
        conn.execute(
            insert(auth_sessions).values(
                id=session_id,
                cookie_hash=cookie_hash(cookie),
                person_id=person_id,
                created_at=now,
                expires_at=now + lifetime_s,
            )
        )
    _put_proof(conn, session_id, proof, now)
    name = Actor(id=identity.id, name=identity.username, address=actor.address)
    detail = {"provider": proof.provider or "local", "mfa": proof.mfa}
    record(conn, name, "login", "user", identity.id, at=now, detail=detail)
    return session_id


def _put_proof(conn: Connection, session_id: str, proof: Proof, now: float) -> None:
    where = and_(
        session_authentications.c.session_id == session_id,
        session_authentications.c.identity_id == proof.identity_id,
        session_authentications.c.mfa.is_(proof.mfa),
    )
    conn.execute(delete(session_authentications).where(where))
    conn.execute(
        insert(session_authentications).values(
            session_id=session_id,
            identity_id=proof.identity_id,
            mfa=proof.mfa,
            at=now if proof.at is None else min(proof.at, now),
            provider=proof.provider,
            acr=proof.acr,
            amr_json=json.dumps(list(proof.amr)) if proof.amr else None,
        )
    )


def find_session(conn: Connection, cookie: str, now: float) -> Session | None:
    """The login that this cookie stands for, if it counts."""
    row = conn.execute(
        select(auth_sessions, identities.c.username, identities.c.is_admin, identities.c.disabled_at)
        .join_from(auth_sessions, identities, auth_sessions.c.person_id == identities.c.id)
        .where(auth_sessions.c.cookie_hash == cookie_hash(cookie))
    ).first()
    if row is None or row.ended_at is not None or now >= row.expires_at or row.disabled_at is not None:
        return None
    is_of_person = or_(identities.c.person_id == row.person_id, identities.c.id == row.person_id)
    linked = conn.execute(
        select(identities.c.id, identities.c.username).where(is_of_person, identities.c.disabled_at.is_(None))
    )
    usernames = {each.id: each.username for each in linked}
    authentications = authentications_of(conn, row.id, usernames)
    if not authentications:
        return None
    return Session(
        id=row.id,
        person_id=row.person_id,
        person_name=row.username,
        is_admin=row.is_admin,
        usernames=usernames,
        authentications=authentications,
        expires_at=row.expires_at,
    )


def local_account_of_person(conn: Connection, session: Session) -> LocalAccount | None:
    """The account of this service that the person of a login has, whichever of their identities it is; or None."""
    found = (local_account_of(conn, each) for each in (session.person_id, *sorted(session.usernames)))
    return next((each for each in found if each is not None), None)


def end_session(conn: Connection, session_id: str, now: float) -> None:
    """The browser is logged out, and the console in it. Programs that were given tokens keep them."""
    void_tokens(conn, tokens.c.session_id == session_id, tokens.c.client_id == CONSOLE_CLIENT_ID, now=now)
    conn.execute(update(auth_sessions).where(auth_sessions.c.id == session_id).values(ended_at=now))


def set_password_hash(conn: Connection, identity_id: str, password_hash: str) -> None:
    """The same password, hashed with today's effort."""
    conn.execute(
        update(local_accounts).where(local_accounts.c.identity_id == identity_id).values(password_hash=password_hash)
    )


def forget_sessions(conn: Connection, now: float) -> None:
    """Delete logins that are over, unless tokens still rest on them."""
    is_over = or_(auth_sessions.c.expires_at < now, auth_sessions.c.ended_at < now)
    in_use = exists(select(tokens.c.hash).where(tokens.c.session_id == auth_sessions.c.id))
    over = [row.id for row in conn.execute(select(auth_sessions.c.id).where(is_over, ~in_use).limit(500)).all()]
    if over:
        conn.execute(delete(session_authentications).where(session_authentications.c.session_id.in_(over)))
        conn.execute(delete(auth_sessions).where(auth_sessions.c.id.in_(over)))
