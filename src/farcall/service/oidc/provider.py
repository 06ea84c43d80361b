"""What an operator says about one OpenID Connect provider: a table `[[oidc]]` of the settings file."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["OidcProvider", "is_domain_allowed", "is_safe_url"]

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_DOMAIN: Final = re.compile(r"\*|(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*")
_RESERVED: Final = frozenset({"callback"})


@dataclass(frozen=True, kw_only=True)
class OidcProvider:
    """One provider.

    Attributes:
        name: short, in URLs and in the audit log: lower-case letters, digits and `-`.
        issuer: exactly as the provider's discovery document says it; https, but for this machine.
        allowed_domains: of the user names that may log in through this provider: `example.org`, `*.example.org`
            (what is below it, not itself) or `*`. Nobody else gets in.
        client_secret, client_secret_file: one of them, or none for a public client. Never shown.
        label: what the button says; None: the name.
        scopes: asked for; `openid` is always among them.
        username_claim: whose value is the user name; if it is an e-mail address, it must be verified.
        username_domain: put behind user names without a domain; None: the host of the issuer.
        email_claim, name_claim, organization_claim: where the rest is found.
        trust_unverified_email: take an e-mail address for a user name though the provider does not say
            `email_verified`. Only for providers that give out the addresses themselves.
        mfa_acr, mfa_amr: values of `acr` and `amr`, one of which means that more than one factor was used.
        ca_file: certificates to trust instead of the system's.

    Raises:
        ValueError: they make no sense; the message is the rest of a sentence.
    """

    name: str
    issuer: str
    client_id: str
    allowed_domains: tuple[str, ...]
    client_secret: str | None = field(default=None, repr=False)
    client_secret_file: Path | None = None
    label: str | None = None
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    username_claim: str = "preferred_username"
    username_domain: str | None = None
    email_claim: str = "email"
    name_claim: str = "name"
    organization_claim: str = "organization"
    trust_unverified_email: bool = False
    mfa_acr: tuple[str, ...] = ("https://refeds.org/profile/mfa",)
    mfa_amr: tuple[str, ...] = ("mfa",)
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(
                f"'name' must be lower-case letters, digits and '-', and not 'callback'; it is {self.name!r}"
            )
        if not is_safe_url(self.issuer):
            raise ValueError(f"'issuer' must be an https URL (http only on this machine), not {self.issuer!r}")
        if not self.client_id:
            raise ValueError("'client_id' is empty")
        if self.client_secret and self.client_secret_file:
            raise ValueError("there are both 'client_secret' and 'client_secret_file'; give one")
        if not self.allowed_domains:
            raise ValueError("'allowed_domains' is empty, so nobody could log in; '*' means everybody")
        wrong = [domain for domain in self.allowed_domains if not _DOMAIN.fullmatch(domain.lower())]
        if wrong:
            raise ValueError(f"'allowed_domains' has {wrong[0]!r}; write example.org, *.example.org or *")
        if self.username_domain is not None and not _DOMAIN.fullmatch(self.username_domain.lower().replace("*", "!")):
            raise ValueError(f"'username_domain' must be a domain such as example.org, not {self.username_domain!r}")

    @property
    def shown_as(self) -> str:
        """For people."""
        return self.label or self.name

    @property
    def domain(self) -> str:
        """Put behind user names that have none."""
        return (self.username_domain or urlsplit(self.issuer).hostname or "").lower()

    def secret(self) -> str | None:
        """The client secret; read from its file each time, so that it can be changed there.

        Raises:
            OSError: the file cannot be read.
        """
        if self.client_secret_file is None:
            return self.client_secret
        return self.client_secret_file.read_text(encoding="utf-8").strip()


def is_domain_allowed(domain: str, patterns: tuple[str, ...]) -> bool:
    """Whether `domain` is one of `patterns`: `example.org`, `*.example.org` (below it, not itself) or `*`."""
    domain = domain.lower()
    for pattern in patterns:
        wanted = pattern.lower()
        if wanted in ("*", domain) or (
            wanted.startswith("*.") and domain.endswith(wanted[1:]) and domain != wanted[1:]
        ):
            return True
    return False


def is_safe_url(url: str) -> bool:
    """Whether what we send there cannot be read on the way: https, or http to this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
