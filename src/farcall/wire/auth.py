"""Names of the login: resource servers, scopes, the clients that every service knows, and what a refusal may ask for.

Source: wire protocol, authentication: identifiers, and errors with `authorization_parameters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "AUTH_SERVER",
    "CLIENT_ID",
    "COMPUTE_SCOPE",
    "COMPUTE_SERVER",
    "CONSOLE_CALLBACK_PATH",
    "CONSOLE_CLIENT_ID",
    "LOGIN_SCOPES",
    "MANAGE_PROJECTS_SCOPE",
    "NATIVE_CLIENTS",
    "OFFICIAL_CLIENT_ID",
    "OPENID_SCOPE",
    "SERVER_OF_SCOPE",
    "SessionDemand",
    "session_demand",
]

COMPUTE_SERVER: Final = "funcx_service"
AUTH_SERVER: Final = "auth.globus.org"

COMPUTE_SCOPE: Final = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
OPENID_SCOPE: Final = "openid"
MANAGE_PROJECTS_SCOPE: Final = "urn:globus:auth:scope:auth.globus.org:manage_projects"

LOGIN_SCOPES: Final = (COMPUTE_SCOPE, OPENID_SCOPE, MANAGE_PROJECTS_SCOPE)
"""What a login of a person asks for."""

CLIENT_ID: Final = "1dee9e2d-252e-559e-8d04-16e4ffb378da"
"""`farcall`, `farcall-endpoint` and the SDK as an OAuth2 client: public, the same at every service."""
OFFICIAL_CLIENT_ID: Final = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
"""The public client that the official SDK is."""

CONSOLE_CLIENT_ID: Final = "d10f34de-eae1-59c0-99a7-bfbe80008d0d"
"""The web console of a service: part of it, so that nobody is asked whether to let it in."""
CONSOLE_CALLBACK_PATH: Final = "/console/callback"
"""Where people come back to with a code for the console: here, at the service's own address, and nowhere else."""

NATIVE_CLIENTS: Final = {
    CLIENT_ID: "Farcall",
    OFFICIAL_CLIENT_ID: "Globus Compute SDK",
    CONSOLE_CLIENT_ID: "Farcall console",
}
"""Clients without a secret that need no registration → what people are told that they are."""

_AUTH_PREFIX: Final = "urn:globus:auth:scope:auth.globus.org:"
SERVER_OF_SCOPE: Final = {
    COMPUTE_SCOPE: COMPUTE_SERVER,
    OPENID_SCOPE: AUTH_SERVER,
    "profile": AUTH_SERVER,
    "email": AUTH_SERVER,
    MANAGE_PROJECTS_SCOPE: AUTH_SERVER,
    _AUTH_PREFIX + "view_identities": AUTH_SERVER,
    _AUTH_PREFIX + "view_identity_set": AUTH_SERVER,
    _AUTH_PREFIX + "view_consents": AUTH_SERVER,
}
"""Every scope that there is → the resource server that it belongs to. A token opens one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionDemand:
    """What a service wants of a login before it does what was asked. All parts are optional.

    Attributes:
        message: for people, from the service.
        identities: ids or user names, each of which must have proved itself in the session.
        domains: an identity of one of these must have.
        policies: ids of authentication policies that the session must satisfy.
        mfa: whether a second factor must have been used; None does not care.
        scopes: that the token must have, besides the usual ones.
        prompt: `login`: prove oneself again, even if one did so before.
    """

    message: str | None = None
    identities: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    mfa: bool | None = None
    scopes: tuple[str, ...] = ()
    prompt: str | None = None

    def to_query(self) -> dict[str, str]:
        """As parameters of the authorization request; scopes and what is not asked for are not among them."""
        query = {
            "session_message": self.message,
            "session_required_identities": ",".join(self.identities),
            "session_required_single_domain": ",".join(self.domains),
            "session_required_policies": ",".join(self.policies),
            "session_required_mfa": None if self.mfa is None else str(self.mfa),
            "prompt": self.prompt,
        }
        return {name: value for name, value in query.items() if value}


def session_demand(document: Mapping[str, Any]) -> SessionDemand | None:
    """What an error document (or its members besides code and text) asks for; None if it asks for nothing.

    Lists may also be texts with commas, and what is asked for may stand in one of its `errors`. Members of a wrong
    type are ignored: the refusal itself is what counts.
    """
    for each in (document, *_objects(document.get("errors"))):
        parameters = each.get("authorization_parameters")
        if isinstance(parameters, Mapping):
            return _from_parameters(parameters, each)
        if each.get("code") == "ConsentRequired" and each.get("required_scopes"):
            return SessionDemand(scopes=_texts(each["required_scopes"]))
    return None


def _from_parameters(parameters: Mapping[str, Any], around: Mapping[str, Any]) -> SessionDemand:
    mfa = parameters.get("session_required_mfa")
    return SessionDemand(
        message=_text(parameters.get("session_message")) or _text(around.get("reason")),
        identities=_texts(parameters.get("session_required_identities")),
        domains=_texts(parameters.get("session_required_single_domain")),
        policies=_texts(parameters.get("session_required_policies")),
        mfa=mfa if isinstance(mfa, bool) else None,
        scopes=_texts(parameters.get("required_scopes")),
        prompt=_text(parameters.get("prompt")),
    )


def _objects(value: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(each.strip() for each in value if isinstance(each, str) and each.strip())
