"""What is asked of a provider, what is believed of its answers, and whom they make of the person. Decides only.

`client` fetches; signatures are joserfc's work. Source: OpenID Connect Core 1.0
(sections 3.1.2 and 3.1.3), OpenID Connect Discovery 1.0, RFC 7636 (PKCE), RFC 9207 (issuer in the answer).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farcall.service.oidc.provider import OidcProvider, is_domain_allowed, is_safe_url
from farcall.wire.errors import Forbidden, ServiceUnavailable

__all__ = [
    "ALGORITHMS",
    "LEEWAY_S",
    "PENDING_S",
    "Discovery",
    "Known",
    "LoginRefused",
    "OidcPerson",
    "Pending",
    "PersonRefused",
    "ProviderUnavailable",
    "Settlement",
    "authorization_parameters",
    "check_answer",
    "check_claims",
    "claims_are_missing",
    "discovery_from",
    "new_pending",
    "person_from",
    "settle",
]

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of ID tokens. Neither `none` nor those whose key both sides share."""
LEEWAY_S: Final = 60
"""So much may the provider's clock differ from ours."""
PENDING_S: Final = 900.0
"""So long may somebody take for the login at the provider."""
_USERNAME: Final = re.compile(r"[^\s@\x00-\x1f\x7f]{1,128}@[a-z0-9-]+(?:\.[a-z0-9-]+)*")
_LONGEST: Final = 255


class ProviderUnavailable(ServiceUnavailable):
    """The provider does not answer, or answers with something that makes no sense."""

    code = "LOGIN_PROVIDER_UNAVAILABLE"


class LoginRefused(Forbidden):
    """The provider, or we, do not let this person in."""

    code = "LOGIN_REFUSED"


class PersonRefused(LoginRefused):
    """The provider vouches for somebody whom we do not let in."""

    code = "LOGIN_NOT_PERMITTED"


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What we need of a provider's description of itself.

    Attributes:
        algorithms: of its ID tokens that we take, too.
        authentication_methods: of clients at its token endpoint.
        names_itself: its answers say which issuer they are from.
        takes_wishes: it can be asked for single claims.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: tuple[str, ...]
    authentication_methods: tuple[str, ...]
    names_itself: bool
    takes_wishes: bool


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A login that somebody has gone to the provider for.

    Attributes:
        started_at: Unix seconds.
        max_age_s: the login there may be so old; None: however old; 0: it must be made now.
        prompt: the provider shall ask, even somebody who is logged in there; whoever it is then.
        wants_mfa: more than one factor is asked for.
        hint: the user name that is expected.
    """

    provider: str
    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    started_at: float
    max_age_s: int | None = None
    prompt: bool = False
    wants_mfa: bool = False
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class OidcPerson:
    """Somebody, as a provider vouches for them.

    Attributes:
        at: when they proved to the provider who they are, Unix seconds.
        mfa: with more than one factor.
    """

    provider: str
    issuer: str
    subject: str
    username: str
    display_name: str | None
    email: str | None
    organization: str | None
    at: float
    mfa: bool
    acr: str | None
    amr: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Known:
    """An identity that has logged in at this provider before."""

    identity_id: str
    username: str
    is_disabled: bool


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """A login that is let in.

    Attributes:
        is_renamed: the provider calls a known person otherwise than before.
    """

    is_renamed: bool


def discovery_from(provider: OidcProvider, document: object) -> Discovery:
    """Read a discovery document.

    Raises:
        ProviderUnavailable: it is none, or of somebody else, or leads to places that are not safe.
    """
    members: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
    if members.get("issuer") != provider.issuer:
        raise _fault(
            provider, f"describes itself as issuer {str(members.get('issuer'))[:200]!r}, not {provider.issuer!r}"
        )
    places: dict[str, str | None] = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
        place = members.get(name)
        if place is None and name == "userinfo_endpoint":
            places[name] = None
        elif not isinstance(place, str) or not is_safe_url(place):
            raise _fault(provider, f"has no safe '{name}' in its description")
        else:
            places[name] = place
    offered = _texts(members.get("id_token_signing_alg_values_supported")) or ("RS256",)
    algorithms = tuple(each for each in ALGORITHMS if each in offered)
    if not algorithms:
        raise _fault(provider, "signs ID tokens by no method that is taken here")
    methods = _texts(members.get("token_endpoint_auth_methods_supported")) or ("client_secret_basic",)
    return Discovery(
        issuer=provider.issuer,
        authorization_endpoint=places["authorization_endpoint"] or "",
        token_endpoint=places["token_endpoint"] or "",
        jwks_uri=places["jwks_uri"] or "",
        userinfo_endpoint=places["userinfo_endpoint"],
        algorithms=algorithms,
        authentication_methods=methods,
        names_itself=members.get("authorization_response_iss_parameter_supported") is True,
        takes_wishes=members.get("claims_parameter_supported") is True,
    )


def new_pending(
    provider: OidcProvider,
    *,
    redirect_uri: str,
    now: float,
    max_age_s: int | None = None,
    prompt: bool = False,
    wants_mfa: bool = False,
    hint: str | None = None,
) -> Pending:
    """A login that begins now, with secrets of its own."""
    return Pending(
        provider=provider.name,
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        redirect_uri=redirect_uri,
        started_at=now,
        max_age_s=max_age_s,
        prompt=prompt,
        wants_mfa=wants_mfa,
        hint=hint,
    )


def authorization_parameters(provider: OidcProvider, discovery: Discovery, pending: Pending) -> dict[str, str]:
    """What the browser takes to the provider."""
    digest = hashlib.sha256(pending.verifier.encode()).digest()
    parameters = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": pending.redirect_uri,
        "scope": " ".join(dict.fromkeys(("openid", *provider.scopes))),
        "state": pending.state,
        "nonce": pending.nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    if pending.max_age_s is not None:
        parameters["max_age"] = str(pending.max_age_s)
    if pending.prompt or pending.max_age_s == 0:
        parameters["prompt"] = "login"
    if pending.hint:
        parameters["login_hint"] = pending.hint
    if pending.wants_mfa and provider.mfa_acr:
        parameters["acr_values"] = " ".join(provider.mfa_acr)
    if discovery.takes_wishes:  # some leave these out unless they are asked for
        parameters["claims"] = json.dumps({"id_token": {"auth_time": None, "acr": None, "amr": None}})
    return parameters


def check_answer(
    provider: OidcProvider, discovery: Discovery, pending: Pending, answer: Mapping[str, str], now: float
) -> str:
    """The code that the browser has brought back.

    Args:
        answer: the query of the callback.

    Raises:
        LoginRefused: it is an error, or not the answer to `pending`, or came too late.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), pending.state.encode()):
        raise LoginRefused("This answer belongs to another login than the one begun here. Begin again.")
    if now - pending.started_at > PENDING_S:
        raise LoginRefused("The login took too long. Begin again.")
    issuer = answer.get("iss")
    if (issuer is not None or discovery.names_itself) and issuer != discovery.issuer:
        raise LoginRefused(f"This answer is not from {provider.shown_as}. Begin again.")
    error = answer.get("error")
    if error == "access_denied":
        raise LoginRefused(f"{provider.shown_as} says that the login was cancelled or is not permitted.")
    if error is not None or not answer.get("code"):
        said = re.sub(r"[^\w .,:;()'-]", " ", answer.get("error_description") or error or "no code")[:200]
        raise LoginRefused(f"{provider.shown_as} did not log you in: {said}.")
    return answer["code"]


def check_claims(provider: OidcProvider, pending: Pending, claims: Mapping[str, Any], now: float) -> None:
    """Check what the ID token, whose signature is good, says about itself.

    Raises:
        LoginRefused: it is of another issuer, for somebody else, not of this login, or of another time; or the
            login at the provider is older than was asked for.
    """
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    faults = {
        "is from another issuer": claims.get("iss") != provider.issuer,
        "is meant for another service": provider.client_id not in audiences,
        "was given to another service": (len(audiences) > 1 or "azp" in claims)
        and claims.get("azp") != provider.client_id,
        "has expired": expires is None or now >= expires + LEEWAY_S,
        "is from the future; compare the clocks": issued is None or issued > now + LEEWAY_S,
        "belongs to another login": not hmac.compare_digest(str(claims.get("nonce")).encode(), pending.nonce.encode()),
        "names nobody": not isinstance(claims.get("sub"), str)
        or not 0 < len(claims["sub"]) <= _LONGEST
        or not claims["sub"].isprintable(),
    }
    fault = next((text for text, is_so in faults.items() if is_so), None)
    if fault is not None:
        raise LoginRefused(
            f"What {provider.shown_as} answered {fault}. Begin again; if it stays so, tell the operator."
        )
    if pending.max_age_s is None:
        return
    proved = _number(claims.get("auth_time"))
    if proved is None:
        raise LoginRefused(
            f"This needs a fresh login, and {provider.shown_as} does not say when you logged in there (`auth_time`)."
        )
    # Asked for at `started_at`: what was fresh then has been, though typing took a while.
    if proved < pending.started_at - pending.max_age_s - LEEWAY_S:
        raise LoginRefused(
            f"This needs a fresh login, and the one at {provider.shown_as} is older. Log in there again."
        )


def claims_are_missing(provider: OidcProvider, claims: Mapping[str, Any]) -> bool:
    """Whether the userinfo endpoint has to be asked as well."""
    wanted = {provider.username_claim, provider.email_claim, provider.name_claim}
    return any(not claims.get(name) for name in wanted)


def person_from(
    provider: OidcProvider, claims: Mapping[str, Any], userinfo: Mapping[str, Any], now: float
) -> OidcPerson:
    """Who has logged in.

    Args:
        claims: of the ID token, checked.
        userinfo: likewise; empty if it was not asked for. The ID token counts more.

    Raises:
        PersonRefused: userinfo is about somebody else, there is no usable user name, or it is of a domain that this
            provider has no say in.
    """
    if userinfo and userinfo.get("sub") != claims["sub"]:
        raise PersonRefused(f"{provider.shown_as} gave answers about two different people. Begin again.")
    known = {**userinfo, **{name: value for name, value in claims.items() if value not in (None, "")}}
    username = _username(provider, known)
    domain = username.rpartition("@")[2]
    if not is_domain_allowed(domain, provider.allowed_domains):
        raise PersonRefused(
            f"{username} may not log in here through {provider.shown_as}: "
            f"the operator has not allowed the domain {domain}."
        )
    acr = _text(claims.get("acr"))
    amr = _texts(claims.get("amr"))
    proved = _number(claims.get("auth_time"))
    return OidcPerson(
        provider=provider.name,
        issuer=provider.issuer,
        subject=claims["sub"],
        username=username,
        display_name=_text(known.get(provider.name_claim)),
        email=None if known.get("email_verified") is False else _text(known.get(provider.email_claim)),
        organization=_text(known.get(provider.organization_claim)),
        at=now if proved is None else min(proved, now),
        mfa=acr in provider.mfa_acr or any(each in provider.mfa_amr for each in amr),
        acr=acr,
        amr=amr,
    )


def settle(person: OidcPerson, known: Known | None, holder_id: str | None, reserved: frozenset[str]) -> Settlement:
    """Decide whether somebody whom a provider vouches for comes in, under the name that it gives.

    Args:
        known: who this is, by issuer and subject; None: never seen.
        holder_id: the identity that has the name at present; None: nobody.
        reserved: domains of this service itself.

    Raises:
        PersonRefused: the name is somebody else's or of a reserved domain, or the identity is disabled.
    """
    domain = person.username.rpartition("@")[2]
    if any(domain == each or domain.endswith(f".{each}") for each in reserved):
        raise PersonRefused(
            f"{person.username} cannot log in through a provider: {domain} is this service's own domain."
        )
    if known is not None and known.is_disabled:
        raise PersonRefused(f"{known.username} is disabled at this service. Ask the operator.")
    if holder_id is not None and (known is None or known.identity_id != holder_id):
        raise PersonRefused(
            f"The name {person.username} belongs to somebody else here. If that is you, log in as you did before and "
            "link the two at /account; otherwise ask the operator."
        )
    return Settlement(is_renamed=known is not None and known.username != person.username)


def _username(provider: OidcProvider, known: Mapping[str, Any]) -> str:
    claim = provider.username_claim
    given = _text(known.get(claim))
    if given is None:
        raise PersonRefused(
            f"{provider.shown_as} does not tell your user name (claim '{claim}'). "
            "The operator can choose another claim."
        )
    is_address = claim in ("email", provider.email_claim)
    if is_address and not provider.trust_unverified_email and known.get("email_verified") is not True:
        raise PersonRefused(f"{provider.shown_as} has not verified your e-mail address {given[:100]!r}.")
    # One way to write each name: Bob@x and bob@x must not be two people.
    username = unicodedata.normalize("NFKC", given).lower()
    if "@" not in username:
        username = f"{username}@{provider.domain}"
    if len(username) > _LONGEST or not username.isprintable() or not _USERNAME.fullmatch(username):
        raise PersonRefused(f"{provider.shown_as} gives you a user name that cannot be used here: {given[:100]!r}.")
    return username


def _fault(provider: OidcProvider, what: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"The login service {provider.shown_as} {what}. The operator should look at its settings."
    )


def _text(value: object) -> str | None:
    """A line of text; what cannot be shown, or stored, is left out."""
    text = "".join(char for char in value if char.isprintable()).strip() if isinstance(value, str) else ""
    return text[:_LONGEST] or None


def _texts(value: object) -> tuple[str, ...]:
    values: Sequence[object] = value if isinstance(value, list) else [value]
    return tuple(each[:_LONGEST] for each in values[:50] if isinstance(each, str) and each.isprintable())


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
