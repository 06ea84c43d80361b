"""`farcall-service check`, as far as login providers go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from farcall.service.db.upkeep import Finding
from farcall.service.oidc.client import OidcClient
from farcall.service.oidc.provider import OidcProvider
from farcall.wire.errors import FarcallError

__all__ = ["check_providers"]


def check_providers(providers: Sequence[OidcProvider]) -> Sequence[Finding]:
    """Ask each provider for its description and its keys. A service starts without them, so nothing worse is found
    than a warning; whether client id and secret are right shows when somebody logs in.
    """
    return list(_findings(providers))


def _findings(providers: Sequence[OidcProvider]) -> Iterator[Finding]:
    for provider in providers:
        what = f"login provider {provider.name}"
        try:
            asyncio.run(_ask(provider))
        except FarcallError as exc:
            remedy = (
                f"Look at [[oidc]] name = {provider.name!r} in the settings, and at the way out (HTTPS_PROXY, ca_file)."
            )
            yield Finding(what=what, status="warning", text=str(exc), remedy=remedy)
        else:
            yield Finding(what=what, status="ok", text=f"The login provider {provider.shown_as} answers.")


async def _ask(provider: OidcProvider) -> None:
    client = OidcClient(provider, time.time)
    try:
        await client.check()
    finally:
        await client.close()
