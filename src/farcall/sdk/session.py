"""`login`: what `farcall login` does, from a notebook or a Python prompt."""

from __future__ import annotations

import threading

from farcall.client.rest import ApiClient
from farcall.client.settings import service_url
from farcall.client.tokens import TokenStore
from farcall.wire.auth import SessionDemand
from farcall.wire.errors import Unauthenticated

__all__ = ["login"]


def login(url: str | None = None, *, device: bool | None = None, force: bool = False) -> str:
    """Log in at a service from a notebook or a Python prompt, and remember both as what is used from now on.

    Args:
        url: of the service; by default `FARCALL_SERVICE_URL`, what was remembered, localhost.
        device: with a code that is confirmed in a browser on any device; by default where no browser can be opened,
            and always in a notebook.
        force: even if a login is kept; as another person, for example.

    Returns:
        The user name.

    Raises:
        Unauthenticated: nobody is here who could log in.
        LoginFailed: it was refused, or not done in time.
        LoginNotOffered: the service has no such login.
        ServiceUnreachable: nobody answers.
        ValueError: `url` is no address.
    """
    from farcall.client.login import Flow, kept_login, log_in, person_at_hand  # a web server, for once in a month

    store = TokenStore()
    address = service_url(url, store)
    made = None if force else kept_login(address, store)
    if made is None:
        person = person_at_hand()
        if person is None:
            raise Unauthenticated(
                f"Nobody is here to log in at {address}. A person can use `farcall login {address}` in a terminal; a "
                "program FARCALL_CLIENT_ID and FARCALL_CLIENT_SECRET, or FARCALL_TOKEN."
            )
        cancelled = threading.Event()
        try:
            with ApiClient(address, "none", store=store) as anonymous:
                made = log_in(
                    anonymous.oauth(),
                    person=person,
                    flow=None if device is None else Flow.DEVICE if device else Flow.BROWSER,
                    demand=SessionDemand(prompt="login" if force else None),
                    cancelled=cancelled,
                )
        finally:
            cancelled.set()
        store.put(address, made)
        person.tell(f"Logged in as {made.username} at {address}.")
    store.set_default(address)
    return made.username
