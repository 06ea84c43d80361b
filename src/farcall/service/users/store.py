"""SQL of people and local accounts. Whatever changes here is recorded for audit in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, update

from farcall.service.accounts.rules import Cut, local_username
from farcall.service.accounts.store import bump_accounts_version, cut_broker_logins, void_tokens
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.db.tables import auth_sessions, identities, local_accounts, tokens
from farcall.service.ids import canonical_uuid, new_id
from farcall.service.users.rules import LocalAccount, Person
from farcall.wire.errors import Conflict, InvalidRequest, NotFound

__all__ = [
    "add_user",
    "end_sessions",
    "find_local_account",
    "find_people",
    "list_people",
    "local_account_of",
    "one_person",
    "set_admin",
    "set_disabled",
    "set_password",
    "set_profile",
    "void_logins",
]


def add_user(
    conn: Connection,
    username: str,
    password_hash: str,
    *,
    must_change: bool,
    display_name: str | None,
    email: str | None,
    organization: str | None,
    actor: Actor,
    now: float,
) -> Person:
    """Make a local account.

    Args:
        username: as `local_username` makes them.

    Raises:
        Conflict: the name is taken.
    """
    if conn.execute(select(identities.c.id).where(identities.c.username == username)).first() is not None:
        raise Conflict(f"There is a user {username} already. Choose another name.")
    identity_id = new_id()
    conn.execute(
        insert(identities).values(
            id=identity_id,
            username=username,
            is_admin=False,
            credential_generation=1,
            created_at=now,
            display_name=display_name,
            email=email,
            organization=organization,
            person_id=identity_id,
        )
    )
    _put_password(conn, identity_id, password_hash, must_change=must_change, now=now)
    record(conn, actor, "user.add", "user", identity_id, at=now, detail={"username": username})
    return one_person(conn, identity_id, "")


def list_people(conn: Connection) -> Sequence[Person]:
    """All identities, clients among them, by name."""
    return [_person(row) for row in conn.execute(select(*_PERSON).select_from(_WITH_ACCOUNT).order_by(_NAME)).all()]


def find_people(
    conn: Connection, ids: Sequence[str] = (), usernames: Sequence[str] = (), person_id: str | None = None
) -> Sequence[Person]:
    """Those of these ids or user names (in any case), or all identities of one person; by name."""
    conditions: list[ColumnElement[bool]] = [identities.c.id.in_(ids)]
    conditions += [func.lower(identities.c.username).in_([each.lower() for each in usernames if "\0" not in each])]
    if person_id is not None:
        conditions += [identities.c.person_id == person_id, identities.c.id == person_id]
    statement = select(*_PERSON).select_from(_WITH_ACCOUNT).where(or_(*conditions)).order_by(_NAME)
    return [_person(row) for row in conn.execute(statement).all()]


def one_person(conn: Connection, name_or_id: str, local_domain: str) -> Person:
    """The identity that somebody means: an id, a whole user name, or a local one without the domain.

    Raises:
        NotFound: there is none.
    """
    try:
        found = find_people(conn, ids=[canonical_uuid(name_or_id, "user id")])
    except InvalidRequest:
        found = find_people(conn, usernames=[name_or_id])
        if not found and "@" not in name_or_id:
            found = find_people(conn, usernames=[f"{name_or_id}@{local_domain}"])
    if not found:
        raise NotFound(f"There is no user {name_or_id[:100]!r}. `farcall-service user list` shows all.")
    return found[0]


def find_local_account(conn: Connection, name: str, local_domain: str) -> LocalAccount | None:
    """The account that somebody wants to log in to, by whole name, or without the local domain."""
    plain = name.strip().lower()
    if "\0" in plain:
        return None  # PostgreSQL would take it for a fault
    if "@" not in plain:
        try:
            plain = local_username(plain, local_domain)
        except InvalidRequest:
            return None
    return _local_account(conn, func.lower(identities.c.username) == plain)


def local_account_of(conn: Connection, identity_id: str) -> LocalAccount | None:
    """The account of this identity; None if it has no password."""
    return _local_account(conn, identities.c.id == identity_id)


def set_password(
    conn: Connection,
    identity_id: str,
    password_hash: str,
    *,
    must_change: bool,
    actor: Actor,
    now: float,
    but: str | None = None,
) -> None:
    """Give an identity of this service a new password; its logins in browsers end, but the session `but`.

    Raises:
        InvalidRequest: another provider vouches for it, or it is a program.
    """
    person = one_person(conn, identity_id, "")
    if person.provider is not None or person.kind != "user":
        why = f"{person.provider} vouches for it" if person.provider else "it is a program"
        raise InvalidRequest(f"{person.username} cannot have a password here: {why}.")
    _put_password(conn, identity_id, password_hash, must_change=must_change, now=now)
    end_sessions(conn, person.person_id, now, but=but)
    record(conn, actor, "user.password", "user", identity_id, at=now, detail={"username": person.username})


def set_disabled(conn: Connection, identity_id: str, is_disabled: bool, *, actor: Actor, now: float) -> Sequence[Cut]:
    """Keep somebody out, or let them in again. What they had been given is void either way."""
    conn.execute(
        update(identities).where(identities.c.id == identity_id).values(disabled_at=now if is_disabled else None)
    )
    person = one_person(conn, identity_id, "")
    action = "user.disable" if is_disabled else "user.enable"
    record(conn, actor, action, "user", identity_id, at=now, detail={"username": person.username})
    if not is_disabled:
        bump_accounts_version(conn)
        return ()
    return void_logins(conn, identity_id, now=now, with_endpoints=True)


def void_logins(conn: Connection, identity_id: str, *, now: float, with_endpoints: bool = False) -> Sequence[Cut]:
    """Every token, browser login and broker login of an identity is void. Browsers: of the whole person."""
    void_tokens(conn, tokens.c.identity_id == identity_id, now=now)
    end_sessions(conn, one_person(conn, identity_id, "").person_id, now)
    return cut_broker_logins(conn, [identity_id], now=now, with_endpoints=with_endpoints)


def set_admin(conn: Connection, identity_id: str, is_admin: bool, *, actor: Actor, now: float) -> None:
    """Grant or take away the rights of an administrator.

    Raises:
        Conflict: nobody would be left who has them.
    """
    person = one_person(conn, identity_id, "")
    if not is_admin and person.is_admin:
        others = and_(identities.c.is_admin, identities.c.id != identity_id, identities.c.disabled_at.is_(None))
        if conn.execute(select(identities.c.id).where(others).limit(1)).first() is None:
            raise Conflict(f"{person.username} is the only administrator. Grant the rights to somebody else first.")
    conn.execute(update(identities).where(identities.c.id == identity_id).values(is_admin=is_admin))
    bump_accounts_version(conn)
    action = "admin.grant" if is_admin else "admin.revoke"
    record(conn, actor, action, "user", identity_id, at=now, detail={"username": person.username})


def set_profile(
    conn: Connection, identity_id: str, display_name: str | None, email: str | None, organization: str | None
) -> None:
    """What is shown of somebody. None leaves a member as it is."""
    given = {"display_name": display_name, "email": email, "organization": organization}
    values = {name: value for name, value in given.items() if value is not None}
    if values:
        conn.execute(update(identities).where(identities.c.id == identity_id).values(**values))


def end_sessions(conn: Connection, person_id: str, now: float, *, but: str | None = None) -> None:
    """The person's browsers are logged out; `but`: id of a session that stays."""
    condition = and_(auth_sessions.c.person_id == person_id, auth_sessions.c.ended_at.is_(None))
    if but is not None:
        condition = and_(condition, auth_sessions.c.id != but)
    conn.execute(update(auth_sessions).where(condition).values(ended_at=now))


def _put_password(conn: Connection, identity_id: str, password_hash: str, *, must_change: bool, now: float) -> None:
    values = {"password_hash": password_hash, "must_change": must_change, "changed_at": now}
    where = local_accounts.c.identity_id == identity_id
    if conn.execute(update(local_accounts).where(where).values(**values)).rowcount == 0:
        conn.execute(insert(local_accounts).values(identity_id=identity_id, **values))


_WITH_ACCOUNT = identities.outerjoin(local_accounts, local_accounts.c.identity_id == identities.c.id)
_NAME = identities.c.username
_PERSON = (
    identities,
    local_accounts.c.identity_id.is_not(None).label("has_password"),
    local_accounts.c.totp_confirmed_at.is_not(None).label("has_totp"),
)


def _local_account(conn: Connection, condition: ColumnElement[bool]) -> LocalAccount | None:
    statement = (
        select(local_accounts, identities.c.username, identities.c.person_id, identities.c.disabled_at)
        .join_from(local_accounts, identities, local_accounts.c.identity_id == identities.c.id)
        .where(condition)
    )
    row = conn.execute(statement).first()
    if row is None:
        return None
    return LocalAccount(
        identity_id=row.identity_id,
        username=row.username,
        person_id=row.person_id or row.identity_id,
        password_hash=row.password_hash,
        must_change=row.must_change,
        is_disabled=row.disabled_at is not None,
        totp_secret=row.totp_secret,
        totp_confirmed_at=row.totp_confirmed_at,
        totp_last_step=row.totp_last_step,
        recovery_codes_json=row.recovery_codes_json,
    )


def _person(row: Any) -> Person:  # a row with the columns of _PERSON
    return Person(
        id=row.id,
        username=row.username,
        kind=row.kind,
        display_name=row.display_name,
        email=row.email,
        organization=row.organization,
        provider=row.provider,
        person_id=row.person_id or row.id,
        is_admin=row.is_admin,
        has_password=bool(row.has_password),
        has_totp=bool(row.has_totp),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )
