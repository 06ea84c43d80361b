"""The client's side of OAuth2 and OpenID Connect at one service: discovery, tokens, revocation.

Knows the forms and documents; `http` sends, `login` leads a person through, `credentials` keeps tokens fresh. No
library: what a public client needs are four forms and a hash (decision 15).

Source: RFC 6749 (tokens), RFC 7636 (PKCE), RFC 7009 (revocation), RFC 8628 (device), OpenID Connect Discovery;
wire protocol, token endpoint.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from farcall.client.tokens import ServerTokens, StoredToken
from farcall.wire.auth import COMPUTE_SERVER, SessionDemand
from farcall.wire.errors import LoginFailed, LoginNotOffered, RateLimited, ServiceUnavailable, Unauthenticated

if TYPE_CHECKING:
    from farcall.client.http import Answer, HttpSession

__all__ = [
    "DeviceCode",
    "OAuth",
    "Pkce",
    "Provider",
    "tokens_from_document",
]

RENEWED_BEFORE_S = 60.0
"""So long before its end a token is not sent any more. Source: wire protocol, token endpoint, `expires_in`."""

_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Where a service's login is. Source: OpenID Connect Discovery, provider metadata."""

    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str | None = None
    device_authorization_endpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pkce:
    """A secret of one login, and what is shown of it before. Source: RFC 7636, method S256."""

    verifier: str
    challenge: str

    @classmethod
    def new(cls) -> Pkce:
        verifier = secrets.token_urlsafe(64)
        digest = hashlib.sha256(verifier.encode("ascii")).digest()
        return cls(verifier=verifier, challenge=base64.urlsafe_b64encode(digest).rstrip(b"=").decode())


@dataclass(frozen=True, kw_only=True)
class DeviceCode:
    """A login that somebody confirms on another device. Times in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in_s: float
    interval_s: float


class OAuth:
    """One service's OAuth2 server.

    Args:
        session: sends; needs no credential.
        clock: unix seconds.
    """

    def __init__(self, session: HttpSession, *, clock: Callable[[], float] = time.time) -> None:
        self._session = session
        self._clock = clock
        self._provider: Provider | None = None

    @property
    def url(self) -> str:
        return self._session.url

    def provider(self) -> Provider:
        """Where the login is; asked for once.

        Raises:
            LoginNotOffered: the service has none.
            ServiceUnreachable: nobody answers.
        """
        if self._provider is None:
            answer = self._session.exchange("GET", _DISCOVERY, is_repeatable=True)
            document = _document(answer) if answer.status == 200 else {}
            try:
                self._provider = Provider(
                    authorization_endpoint=str(document["authorization_endpoint"]),
                    token_endpoint=str(document["token_endpoint"]),
                    revocation_endpoint=document.get("revocation_endpoint"),
                    device_authorization_endpoint=document.get("device_authorization_endpoint"),
                )
            except KeyError:
                if answer.status >= 500:
                    self._raise(answer)
                raise LoginNotOffered(self.url, "login for people or programs") from None
        return self._provider

    def authorization_url(
        self,
        *,
        client_id: str,
        redirect_uri: str,
        scopes: Iterable[str],
        state: str,
        pkce: Pkce,
        demand: SessionDemand,
    ) -> str:
        """The page where a person logs in. Source: wire protocol, native login."""
        endpoint = self.provider().authorization_endpoint
        query = {
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys((*scopes, *demand.scopes))),
            "state": state,
            "response_type": "code",
            "access_type": "offline",
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
            **demand.to_query(),
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def redeem(self, code: str, *, client_id: str, redirect_uri: str, pkce: Pkce) -> dict[str, ServerTokens]:
        """Tokens for the code that the browser brought back, by resource server.

        Raises:
            LoginFailed: the code does not count.
        """
        form = {
            "grant_type": "authorization_code",
            "client_id": client_id,
            "code": code,
            "code_verifier": pkce.verifier,
            "redirect_uri": redirect_uri,
        }
        return self._tokens(form)

    def refresh(self, refresh_token: str, *, client_id: str) -> dict[str, ServerTokens]:
        """The next tokens; the service may have made `refresh_token` worthless by giving another.

        Raises:
            LoginFailed: it does not count (any more).
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client_id}
        return self._tokens(form)

    def client_credentials(self, client_id: str, secret: str, scopes: Iterable[str]) -> dict[str, ServerTokens]:
        """Tokens of a program, which has an identity of its own.

        Raises:
            Unauthenticated: id or secret are wrong, or the client was revoked.
        """
        basic = base64.b64encode(f"{quote(client_id, safe='')}:{quote(secret, safe='')}".encode()).decode()
        form = {"grant_type": "client_credentials", "scope": " ".join(scopes)}
        try:
            return self._tokens(form, {"authorization": f"Basic {basic}"})
        except LoginFailed as exc:
            if exc.error not in ("invalid_client", "unauthorized_client"):
                raise
            raise Unauthenticated(
                f"The service at {self.url} does not accept the client {client_id} with the secret in "
                "FARCALL_CLIENT_SECRET: one of them is wrong, or its operator revoked the client."
            ) from exc

    def begin_device(self, *, client_id: str, scopes: Iterable[str], demand: SessionDemand) -> DeviceCode:
        """Begin a login that is confirmed on another device.

        Raises:
            LoginNotOffered: the service has no such login.
            LoginFailed: it refused.
        """
        endpoint = self.provider().device_authorization_endpoint
        if not endpoint:
            raise LoginNotOffered(self.url, "login with a code")
        form = {
            "client_id": client_id,
            "scope": " ".join(dict.fromkeys((*scopes, *demand.scopes))),
            "access_type": "offline",
            **demand.to_query(),
        }
        answer = self._session.exchange("POST", endpoint, form=form, is_repeatable=True)
        document = self._good(answer)
        try:
            return DeviceCode(
                device_code=str(document["device_code"]),
                user_code=str(document["user_code"]),
                verification_uri=str(document["verification_uri"]),
                verification_uri_complete=document.get("verification_uri_complete"),
                expires_in_s=float(document["expires_in"]),
                interval_s=float(document.get("interval") or 5),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise LoginFailed(self.url, "invalid_response", f"its answer makes no sense ({exc!r})") from exc

    def redeem_device(self, device_code: str, *, client_id: str) -> dict[str, ServerTokens]:
        """Tokens, once the person has confirmed.

        Raises:
            LoginFailed: not (yet): `authorization_pending`, `slow_down`, `access_denied`, `expired_token`.
        """
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device_code,
            "client_id": client_id,
        }
        return self._tokens(form)

    def revoke(self, token: str, *, client_id: str) -> None:
        """Have the service forget a token. One that does not count (any more) is no error."""
        endpoint = self.provider().revocation_endpoint
        if not endpoint:
            raise LoginNotOffered(self.url, "revocation of tokens")
        self._good(
            self._session.exchange("POST", endpoint, form={"token": token, "client_id": client_id}, is_repeatable=True),
            may_be_empty=True,
        )

    def revoke_login(self, login: StoredToken) -> None:
        """Have the service forget all tokens of a login that was made here."""
        assert login.client_id is not None
        for tokens in (login.at(COMPUTE_SERVER), *login.others.values()):
            for token in (tokens.refresh_token, tokens.access_token) if tokens is not None else ():
                if token is not None:
                    self.revoke(token, client_id=login.client_id)

    def whose(self, access_token: str) -> dict[str, Any]:
        """The identity behind an access token: `identity_id` and `username`."""
        headers = {"authorization": f"Bearer {access_token}"}
        return self._good(self._session.exchange("GET", "/v3/whoami", headers=headers, is_repeatable=True))

    def linked(self, access_token: str) -> frozenset[str]:
        """Ids of all identities of the person behind a token for the login's own resource server; empty if unknown."""
        headers = {"authorization": f"Bearer {access_token}"}
        answer = self._session.exchange("GET", "/v2/oauth2/userinfo", headers=headers, is_repeatable=True)
        identities = _document(answer).get("identity_set") if answer.status == 200 else None
        return frozenset(str(each.get("sub")) for each in identities or () if isinstance(each, dict))

    # --- inside

    def _tokens(self, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> dict[str, ServerTokens]:
        endpoint = self.provider().token_endpoint
        # Not repeatable: codes and rotating refresh tokens count once.
        answer = self._session.exchange("POST", endpoint, form=form, headers=headers, is_repeatable=False)
        try:
            return tokens_from_document(self._good(answer), now=self._clock())
        except ValueError as exc:
            raise LoginFailed(self.url, "invalid_response", str(exc)) from exc

    def _good(self, answer: Answer, *, may_be_empty: bool = False) -> dict[str, Any]:
        if answer.status < 300:
            document = _document(answer)
            if not document and not may_be_empty:
                raise LoginFailed(self.url, "invalid_response", "it answered something that is no JSON object")
            return document
        self._raise(answer)
        raise AssertionError("unreachable")

    def _raise(self, answer: Answer) -> None:
        document = _document(answer)
        error, description = document.get("error"), document.get("error_description")
        if not isinstance(error, str):
            text = next((str(document[key]) for key in ("message", "detail") if document.get(key)), "")
            told = text or f"HTTP {answer.status} {answer.reason}"
            if answer.status == 429:
                raise RateLimited(told)
            if answer.status >= 500:
                raise ServiceUnavailable(f"The service at {self.url} cannot log anybody in just now ({told}).")
            raise LoginFailed(self.url, str(document.get("code") or answer.status), told)
        raise LoginFailed(self.url, error, description if isinstance(description, str) else "")


def tokens_from_document(document: Mapping[str, Any], *, now: float) -> dict[str, ServerTokens]:
    """The tokens of an answer of the token endpoint, by resource server.

    Args:
        now: unix seconds, when the answer came.

    Raises:
        ValueError: it has no access token, or one for no resource server.

    Source: wire protocol, token endpoint.
    """
    found: dict[str, ServerTokens] = {}
    for each in (document, *(document.get("other_tokens") or ())):
        if not isinstance(each, Mapping) or not isinstance(each.get("access_token"), str):
            raise ValueError("a token document has no access_token")
        lifetime_s, refresh_token = _lifetime_s(each.get("expires_in")), each.get("refresh_token")
        found[str(each.get("resource_server") or "")] = ServerTokens(
            access_token=each["access_token"],
            refresh_token=refresh_token if isinstance(refresh_token, str) and refresh_token else None,
            expires_at=None if lifetime_s is None else now + lifetime_s,
            renew_at=None if lifetime_s is None else now + max(lifetime_s - RENEWED_BEFORE_S, lifetime_s / 2),
            scope=str(each.get("scope") or ""),
        )
    if "" in found:
        raise ValueError("a token document names no resource_server")
    return found


def _lifetime_s(value: Any) -> float | None:  # any JSON value
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def _document(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
