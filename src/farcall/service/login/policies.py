"""What authentication policies demand of a login. The only place where logins and policies meet."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from farcall.service.accounts.rules import Identity
from farcall.service.login.rules import Session, Unmet
from farcall.service.policies.rules import judge
from farcall.service.policies.store import find_policy
from farcall.wire.messages import is_uuid_text

__all__ = ["unmet_policies"]


def unmet_policies(conn: Connection, policy_ids: Sequence[str], session: Session, now: float) -> Unmet | None:
    """What is missing in `session` for these policies; None if it satisfies all of them. Unknown ones demand nothing:
    whoever named them asks again, and refuses.
    """
    person = Identity(
        id=session.person_id,
        username=session.person_name,
        is_admin=session.is_admin,
        credential_generation=0,
        linked=frozenset(session.usernames),
        authentications=session.authentications,
    )
    for policy_id in policy_ids:
        policy = find_policy(conn, policy_id.lower()) if is_uuid_text(policy_id.lower()) else None
        refusal = None if policy is None else judge(policy, person, session.usernames, now=now)
        if policy is None or refusal is None:
            continue
        asked_for = refusal.asked_for or {}
        wanted = next(iter(asked_for.get("session_required_identities", ())), "")
        return Unmet(
            text=f"The policy '{policy.fields.display_name}' asks for more: {refusal.reason}",
            username=session.usernames.get(wanted),
            mfa=bool(asked_for.get("session_required_mfa")),
        )
    return None
