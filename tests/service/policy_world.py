"""People whose logins, factors and groups a test chooses, and what endpoints for high assurance need.

Logins are rows here, as the login pages make them; no test waits for time to pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service_world import Caller, Site
from sqlalchemy import Connection, insert

from farcall.service.accounts.local import LocalLogin
from farcall.service.accounts.rules import Identity, new_token, token_hash
from farcall.service.accounts.store import find_token
from farcall.service.audit.rules import NOBODY
from farcall.service.db.sql import upsert
from farcall.service.db.tables import auth_sessions, group_members, groups, identities, session_authentications, tokens
from farcall.service.ids import new_id
from farcall.service.policies import rules, store
from farcall.service.policies.rules import Subscription
from farcall.wire.auth import COMPUTE_SCOPE

HTTPS = "https://service.example:5000"


class Person:
    """Somebody at a site, with a login whose token `caller` uses."""

    def __init__(self, site: Site, caller: Caller, session_id: str) -> None:
        self.site = site
        self.caller = caller
        self.id = caller.identity.id
        self.session_id = session_id

    async def log_in_again(self, *, mfa: bool = False, as_identity: str | None = None) -> None:
        """Prove oneself again, within the same login."""
        now = self.site.clock.now
        await self.site.service.db.write(_authenticate, self.session_id, as_identity or self.id, mfa, now)


async def person(
    site: Site,
    name: str,
    *,
    scopes: Sequence[str] | None = (COMPUTE_SCOPE,),
    member_of: Sequence[str] = (),
    person_id: str | None = None,
    is_admin: bool = False,
    kind: str = "user",
    is_logged_in: bool = True,
    expires_in_s: float | None = None,
) -> Person:
    """Somebody who logs in just now.

    Args:
        person_id: of another identity, to which this one is linked.
        scopes: of the token; None: all.
    """
    made = await site.service.db.write(
        _make, name, scopes, list(member_of), person_id, is_admin, kind, is_logged_in, site.clock.now, expires_in_s
    )
    identity, token, session_id = made
    return Person(site, Caller(site.client, LocalLogin(identity=identity, token=token)), session_id)


async def group(site: Site, name: str) -> str:
    """The id of a new group."""
    group_id = new_id()
    await site.service.db.write(_group, group_id, name, site.clock.now)
    return group_id


async def subscription(site: Site, *admin_ids: str, high_assurance: bool = True) -> str:
    """The id of a new subscription."""
    wanted = Subscription(
        id=new_id(),
        name="Hospital",
        high_assurance=high_assurance,
        admin_ids=frozenset(admin_ids),
        group_ids=frozenset(),
    )
    await site.service.db.write(store.add_subscription, wanted, NOBODY, site.clock.now)
    return wanted.id


async def policy(owner: Person, **fields: Any) -> str:
    """The id of a new policy of the owner's own project. `fields`: of `rules.plan_policy`."""
    service, now = owner.site.service, owner.site.clock.now
    made = await service.db.write(
        store.add_policy, new_id(), None, rules.plan_policy(**fields), owner.caller.identity, NOBODY, now
    )
    return made.id


async def guarded_endpoint(owner: Person, policy_id: str, **more: Any) -> str:
    """The id of a new endpoint for high assurance."""
    subscription_id = await subscription(owner.site, owner.id)
    document = {
        "endpoint_name": "guarded",
        "direct": True,
        "high_assurance": True,
        "authentication_policy": policy_id,
        "subscription_uuid": subscription_id,
        "metadata": {"engine_encrypted": True},
        **more,
    }
    return str((await owner.caller.ask("POST", f"{HTTPS}/v3/endpoints", document))["endpoint_id"])


def _group(conn: Connection, group_id: str, name: str, now: float) -> None:
    conn.execute(insert(groups).values(id=group_id, name=name, created_at=now))


def _make(
    conn: Connection,
    name: str,
    scopes: Sequence[str] | None,
    member_of: Sequence[str],
    person_id: str | None,
    is_admin: bool,
    kind: str,
    is_logged_in: bool,
    now: float,
    expires_in_s: float | None,
) -> tuple[Identity, str, str]:
    identity_id, session_id, token = new_id(), new_id(), new_token()
    conn.execute(
        insert(identities).values(
            id=identity_id,
            username=name,
            is_admin=is_admin,
            credential_generation=1,
            created_at=now,
            kind=kind,
            person_id=person_id or identity_id,
        )
    )
    for group_id in member_of:
        row = {"group_id": group_id, "identity_id": identity_id, "role": "member", "added_at": now}
        conn.execute(insert(group_members).values(**row))
    if is_logged_in:
        conn.execute(
            insert(auth_sessions).values(
                id=session_id,
                cookie_hash=session_id,
                person_id=person_id or identity_id,
                created_at=now,
                expires_at=now + 1e6,
            )
        )
        _authenticate(conn, session_id, identity_id, False, now)
    conn.execute(
        insert(tokens).values(
            hash=token_hash(token),
            identity_id=identity_id,
            label="test",
            created_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
            session_id=session_id if is_logged_in else None,
            scopes=None if scopes is None else " ".join(scopes),
        )
    )
    found = find_token(conn, token_hash(token))
    assert found is not None
    return found[0], token, session_id


def _authenticate(conn: Connection, session_id: str, identity_id: str, mfa: bool, now: float) -> None:
    key = {"session_id": session_id, "identity_id": identity_id, "mfa": mfa}
    upsert(conn, session_authentications, key, {"at": now})
