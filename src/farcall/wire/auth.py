"""Names of the login: scopes, whose service they open, and the clients that every service knows.

The first names are the wire protocol's, so that clients of the same protocol can log in. Source: wire protocol,
authentication.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AUTH_RESOURCE_SERVER",
    "COMPUTE_RESOURCE_SERVER",
    "COMPUTE_SCOPE",
    "FARCALL_CLIENT_ID",
    "MANAGE_PROJECTS_SCOPE",
    "NATIVE_CLIENTS",
    "OFFICIAL_CLIENT_ID",
    "RESOURCE_SERVER_OF_SCOPE",
]

COMPUTE_RESOURCE_SERVER: Final = "funcx_service"
COMPUTE_SCOPE: Final = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"

AUTH_RESOURCE_SERVER: Final = "auth.globus.org"
MANAGE_PROJECTS_SCOPE: Final = "urn:globus:auth:scope:auth.globus.org:manage_projects"

RESOURCE_SERVER_OF_SCOPE: Final = {
    COMPUTE_SCOPE: COMPUTE_RESOURCE_SERVER,
    "openid": AUTH_RESOURCE_SERVER,
    "profile": AUTH_RESOURCE_SERVER,
    "email": AUTH_RESOURCE_SERVER,
    "urn:globus:auth:scope:auth.globus.org:view_identities": AUTH_RESOURCE_SERVER,
    "urn:globus:auth:scope:auth.globus.org:view_identity_set": AUTH_RESOURCE_SERVER,
    "urn:globus:auth:scope:auth.globus.org:view_consents": AUTH_RESOURCE_SERVER,
    MANAGE_PROJECTS_SCOPE: AUTH_RESOURCE_SERVER,
}
"""Every scope that there is. A token opens one resource server."""

FARCALL_CLIENT_ID: Final = "f0a7ca11-0000-4000-8000-000000000001"
"""The commands of Farcall: a native client, without a secret."""
OFFICIAL_CLIENT_ID: Final = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
"""The native client that the official SDK is."""

NATIVE_CLIENTS: Final = {FARCALL_CLIENT_ID: "Farcall", OFFICIAL_CLIENT_ID: "Globus Compute SDK"}
"""Clients that need no registration → what people are told that they are."""
