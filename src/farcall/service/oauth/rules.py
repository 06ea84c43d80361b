"""What the OAuth 2 server gives out, for how long, and in which shape. Decides only."""

from __future__ import annotations

import re
import secrets
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from farcall.service.accounts.rules import Cut, Identity
from farcall.service.clients.rules import Client
from farcall.service.users.rules import Person
from farcall.wire.auth import (
    AUTH_SERVER,
    COMPUTE_SCOPE,
    COMPUTE_SERVER,
    MANAGE_PROJECTS_SCOPE,
    OPENID_SCOPE,
    SERVER_OF_SCOPE,
)

__all__ = [
    "DEFAULT_SCOPES",
    "DEVICE_GRANT",
    "DEVICE_INTERVAL_S",
    "POLL_SLACK_S",
    "Answer",
    "AuthorizationAsked",
    "CodeRow",
    "DeviceRow",
    "Lifetimes",
    "Refused",
    "RefreshRow",
    "by_resource_server",
    "discovery_document",
    "identity_document",
    "introspection_document",
    "new_user_code",
    "provider_id",
    "scope_text",
    "typed_user_code",
    "userinfo_document",
]

DEFAULT_SCOPES: Final = (COMPUTE_SCOPE, OPENID_SCOPE)
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_INTERVAL_S: Final = 5
"""A device may ask so often whether its person has agreed."""
POLL_SLACK_S: Final = 1.0
"""Requests that were sent in time may arrive so much closer together."""

_CODE_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so that no words come out; nothing that looks like a digit. Source: RFC 8628, section 6.1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """In seconds."""

    access_s: float
    refresh_s: float
    code_s: float
    device_code_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer to a program.

    Attributes:
        document: JSON.
        cuts: broker logins that became void by it.
        is_revoking: tokens became void by it.
    """

    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    cuts: Sequence[Cut] = ()
    is_revoking: bool = False

    @property
    def is_bad_client(self) -> bool:
        """Whether a program could not say who it is."""
        return self.document.get("error") == "invalid_client"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationAsked:
    """A program wants to act for a person, and has asked in good form."""

    client: Client
    scopes: tuple[str, ...]
    redirect_uri: str
    state: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A program's request is in bad form.

    Attributes:
        location: where the program is told; None: nowhere that can be trusted, so the person is.
    """

    text: str
    location: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeRow:
    """An authorization code, as stored."""

    client_id: str
    session_id: str
    identity_id: str
    family_id: str
    scopes: tuple[str, ...]
    redirect_uri: str
    challenge: str | None
    challenge_method: str | None
    nonce: str | None
    offline: bool
    expires_at: float
    used_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefreshRow:
    """A refresh token, as stored.

    Attributes:
        is_void: expired, revoked, or of somebody who is disabled.
        replaced_at: when it was changed for its successor.
    """

    hash: str
    client_id: str
    identity_id: str
    resource_server: str
    scopes: tuple[str, ...]
    session_id: str | None
    family_id: str
    is_void: bool
    replaced_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRow:
    """A login on another device, as stored.

    Attributes:
        state: `pending`, `approved`, `denied`, or `used`.
        params: what the login has to satisfy, as parameters of an authorization request.
    """

    hash: str
    user_code: str
    client_id: str
    scopes: tuple[str, ...]
    state: str
    params: Mapping[str, str]
    session_id: str | None
    identity_id: str | None
    created_at: float
    expires_at: float
    last_poll_at: float | None


def by_resource_server(scopes: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Resource server → its scopes, in the given order; the compute interface first."""
    found: dict[str, list[str]] = defaultdict(list)
    for scope in scopes:
        found[SERVER_OF_SCOPE[scope]].append(scope)
    return {server: tuple(found[server]) for server in sorted(found, key=lambda name: name != COMPUTE_SERVER)}


def scope_text(scope: str) -> str:
    """What a scope allows, for the person who is asked."""
    return _SCOPE_TEXTS.get(scope, scope)


_SCOPE_TEXTS: Final = {
    COMPUTE_SCOPE: "use this service as you: register functions and endpoints, run tasks, read their results",
    OPENID_SCOPE: "know who you are",
    "profile": "read your name and organization",
    "email": "read your e-mail address",
    MANAGE_PROJECTS_SCOPE: "make and change your projects and authentication policies",
    "urn:globus:auth:scope:auth.globus.org:view_identities": "look up people by name or id",
    "urn:globus:auth:scope:auth.globus.org:view_identity_set": "know all your linked identities",
    "urn:globus:auth:scope:auth.globus.org:view_consents": "see which programs you have let in",
}


def new_user_code() -> str:
    """What a person types to let a device in, for example `WDJB-MJHT`: 34 random bits, which live for minutes."""
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def typed_user_code(text: str) -> str:
    """The code that somebody means, whatever case, spaces and dashes they typed."""
    letters = re.sub(r"[^A-Z]", "", text.upper())[:8]
    return f"{letters[:4]}-{letters[4:]}"


def provider_id(provider: str | None) -> str:
    """A UUID for whoever vouches for an identity, as clients of the protocol expect one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, provider or "farcall:local"))


def identity_document(person: Person, asker: Identity) -> dict[str, Any]:
    """One item of GET /v2/api/identities. E-mail addresses are for oneself and for administrators.

    Source: wire protocol, other Auth routes.
    """
    return {
        "id": person.id,
        "username": person.username,
        "name": person.display_name,
        "email": person.email if asker.is_admin or person.id in asker.linked else None,
        "organization": person.organization,
        "status": "closed" if person.disabled_at is not None else "used",
        "identity_provider": provider_id(person.provider),
        "identity_type": "service" if person.kind == "client" else "login",
    }


def userinfo_document(person: Person, linked: Sequence[Person], logged_in_at: Mapping[str, float]) -> dict[str, Any]:
    """GET /v2/oauth2/userinfo.

    Args:
        linked: every identity of the person, that one among them.
        logged_in_at: identity → when it last proved itself for this token, Unix seconds.

    Source: wire protocol, other Auth routes: `identity_set` is read by endpoints, and never empty.
    """
    primary_first = sorted(linked, key=lambda each: (each.id != person.id, each.username))
    return {**_claims(person, logged_in_at), "identity_set": [_claims(each, logged_in_at) for each in primary_first]}


def _claims(person: Person, logged_in_at: Mapping[str, float]) -> dict[str, Any]:
    at = logged_in_at.get(person.id)
    return {
        "sub": person.id,
        "preferred_username": person.username,
        "username": person.username,
        "name": person.display_name or person.username,
        "email": person.email,
        "organization": person.organization,
        "identity_provider": provider_id(person.provider),
        "identity_provider_display_name": person.provider or "this service",
        "last_authentication": None if at is None else int(at),
        "status": "used",
    }


def introspection_document(
    row: Mapping[str, Any], person: Person, linked: Sequence[str], issuer: str
) -> dict[str, Any]:
    """POST /v2/oauth2/token/introspect, of a token that counts. Source: RFC 7662, section 2.2."""
    expires_at = row["expires_at"]
    return {
        "scope": row["scopes"] if row["scopes"] is not None else " ".join(SERVER_OF_SCOPE),
        "client_id": row["client_id"],
        "username": person.username,
        "token_type": "Bearer",
        "exp": None if expires_at is None else int(expires_at),
        "iat": int(row["created_at"]),
        "nbf": int(row["created_at"]),
        "sub": person.id,
        "aud": [row["resource_server"] or COMPUTE_SERVER],
        "iss": issuer,
        "name": person.display_name,
        "email": person.email,
        "identity_set": list(linked),
    }


def discovery_document(base: str) -> dict[str, Any]:
    """GET /.well-known/openid-configuration.

    Args:
        base: how the caller reached this service, without a slash at the end.

    Source: OpenID Connect Discovery 1.0, section 3; RFC 8414, section 2.
    """
    secret_or_none = ["client_secret_basic", "client_secret_post", "none"]
    return {
        "issuer": base,
        "authorization_endpoint": f"{base}/v2/oauth2/authorize",
        "token_endpoint": f"{base}/v2/oauth2/token",
        "device_authorization_endpoint": f"{base}/v2/oauth2/device",
        "userinfo_endpoint": f"{base}/v2/oauth2/userinfo",
        "revocation_endpoint": f"{base}/v2/oauth2/token/revoke",
        "introspection_endpoint": f"{base}/v2/oauth2/token/introspect",
        "jwks_uri": f"{base}/jwk.json",
        "end_session_endpoint": f"{base}/logout",
        "scopes_supported": list(SERVER_OF_SCOPE),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", DEVICE_GRANT],
        "code_challenge_methods_supported": ["S256"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": secret_or_none,
        "revocation_endpoint_auth_methods_supported": secret_or_none,
        "introspection_endpoint_auth_methods_supported": secret_or_none[:2],
        "claims_supported": [
            *("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "preferred_username", "name", "email"),
            *("organization", "identity_provider", "identity_set", "last_authentication"),
        ],
        "resource_servers": [COMPUTE_SERVER, AUTH_SERVER],
    }
