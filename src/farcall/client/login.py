"""Leads a person through a login: in a browser on this machine, or with a code on any other device.

Decides which of the two, says what to do, and waits. `oauth` has the protocol, `loopback` the browser's way back,
`tokens` keeps what comes out. Who is spoken to is a `Person`: a terminal, a notebook, or whatever a command makes.

Source: RFC 8252 (native apps), RFC 8628 (device), wire protocol, native login.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from farcall.client.demand import sentence
from farcall.client.loopback import Loopback
from farcall.client.oauth import OAuth, Pkce
from farcall.client.tokens import ServerTokens, StoredToken, TokenStore
from farcall.wire.auth import AUTH_SERVER, CLIENT_ID, COMPUTE_SERVER, LOGIN_SCOPES, SessionDemand
from farcall.wire.errors import LoginFailed, RateLimited, ServiceUnavailable, ServiceUnreachable, Unauthenticated

__all__ = [
    "Flow",
    "NotebookPerson",
    "Person",
    "TerminalPerson",
    "WaitFor",
    "after_poll",
    "best_flow",
    "in_notebook",
    "kept_login",
    "log_in",
    "log_in_again",
    "person_at_hand",
]

PATIENCE_S = 600.0
"""How long a browser is waited for; a device code says itself how long it counts."""

_SLOWER_S = 5.0


class Flow(Enum):
    """How a person logs in."""

    BROWSER = "browser"
    """In a browser on this machine, which is opened."""
    LINK = "link"
    """In a browser on this machine, which the person opens."""
    DEVICE = "device"
    """On any device, with a code."""


class Person(Protocol):
    """Who logs in."""

    flow: Flow
    """What suits where the person sits."""

    break_off: str
    """How a wait is broken off there, for people."""

    def tell(self, text: str) -> None: ...

    def show_link(self, url: str) -> None:
        """An address to be opened; on a line of its own, so that it can be clicked or copied."""

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """For as long as the person is waited for."""


class TerminalPerson:
    """Somebody at a terminal; messages go to standard error, where they do not mix with a program's output."""

    break_off = "Ctrl-C"

    def __init__(self, flow: Flow | None = None) -> None:
        self.flow = flow or best_flow(os.environ, sys.platform)

    def tell(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def show_link(self, url: str) -> None:
        self.tell(f"\n  {url}\n")

    def waiting(self, text: str) -> AbstractContextManager[object]:
        self.tell(text)
        return contextlib.nullcontext()


class NotebookPerson:
    """Somebody at a notebook, whose kernel may run anywhere: a code, and a link that can be clicked."""

    flow = Flow.DEVICE
    break_off = "Interrupting the kernel"

    def tell(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201

    def show_link(self, url: str) -> None:
        self.tell(f"\n  {url}\n")

    def waiting(self, text: str) -> AbstractContextManager[object]:
        self.tell(text)
        return contextlib.nullcontext()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def person_at_hand() -> Person | None:
    """Whom this process can ask: somebody at a notebook or a terminal; None if nobody is there."""
    if in_notebook():
        return NotebookPerson()
    try:
        is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, or there is none
        return None
    return TerminalPerson() if is_terminal else None


def best_flow(environment: Mapping[str, str], platform: str) -> Flow:
    """What suits a terminal: a browser if one can be opened where the person sits, else a code."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return Flow.DEVICE
    if platform in ("darwin", "win32", "cygwin"):
        return Flow.BROWSER
    has_display = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY") or environment.get("BROWSER")
    return Flow.BROWSER if has_display else Flow.DEVICE


def kept_login(url: str, store: TokenStore) -> StoredToken | None:
    """The login in use at a service, renewed if it had to be; None if there is none that the service takes.

    Raises:
        ServiceUnreachable: nobody answers.
    """
    from farcall.client.credentials import StoredLogin
    from farcall.client.rest import ApiClient

    if store.get(url) is None:
        return None
    with ApiClient(url, "none", store=store) as anonymous:
        credential = StoredLogin(store, url, oauth=anonymous.oauth)
        with contextlib.suppress(Unauthenticated), ApiClient(url, credential=credential, store=store) as client:
            client.whoami()
            return credential.kept()
    return None


def log_in(
    oauth: OAuth,
    *,
    person: Person,
    flow: Flow | None = None,
    demand: SessionDemand | None = None,
    cancelled: threading.Event | None = None,
) -> StoredToken:
    """Lead a person through a login, and return what came of it. Nothing is stored.

    Args:
        flow: the person's own if None.
        demand: what the login must fulfil.
        cancelled: ends the wait when set.

    Raises:
        LoginNotOffered: the service has no such login.
        LoginFailed: refused, not done in time, or cancelled.
        ServiceUnreachable: nobody answers.
    """
    demand, cancelled = demand or SessionDemand(), cancelled or threading.Event()
    by = _with_code if (flow or person.flow) is Flow.DEVICE else _with_browser
    tokens = by(oauth, person, flow or person.flow, demand, cancelled)
    main = tokens.pop(COMPUTE_SERVER, None)
    if main is None:
        raise LoginFailed(oauth.url, "invalid_response", "it brought no token for running functions")
    identity = oauth.whose(main.access_token)
    return StoredToken(
        access_token=main.access_token,
        refresh_token=main.refresh_token,
        expires_at=main.expires_at,
        renew_at=main.renew_at,
        scope=main.scope,
        identity_id=str(identity.get("identity_id")),
        username=str(identity.get("username")),
        client_id=CLIENT_ID,
        others=tokens,
    )


def log_in_again(
    oauth: OAuth,
    before: StoredToken,
    demand: SessionDemand,
    *,
    person: Person,
    why: str,
    cancelled: threading.Event,
) -> StoredToken:
    """Have the person behind a login log in once more, in the way that the service demands.

    Args:
        why: what the service said when it refused.

    Raises:
        LoginFailed: as `log_in`, or it was another person.
    """
    names = {before.identity_id: before.username}
    person.tell(f"{why.strip()}\n{sentence(demand, told=why, names=names)}".strip())
    after = log_in(oauth, person=person, demand=demand, cancelled=cancelled)
    if after.identity_id != before.identity_id:
        of_auth = after.at(AUTH_SERVER)
        linked = oauth.linked(of_auth.access_token) if of_auth is not None else frozenset()
        if before.identity_id not in linked:
            raise LoginFailed(
                oauth.url,
                "identity_mismatch",
                f"you logged in as {after.username}, and this is the work of {before.username}",
            )
    person.tell(f"Logged in as {after.username}.")
    return after


# --- in a browser on this machine


def _with_browser(
    oauth: OAuth, person: Person, flow: Flow, demand: SessionDemand, cancelled: threading.Event
) -> dict[str, ServerTokens]:
    pkce, state = Pkce.new(), secrets.token_urlsafe(24)
    redirect_uri = ""

    def redeem(code: str) -> dict[str, ServerTokens]:
        return oauth.redeem(code, client_id=CLIENT_ID, redirect_uri=redirect_uri, pkce=pkce)

    with Loopback(oauth.url, state, redeem) as loopback:
        redirect_uri = loopback.redirect_uri
        url = oauth.authorization_url(
            client_id=CLIENT_ID,
            redirect_uri=redirect_uri,
            scopes=LOGIN_SCOPES,
            state=state,
            pkce=pkce,
            demand=demand,
        )
        if flow is Flow.BROWSER and _open(url):
            person.tell("Your browser opens for the login. If it does not, open this address in it:")
        else:
            person.tell("To log in, open this address in a browser on this machine:")
        person.show_link(url)
        with person.waiting(f"Waiting for your login in the browser. {person.break_off} breaks it off."):
            return loopback.wait(cancelled, PATIENCE_S)


def _open(url: str) -> bool:
    try:
        return webbrowser.open(url)
    except (webbrowser.Error, OSError):
        return False


# --- with a code on any device


@dataclass(frozen=True, kw_only=True)
class WaitFor:
    """How long to wait before the service is asked again; `interval_s` is from now on the usual time."""

    interval_s: float


def after_poll(error: LoginFailed | ServiceUnreachable | Exception, interval_s: float) -> WaitFor | None:
    """What follows when the service has given no tokens (yet); None: it never will. Source: RFC 8628, 3.5."""
    if isinstance(error, LoginFailed):
        if error.error == "authorization_pending":
            return WaitFor(interval_s=interval_s)
        return WaitFor(interval_s=interval_s + _SLOWER_S) if error.error == "slow_down" else None
    if isinstance(error, (ServiceUnreachable, RateLimited, ServiceUnavailable)):
        return WaitFor(interval_s=min(interval_s * 2, 60.0))
    return None


def _with_code(
    oauth: OAuth, person: Person, flow: Flow, demand: SessionDemand, cancelled: threading.Event
) -> dict[str, ServerTokens]:
    code = oauth.begin_device(client_id=CLIENT_ID, scopes=LOGIN_SCOPES, demand=demand)
    person.tell("To log in, open this address in a browser on any device:")
    person.show_link(code.verification_uri_complete or code.verification_uri)
    person.tell(f"and check or enter the code  {code.user_code}")
    ends_s, interval_s = time.monotonic() + code.expires_in_s, code.interval_s
    minutes = max(1, round(code.expires_in_s / 60))
    patience = f"the code counts for {minutes} min. {person.break_off} breaks it off."
    with person.waiting(f"\nWaiting for your login; {patience}"):
        while not cancelled.wait(min(interval_s, max(0.0, ends_s - time.monotonic()))):
            try:
                return oauth.redeem_device(code.device_code, client_id=CLIENT_ID)
            except Exception as exc:
                wait = after_poll(exc, interval_s)
                if wait is None:
                    raise
                interval_s = wait.interval_s
            if time.monotonic() >= ends_s:
                raise LoginFailed(oauth.url, "expired_token")
    raise LoginFailed(oauth.url, "cancelled", "it was broken off")
