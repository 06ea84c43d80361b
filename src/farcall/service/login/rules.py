"""When a browser's login counts, whether it satisfies what is demanded of it, and where a login may lead. Decides only.

A demand comes from a program that was refused something (`farcall.wire.auth.SessionDemand`): its person shall log in
again, with a second factor, or as somebody in particular. What policies demand is `login.policies`' business.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from farcall.service.accounts.rules import Authentication
from farcall.service.web.csrf import keyed_hash
from farcall.wire.auth import SessionDemand

__all__ = [
    "LATELY_S",
    "LOGIN_AFTER",
    "PENDING_S",
    "Pending",
    "Session",
    "Step",
    "Unmet",
    "account_key",
    "cookie_hash",
    "demand_of_query",
    "is_lately",
    "login_after",
    "pending_text",
    "read_pending",
    "safe_next",
    "to_come_back_to",
    "unmet_demand",
]

PENDING_S: Final = 600.0
"""So long may the steps of one login take."""

LATELY_S: Final = 900.0
"""So long after a login may it be used to change what one logs in with."""

LOGIN_AFTER: Final = "farcall_login_after"
"""Parameter of an authorization request that came back from a login."""

Step = Literal["new-password", "totp"]
"""What may still be asked after the right password."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A browser that is logged in.

    Attributes:
        usernames: id → name of the person's identities that may log in at present.
        authentications: what the login rests on, the newest first.
        expires_at: Unix seconds.
    """

    id: str
    person_id: str
    person_name: str
    is_admin: bool
    usernames: Mapping[str, str]
    authentications: tuple[Authentication, ...]
    expires_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmet:
    """Why a login does not do.

    Attributes:
        text: a sentence for the person.
        username: who has to log in, if that is known.
        mfa: whether a second factor is asked for.
    """

    text: str
    username: str | None = None
    mfa: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """A login that is not complete: the password was right, a step is missing. Travels through the browser, signed.

    Attributes:
        done: the steps behind it.
        next: where it shall lead.
        at: when it began, Unix seconds.
    """

    identity_id: str
    done: tuple[str, ...]
    next: str
    at: float


def is_lately(session: Session, now: float) -> bool:
    """Whether its person proved who they are so lately that they may change how that is done."""
    return any(now - each.at < LATELY_S for each in session.authentications)


def account_key(name: str, local_domain: str) -> str:
    """One text for each account, however its name is typed: to count attempts by."""
    plain = name.strip().lower()
    return plain if "@" in plain else f"{plain}@{local_domain}"


def login_after(query: Mapping[str, str]) -> float | None:
    """Since when somebody must have logged in for this request, Unix seconds; None: whenever."""
    text = query.get(LOGIN_AFTER, "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def demand_of_query(query: Mapping[str, str]) -> SessionDemand:
    """What the parameters of an authorization request demand. Source: wire protocol, native login."""
    mfa = query.get("session_required_mfa", "").strip().lower()
    return SessionDemand(
        message=query.get("session_message") or None,
        identities=_listed(query.get("session_required_identities")),
        domains=_listed(query.get("session_required_single_domain")),
        policies=_listed(query.get("session_required_policies")),
        mfa=True if mfa in ("true", "1") else None,
        prompt=query.get("prompt") or None,
    )


def unmet_demand(demand: SessionDemand, session: Session, after: float | None = None) -> Unmet | None:
    """What is missing in `session`; None if it satisfies the demand, as far as policies do not say more.

    Args:
        after: somebody must have logged in since then, Unix seconds.
    """
    proven = {each.identity_id: each.username.lower() for each in session.authentications}
    for wanted in demand.identities:
        if wanted.lower() not in proven and wanted.lower() not in proven.values():
            name = session.usernames.get(wanted.lower(), wanted)
            return Unmet(text=f"You have to log in as {name}.", username=name if "@" in name else None)
    if demand.domains and not any(
        name.partition("@")[2] in {each.lower() for each in demand.domains} for name in proven.values()
    ):
        return Unmet(text=f"You have to log in with an identity of {' or '.join(demand.domains)}.")
    if demand.mfa and not any(each.mfa for each in session.authentications):
        return Unmet(text="You have to log in with a second factor.", mfa=True)
    is_late = after is not None and all(each.at < after for each in session.authentications)
    if is_late or "login" in (demand.prompt or "").split():
        return Unmet(text="You have to log in again.")
    return None


def to_come_back_to(path_and_query: str, now: float) -> str:
    """The same request, for after the login that it demands: `prompt` becomes the time of which it must be newer."""
    parts = urlsplit(path_and_query)
    query = [each for each in parse_qsl(parts.query, keep_blank_values=True) if each[0] not in ("prompt", LOGIN_AFTER)]
    query.append((LOGIN_AFTER, str(int(now))))
    return f"{parts.path}?{urlencode(query)}"


def safe_next(text: str | None, default: str = "/account") -> str:
    """Where a login may lead: a path of this service, so that nobody is sent away by a link that they were given."""
    if not text or not text.startswith("/") or text.startswith(("//", "/\\")) or len(text) > 8000:
        return default
    if any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in text):
        return default
    return text


def cookie_hash(cookie: str) -> str:
    """What is stored of a session's cookie."""
    return hashlib.sha256(cookie.encode(errors="replace")).hexdigest()


def pending_text(secret: bytes, browser: str, pending: Pending) -> str:
    """`pending` for a hidden field, which counts in this browser only."""
    body = urlsafe_b64encode(json.dumps(asdict(pending)).encode()).decode()
    return f"{body}.{keyed_hash(secret, 'pending', browser, body)}"


def read_pending(secret: bytes, browser: str | None, text: str, *, now: float) -> Pending | None:
    """What `pending_text` made; None if somebody else made it, or too long ago."""
    body, _, mac = text.rpartition(".")
    if not browser or not hmac.compare_digest(
        keyed_hash(secret, "pending", browser, body).encode(), mac.encode(errors="replace")
    ):
        return None
    members = json.loads(urlsafe_b64decode(body))
    pending = Pending(**{**members, "done": tuple(members["done"])})
    return pending if 0 <= now - pending.at < PENDING_S else None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(each.strip() for each in (text or "").split(",") if each.strip())
