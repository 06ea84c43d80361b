"""SQL of people whom providers vouch for, and of which identities are one person's.

What may become of a login is `rules.settle`'s; here it is looked up and done, and recorded in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from farcall.service.accounts.store import bump_accounts_version
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.db.tables import auth_sessions, identities, local_accounts, provider_subjects
from farcall.service.ids import new_id
from farcall.service.oidc.rules import Known, OidcPerson, PersonRefused, settle

__all__ = ["LinkedIdentity", "LoggedIn", "identities_of_person", "link", "person_of", "receive", "unlink"]


@dataclass(frozen=True, kw_only=True)
class LoggedIn:
    """Whom a provider's answer is about.

    Attributes:
        is_new: never seen before.
    """

    identity_id: str
    person_id: str
    username: str
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class LinkedIdentity:
    """One of a person's identities.

    Attributes:
        provider: its name; None: this service itself.
        has_password: an account of this service that can log in here.
    """

    identity_id: str
    username: str
    display_name: str | None
    provider: str | None
    has_password: bool
    is_disabled: bool


def receive(
    conn: Connection, person: OidcPerson, reserved: frozenset[str], address: str | None, now: float
) -> LoggedIn:
    """The identity of somebody who has logged in at a provider; made at the first time, and kept up to date.

    Args:
        reserved: domains of user names that no provider has a say in.

    Raises:
        PersonRefused: see `rules.settle`; nothing is written.
    """
    subject = (provider_subjects.c.issuer == person.issuer) & (provider_subjects.c.subject == person.subject)
    joined = provider_subjects.join(identities, provider_subjects.c.identity_id == identities.c.id)
    row = conn.execute(select(identities).select_from(joined).where(subject)).first()
    known = None
    if row is not None:
        known = Known(identity_id=row.id, username=row.username, is_disabled=row.disabled_at is not None)
    holder = conn.execute(select(identities.c.id).where(identities.c.username == person.username)).scalar()
    is_renamed = settle(person, known, holder, reserved).is_renamed
    shown = {
        "display_name": person.display_name,
        "email": person.email,
        "organization": person.organization,
        "provider": person.provider,
    }
    if row is None:
        identity_id = person_id = new_id()
        values = {**shown, "id": identity_id, "person_id": person_id, "username": person.username}
        conn.execute(insert(identities).values(**values, is_admin=False, credential_generation=1, created_at=now))
        conn.execute(
            insert(provider_subjects).values(
                issuer=person.issuer, subject=person.subject, identity_id=identity_id, created_at=now
            )
        )
    else:
        identity_id, person_id = row.id, row.person_id or row.id
        if is_renamed or any(getattr(row, name) != value for name, value in shown.items()):
            conn.execute(
                update(identities).where(identities.c.id == identity_id).values(**shown, username=person.username)
            )
    actor = Actor(id=identity_id, name=person.username, address=address)
    detail = {"provider": person.provider}
    if row is None:
        record(conn, actor, "user.add", "user", identity_id, at=now, detail=detail)
    elif is_renamed:
        bump_accounts_version(conn)  # policies go by the name
        record(conn, actor, "user.rename", "user", identity_id, at=now, detail={**detail, "was": row.username})
    return LoggedIn(identity_id=identity_id, person_id=person_id, username=person.username, is_new=row is None)


def person_of(conn: Connection, issuer: str, subject: str) -> str | None:
    """Whose identity that is; None: nobody's yet."""
    where = (provider_subjects.c.issuer == issuer) & (provider_subjects.c.subject == subject)
    joined = provider_subjects.join(identities, provider_subjects.c.identity_id == identities.c.id)
    row = conn.execute(select(identities.c.id, identities.c.person_id).select_from(joined).where(where)).first()
    return None if row is None else row.person_id or row.id


def identities_of_person(conn: Connection, person_id: str) -> list[LinkedIdentity]:
    """All identities of a person, the oldest first."""
    joined = identities.outerjoin(local_accounts, local_accounts.c.identity_id == identities.c.id)
    statement = (
        select(identities, local_accounts.c.identity_id.label("account"))
        .select_from(joined)
        .where((identities.c.person_id == person_id) | (identities.c.id == person_id))
        .order_by(identities.c.created_at, identities.c.id)
    )
    return [
        LinkedIdentity(
            identity_id=row.id,
            username=row.username,
            display_name=row.display_name,
            provider=row.provider,
            has_password=row.account is not None,
            is_disabled=row.disabled_at is not None,
        )
        for row in conn.execute(statement)
    ]


def link(conn: Connection, person_id: str, other_person_id: str, actor: Actor, now: float) -> bool:
    """Make two people one: all identities of `other_person_id` are from now on `person_id`'s, and so are its logins.

    Both must have proved that they are here. False: they were one already.

    Raises:
        PersonRefused: the other is disabled; nothing is written.
    """
    if person_id == other_person_id:
        return False
    head = conn.execute(select(identities).where(identities.c.id == other_person_id)).one()
    if head.disabled_at is not None:
        raise PersonRefused(f"{head.username} is disabled at this service. Ask the operator.")
    theirs = (identities.c.person_id == other_person_id) | (identities.c.id == other_person_id)
    names = list(conn.execute(select(identities.c.username).where(theirs).order_by(identities.c.created_at)).scalars())
    conn.execute(update(identities).where(theirs).values(person_id=person_id))
    conn.execute(update(identities).where(identities.c.id == person_id).values(person_id=person_id))
    sessions = auth_sessions.c.person_id == other_person_id
    conn.execute(update(auth_sessions).where(sessions).values(person_id=person_id))
    bump_accounts_version(conn)
    record(conn, actor, "user.link", "user", person_id, at=now, detail={"with": names})
    return True


def unlink(conn: Connection, person_id: str, identity_id: str, actor: Actor, now: float) -> bool:
    """Make one identity a person of its own again. All logins of the person end, because they rested on both.

    False: it is not this person's, or the only one.
    """
    mine = [each.identity_id for each in identities_of_person(conn, person_id)]
    if identity_id not in mine or len(mine) < 2:
        return False
    rest = [each for each in mine if each != identity_id]
    head = person_id if person_id in rest else rest[0]
    conn.execute(update(identities).where(identities.c.id.in_(rest)).values(person_id=head))
    conn.execute(update(identities).where(identities.c.id == identity_id).values(person_id=identity_id))
    sessions = (auth_sessions.c.person_id == person_id) & auth_sessions.c.ended_at.is_(None)
    conn.execute(update(auth_sessions).where(sessions).values(ended_at=now))
    bump_accounts_version(conn)
    record(conn, actor, "user.unlink", "user", identity_id, at=now, detail={"from": head})
    return True
