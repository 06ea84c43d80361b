"""The logins of all providers: begun here, kept by the browser in a sealed cookie, finished when it comes back.

Decides nothing about people (`rules`), fetches nothing (`client`) and writes nothing (`store`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from farcall.service.oidc.client import OidcClient
from farcall.service.oidc.provider import OidcProvider
from farcall.service.oidc.rules import PENDING_S, LoginRefused, OidcPerson, Pending, new_pending
from farcall.service.web.sealed import seal, unseal
from farcall.wire.errors import InvalidRequest, NotFound

__all__ = ["COOKIE_PREFIX", "Begun", "Finished", "OidcLogins"]

COOKIE_PREFIX: Final = "farcall_oidc_"
"""One cookie for each login that is on its way, so that two tabs do not disturb each other."""
_PURPOSE: Final = "oidc-login"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A login that the browser shall take to the provider.

    Attributes:
        url: where to.
        cookie, value: what it shall keep until it comes back.
    """

    url: str
    cookie: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A login that came back good.

    Attributes:
        cookie: what the browser can forget.
        next: as it was given to `begin`.
        link_session: likewise.
    """

    person: OidcPerson
    cookie: str
    next: str
    link_session: str | None


class OidcLogins:
    """All providers of a service.

    Args:
        secret: the service's; the cookies are sealed with it.
        clock: Unix seconds.
    """

    def __init__(self, providers: Sequence[OidcProvider], secret: bytes, clock: Callable[[], float]) -> None:
        self._clients = {provider.name: OidcClient(provider, clock) for provider in providers}
        self._secret = secret
        self._clock = clock

    @property
    def providers(self) -> Sequence[OidcProvider]:
        """In the order of their buttons."""
        return [client.provider for client in self._clients.values()]

    def label(self, name: str | None) -> str | None:
        """What people know a provider by; None: a provider that is no longer there, or this service."""
        client = self._clients.get(name or "")
        return None if client is None else client.provider.shown_as

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def begin(
        self,
        name: str,
        *,
        redirect_uri: str,
        next: str,
        link_session: str | None = None,
        max_age_s: int | None = None,
        prompt: bool = False,
        wants_mfa: bool = False,
        hint: str | None = None,
    ) -> Begun:
        """A login at the provider `name`.

        Args:
            redirect_uri: of our callback, as the browser sees it.
            next: where the login shall lead; a path of this service.
            link_session: the session whose person wants this identity, too; None: log in with it.
            max_age_s, prompt, wants_mfa, hint: see `Pending`.

        Raises:
            NotFound: there is no such provider.
            InvalidRequest: `next` is too long to be kept.
            ProviderUnavailable: it does not answer.
        """
        client = self._client(name)
        now = self._clock()
        pending = new_pending(
            client.provider,
            redirect_uri=redirect_uri,
            now=now,
            max_age_s=max_age_s,
            prompt=prompt,
            wants_mfa=wants_mfa,
            hint=hint and hint[:200],
        )
        url = await client.authorization_url(pending)
        document = {"pending": asdict(pending), "next": next, "link_session": link_session}
        try:
            value = seal(self._secret, _PURPOSE, document, expires_at=now + PENDING_S)
        except ValueError:
            raise InvalidRequest("The address that this login shall lead to is too long.") from None
        return Begun(url=url, cookie=_cookie(pending.state), value=value)

    async def finish(self, answer: Mapping[str, str], cookies: Mapping[str, str]) -> Finished:
        """Who came back.

        Args:
            answer: the query of the callback.

        Raises:
            LoginRefused, ProviderUnavailable: see `OidcClient.finish`; or this browser has begun no such login.
        """
        cookie = _cookie(answer.get("state", ""))
        document = unseal(self._secret, _PURPOSE, cookies.get(cookie), now=self._clock())
        if document is None:
            raise LoginRefused(
                "This browser has not begun this login, or too long ago, or it keeps no cookies. Begin again."
            )
        pending = Pending(**document["pending"])
        try:
            client = self._client(pending.provider)
        except NotFound:
            raise LoginRefused("This way to log in was removed meanwhile. Begin again.") from None
        person = await client.finish(pending, answer)
        return Finished(person=person, cookie=cookie, next=document["next"], link_session=document["link_session"])

    def _client(self, name: str) -> OidcClient:
        client = self._clients.get(name)
        if client is None:
            raise NotFound(f"There is no login provider {name[:40]!r} here.")
        return client


def _cookie(state: str) -> str:
    return COOKIE_PREFIX + hashlib.sha256(state.encode(errors="replace")).hexdigest()[:16]
