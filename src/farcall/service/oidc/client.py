"""Asks one provider: what it is, with which keys it signs, and whose the code is that a browser brought back.

Fetches and remembers; what to believe is `rules`'. Needs only outbound HTTPS, through the environment's proxy if one
is named there. Secrets, codes and tokens appear in no message.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

import httpx
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from farcall.service.oidc.provider import OidcProvider
from farcall.service.oidc.rules import (
    Discovery,
    LoginRefused,
    OidcPerson,
    Pending,
    ProviderUnavailable,
    authorization_parameters,
    check_answer,
    check_claims,
    claims_are_missing,
    discovery_from,
    person_from,
)

__all__ = ["OidcClient"]

_logger = logging.getLogger(__name__)
_TIMEOUT_S: Final = 10.0
_REMEMBER_S: Final = 3600.0
_PAUSE_S: Final = 5.0
"""A provider that does not answer is left alone for so long, whoever wants to log in there."""


class OidcClient:
    """One provider, as seen from here.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, provider: OidcProvider, clock: Callable[[], float]) -> None:
        self.provider = provider
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._discovery: tuple[Discovery, float] | None = None
        self._keys: KeySet | None = None
        self._fault_at: tuple[ProviderUnavailable, float] | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def check(self) -> None:
        """Whether the provider could be used. Raises ProviderUnavailable."""
        self._secret()
        await self._key_set(await self.discover(), anew=True)

    async def discover(self) -> Discovery:
        """The provider's description of itself, an hour old at most.

        Raises:
            ProviderUnavailable: it cannot be had.
        """
        now = self._clock()
        if self._discovery is not None and 0 <= now - self._discovery[1] <= _REMEMBER_S:
            return self._discovery[0]
        if self._fault_at is not None and 0 <= now - self._fault_at[1] < _PAUSE_S:
            raise self._fault_at[0]
        url = self.provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            self._discovery = discovery_from(self.provider, await self._get(url)), now
        except ProviderUnavailable as exc:
            self._fault_at = exc, now
            raise
        return self._discovery[0]

    async def authorization_url(self, pending: Pending) -> str:
        """Where to send the browser. Raises ProviderUnavailable."""
        discovery = await self.discover()
        place = urlsplit(discovery.authorization_endpoint)
        query = parse_qsl(place.query) + list(authorization_parameters(self.provider, discovery, pending).items())
        return urlunsplit(place._replace(query=urlencode(query)))

    async def finish(self, pending: Pending, answer: Mapping[str, str]) -> OidcPerson:
        """Who has logged in.

        Args:
            answer: the query of the callback.

        Raises:
            LoginRefused: nobody has, or nobody whom we let in.
            ProviderUnavailable: the provider cannot be asked.
        """
        discovery = await self.discover()
        code = check_answer(self.provider, discovery, pending, answer, self._clock())
        tokens = await self._redeem(discovery, pending, code)
        claims = await self._claims(discovery, tokens.get("id_token"))
        check_claims(self.provider, pending, claims, self._clock())
        userinfo: Mapping[str, Any] = {}
        if discovery.userinfo_endpoint is not None and claims_are_missing(self.provider, claims):
            authorization = {"authorization": f"Bearer {tokens.get('access_token')}"}
            said = await self._get(discovery.userinfo_endpoint, authorization)
            userinfo = said if isinstance(said, dict) else {}
            if not userinfo:
                raise self._fault("gave no information about the user")
        return person_from(self.provider, claims, userinfo, self._clock())

    async def _redeem(self, discovery: Discovery, pending: Pending, code: str) -> Mapping[str, Any]:
        secret = self._secret()
        methods = discovery.authentication_methods
        in_body = secret is not None and "client_secret_basic" not in methods and "client_secret_post" in methods
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect_uri,
            "code_verifier": pending.verifier,
        }
        auth = None
        if secret is None or in_body:
            form["client_id"] = self.provider.client_id
        if secret is not None and in_body:
            form["client_secret"] = secret
        elif secret is not None:  # RFC 6749, section 2.3.1: encoded before they are joined
            auth = httpx.BasicAuth(quote_plus(self.provider.client_id), quote_plus(secret))
        accepting = {"accept": "application/json"}
        response = await self._ask("POST", discovery.token_endpoint, data=form, headers=accepting, auth=auth)
        try:
            tokens = response.json()
        except ValueError:
            tokens = None
        error = tokens.get("error") if isinstance(tokens, dict) else "no JSON"
        if error == "invalid_grant":
            raise LoginRefused("This login was used already, or took too long. Begin again.")
        if error is not None or response.status_code != 200:
            raise self._fault(f"refused us with {response.status_code} {str(error)[:60]!r}")
        return dict(tokens or {})

    async def _claims(self, discovery: Discovery, id_token: object) -> Mapping[str, Any]:
        """What the ID token says, if it is signed by the provider."""
        if not isinstance(id_token, str):
            raise self._fault("gave no ID token")
        algorithms = list(discovery.algorithms)
        try:
            try:
                return jwt.decode(id_token, await self._key_set(discovery), algorithms).claims
            except (InvalidKeyIdError, BadSignatureError):  # a new key since we asked
                return jwt.decode(id_token, await self._key_set(discovery, anew=True), algorithms).claims
        except (JoseError, ValueError) as exc:
            self._warn(f"ID token: {type(exc).__name__}")
            raise LoginRefused(f"What {self.provider.shown_as} answered is not signed as it should be.") from None

    async def _key_set(self, discovery: Discovery, *, anew: bool = False) -> KeySet:
        if self._keys is None or anew:
            document = await self._get(discovery.jwks_uri)
            try:
                self._keys = KeySet.import_key_set(document)
            except (JoseError, KeyError, TypeError, ValueError) as exc:
                raise self._fault("publishes no keys that can be read") from exc
        return self._keys

    async def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Any:  # any JSON
        response = await self._ask("GET", url, headers={"accept": "application/json", **(headers or {})})
        if response.status_code != 200:
            raise self._fault(f"answers {response.status_code} at {url}")
        try:
            return response.json()
        except ValueError:
            raise self._fault(f"answers with something else than JSON at {url}") from None

    async def _ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        try:
            if self._http is None:
                ca_file = self.provider.ca_file
                context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
                self._http = httpx.AsyncClient(verify=context, timeout=_TIMEOUT_S, follow_redirects=False)
            return await self._http.request(method, url, **more)
        except (httpx.HTTPError, OSError) as exc:
            raise self._fault(f"cannot be reached ({type(exc).__name__})") from exc

    def _secret(self) -> str | None:
        try:
            return self.provider.secret() or None
        except (OSError, UnicodeDecodeError) as exc:
            raise self._fault("has a 'client_secret_file' that cannot be read") from exc

    def _fault(self, what: str) -> ProviderUnavailable:
        self._warn(what)
        return ProviderUnavailable(
            f"The login service {self.provider.shown_as} {what}. Try again in a while, or tell the operator."
        )

    def _warn(self, what: str) -> None:
        _logger.warning(
            "A login provider does not work as it should",
            extra={"event": "login.provider_fault", "provider": self.provider.name, "reason": what},
        )
