"""SQL of second factors. A code is compared and used up in one transaction, so it counts once wherever it is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, select, update

from farcall.service.accounts.totp import matching_step, recovery_code_hash
from farcall.service.db.tables import local_accounts

__all__ = [
    "Factor",
    "Proof",
    "begin_totp",
    "confirm_totp",
    "factor_of",
    "remove_totp",
    "replace_recovery_codes",
    "use_code",
]

Proof = Literal["app", "recovery"]
"""What a code was."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What a local account has besides its password.

    Attributes:
        is_confirmed: the app has shown that it has the secret; from then on it is asked for.
        pending_secret: of an app that has not.
        recovery_codes: how many are left.
    """

    is_confirmed: bool
    pending_secret: str | None
    recovery_codes: int


def factor_of(conn: Connection, identity_id: str) -> Factor | None:
    """The second factor of an account; None if it is not a local one."""
    row = conn.execute(select(*_COLUMNS).where(local_accounts.c.identity_id == identity_id)).first()
    if row is None:
        return None
    is_confirmed = row.totp_secret is not None and row.totp_confirmed_at is not None
    return Factor(
        is_confirmed=is_confirmed,
        pending_secret=None if is_confirmed else row.totp_secret,
        recovery_codes=len(json.loads(row.recovery_codes_json or "[]")) if is_confirmed else 0,
    )


def begin_totp(conn: Connection, identity_id: str, secret: str) -> str:
    """Propose a secret. Returns the one that counts: an earlier proposal stays, so that a page shown again shows the
    same QR code. An app that is confirmed already is not touched (and the proposal is worth nothing).
    """
    where = (local_accounts.c.identity_id == identity_id) & local_accounts.c.totp_secret.is_(None)
    conn.execute(update(local_accounts).where(where).values(totp_secret=secret, totp_confirmed_at=None))
    found = conn.execute(
        select(local_accounts.c.totp_secret).where(
            local_accounts.c.identity_id == identity_id, local_accounts.c.totp_confirmed_at.is_(None)
        )
    ).scalar()
    return found or secret


def confirm_totp(conn: Connection, identity_id: str, code: str, recovery_hashes: Sequence[str], now: float) -> bool:
    """Ask for the app from now on, if `code` shows that it has the secret. False: it does not, or was confirmed before.

    Args:
        recovery_hashes: by `recovery_code_hash`, of the codes that are about to be shown.
    """
    row = conn.execute(select(*_COLUMNS).where(local_accounts.c.identity_id == identity_id)).first()
    if row is None or row.totp_secret is None or row.totp_confirmed_at is not None:
        return False
    step = matching_step(row.totp_secret, code, now=now, last_step=None)
    if step is None:
        return False
    values = {
        "totp_confirmed_at": now,
        "totp_last_step": step,
        "recovery_codes_json": json.dumps(list(recovery_hashes)),
    }
    conn.execute(update(local_accounts).where(local_accounts.c.identity_id == identity_id).values(**values))
    return True


def use_code(conn: Connection, identity_id: str, code: str, now: float) -> Proof | None:
    """What `code` proves, and it is used up; None: nothing."""
    row = conn.execute(select(*_COLUMNS).where(local_accounts.c.identity_id == identity_id).with_for_update()).first()
    if row is None or row.totp_secret is None or row.totp_confirmed_at is None:
        return None
    where = local_accounts.c.identity_id == identity_id
    step = matching_step(row.totp_secret, code, now=now, last_step=row.totp_last_step)
    if step is not None:
        conn.execute(update(local_accounts).where(where).values(totp_last_step=step))
        return "app"
    left = json.loads(row.recovery_codes_json or "[]")
    hashed = recovery_code_hash(code)
    if hashed not in left:  # hashes of random texts: how long this takes tells nothing about them
        return None
    left.remove(hashed)
    conn.execute(update(local_accounts).where(where).values(recovery_codes_json=json.dumps(left)))
    return "recovery"


def replace_recovery_codes(conn: Connection, identity_id: str, hashes: Sequence[str]) -> bool:
    """From now on these count and no others. False: there is no app that they could stand in for."""
    where = (local_accounts.c.identity_id == identity_id) & local_accounts.c.totp_confirmed_at.is_not(None)
    statement = update(local_accounts).where(where).values(recovery_codes_json=json.dumps(list(hashes)))
    return conn.execute(statement).rowcount > 0


def remove_totp(conn: Connection, identity_id: str) -> bool:
    """Forget the app and the recovery codes. False: there were none."""
    where = (local_accounts.c.identity_id == identity_id) & local_accounts.c.totp_secret.is_not(None)
    return conn.execute(update(local_accounts).where(where).values(**_NOTHING)).rowcount > 0


_NOTHING: Final = dict.fromkeys(("totp_secret", "totp_confirmed_at", "totp_last_step", "recovery_codes_json"))
_COLUMNS: Final = tuple(local_accounts.c[name] for name in _NOTHING)
