"""What requests are sent with: a given token, a program's client id and secret, or a person's kept login.

Owns when a token is renewed and by whom: 60 s before it expires, or when the service refused it; by one thread of one
process at a time, since with each renewal the service gives another refresh token and takes the older one, should
it come back, for a stolen one. `oauth` talks to the service, `tokens` owns the file, `login` asks people.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

from farcall.client.tokens import ServerTokens, StoredToken, TokenStore
from farcall.wire.auth import (
    AUTH_SERVER,
    COMPUTE_SCOPE,
    COMPUTE_SERVER,
    MANAGE_PROJECTS_SCOPE,
    OPENID_SCOPE,
    SessionDemand,
)
from farcall.wire.errors import ApiError, LoginFailed, LoginNotOffered, ServiceUnreachable, Unauthenticated

if TYPE_CHECKING:
    from farcall.client.oauth import OAuth

__all__ = [
    "Again",
    "CallableToken",
    "ClientCredentials",
    "Credential",
    "FixedToken",
    "StoredLogin",
    "credential_for",
    "is_expiring",
]

_log = logging.getLogger(__name__)

_SCOPES_OF_CLIENTS: Mapping[str, str] = {
    COMPUTE_SERVER: COMPUTE_SCOPE,
    AUTH_SERVER: f"{OPENID_SCOPE} {MANAGE_PROJECTS_SCOPE}",
}


class Again(Enum):
    """Whether a refused request may be sent once more."""

    NO = "no"
    OTHER_TOKEN = "other token"
    """Somebody has logged in meanwhile, elsewhere."""
    LOGGED_IN = "logged in"
    """The person was asked to, and has."""


class Credential(Protocol):
    """Where the tokens of requests come from. All methods from any thread."""

    @property
    def origin(self) -> object:
        """Equal for credentials of the same login; to be compared, never shown."""

    def token(self, server: str) -> str | None:
        """What to send to a resource server now; None if there is nothing.

        Raises:
            ServiceUnreachable: it had to be renewed, and nobody answered.
            ApiError: likewise, and the service refused.
        """

    def renewed(self, server: str, refused: str | None) -> bool:
        """The service refused this token (None: a request without): whether there is another one now.

        Raises:
            ServiceUnreachable: nobody answered the question for another.
        """

    def log_in_again(
        self, url: str, demand: SessionDemand, refused: str | None, error: ApiError, stop: threading.Event
    ) -> tuple[Again, ApiError]:
        """The service wants another login: ask for it, if somebody is there; the error to raise if not.

        Args:
            stop: ends the wait for the person when set.
        """

    def refusal(self, url: str, token: str | None, answer: str) -> str:
        """For people: that the service does not accept the token, and what to do."""


def is_expiring(tokens: ServerTokens, now: float) -> bool:
    """Whether another token should be fetched before the next request at `now` (unix seconds)."""
    at = tokens.renew_at if tokens.renew_at is not None else tokens.expires_at
    return at is not None and now >= at


class _Unrenewable:
    """What tokens that were handed to this process have in common: nobody here can do anything about them."""

    def renewed(self, server: str, refused: str | None) -> bool:
        return False

    def log_in_again(
        self, url: str, demand: SessionDemand, refused: str | None, error: ApiError, stop: threading.Event
    ) -> tuple[Again, ApiError]:
        from farcall.client.demand import unanswered

        why = "This program uses a token that it was given, which no login can change."
        return Again.NO, unanswered(error, demand, url, why)

    def refusal(self, url: str, token: str | None, answer: str) -> str:
        return f"The service at {url} does not accept the token that was given ({answer}). {_how(url)}"


class FixedToken(_Unrenewable):
    """One token, to the end.

    Raises:
        ValueError: it cannot be a token.
    """

    def __init__(self, token: str) -> None:
        self._token = checked_token(token)

    @property
    def origin(self) -> object:
        return self._token

    def token(self, server: str) -> str | None:
        return self._token


class CallableToken(_Unrenewable):
    """Somebody else's tokens: asked for with each request."""

    def __init__(self, source: Callable[[], str]) -> None:
        self._source = source

    @property
    def origin(self) -> object:
        return self._source

    def token(self, server: str) -> str | None:
        return checked_token(self._source())


class ClientCredentials:
    """A program's own identity: client id and secret. Its tokens stay in memory.

    Raises:
        Unauthenticated: from `token` and `renewed`: the service does not know id and secret.
    """

    def __init__(
        self, client_id: str, secret: str, *, oauth: Callable[[], OAuth], clock: Callable[[], float] = time.time
    ) -> None:
        self._client_id = client_id
        self._secret = secret
        self._oauth = oauth
        self._clock = clock
        self._tokens: dict[str, ServerTokens] = {}
        self._guard = _Guard()

    def __repr__(self) -> str:
        return f"ClientCredentials(client_id={self._client_id!r}, …)"

    @property
    def origin(self) -> object:
        return ("client", self._client_id)

    def token(self, server: str) -> str | None:
        tokens = self._tokens.get(server)
        if tokens is None or is_expiring(tokens, self._clock()):
            tokens = self._fetched(server, tokens)
        return tokens.access_token

    def renewed(self, server: str, refused: str | None) -> bool:
        tokens = self._tokens.get(server)
        return self._fetched(server, tokens).access_token != refused

    def _fetched(self, server: str, known: ServerTokens | None) -> ServerTokens:
        with self._guard.lock:
            tokens = self._tokens.get(server)
            if tokens is None or tokens is known:  # else another thread was faster
                scope = _SCOPES_OF_CLIENTS.get(server, COMPUTE_SCOPE)
                found = self._oauth().client_credentials(self._client_id, self._secret, scope.split())
                tokens = self._tokens[server] = found.get(server) or next(iter(found.values()))
            return tokens

    def log_in_again(
        self, url: str, demand: SessionDemand, refused: str | None, error: ApiError, stop: threading.Event
    ) -> tuple[Again, ApiError]:
        from farcall.client.demand import unanswered

        why = f"Client {self._client_id} (FARCALL_CLIENT_ID) is a program: it cannot log in as a person does."
        return Again.NO, unanswered(error, demand, url, why)

    def refusal(self, url: str, token: str | None, answer: str) -> str:
        return (
            f"The service at {url} does not accept client {self._client_id} of FARCALL_CLIENT_ID ({answer}). "
            "Its operator can look with `farcall-service client list`."
        )


class StoredLogin:
    """What `farcall login` has kept for a service, renewed when it must be.

    Which user's login it is stays the same once it is known: a program does not change its identity because somebody
    logs in as another in the next window.

    Args:
        account: user name or identity id of the login; the one in use if None.
    """

    def __init__(
        self,
        store: TokenStore,
        url: str,
        *,
        oauth: Callable[[], OAuth],
        account: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._url = url
        self._oauth = oauth
        self._account = account
        self._clock = clock
        self._username: str | None = None
        self._login: StoredToken | None = None
        self._has_read = False
        self._guard = _Guard()
        self._asking = _Guard()

    @property
    def origin(self) -> object:
        if not self._has_read:
            self._read()
        return (self._store.path, self._username)

    def kept(self) -> StoredToken | None:
        """The login, as it is kept now."""
        return self._read()

    def forget(self) -> None:
        """Remove the login from the store."""
        login = self._read()
        if login is not None:
            self._store.remove(self._url, login.username)

    def token(self, server: str) -> str | None:
        login = self._login if self._has_read else self._read()
        tokens = None if login is None else login.at(server)
        if tokens is None:
            return None
        now = self._clock()
        if login is not None and is_expiring(tokens, now):
            try:
                self._renew(server, tokens.access_token)
            except (ServiceUnreachable, ApiError):
                if tokens.expires_at is not None and now >= tokens.expires_at:
                    raise
            login = self._login
            tokens = login.at(server) if login is not None else None
        return None if tokens is None else checked_token(tokens.access_token)

    def renewed(self, server: str, refused: str | None) -> bool:
        return self._renew(server, refused)

    def _renew(self, server: str, refused: str | None) -> bool:
        """See to it that there is another token than `refused`; False if there is none to be had."""
        with self._guard.lock:
            login = self._read()
            if login is None or self._is_good(login, server, refused):
                return login is not None
            tokens = login.at(server)
            if tokens is None or tokens.refresh_token is None or login.client_id is None:
                return False
            username = login.username
            _to_the_end(lambda: self._renew_alone(server, refused, username))
            login = self._login
            tokens = None if login is None else login.at(server)
            return tokens is not None and tokens.access_token != refused

    def _renew_alone(self, server: str, refused: str | None, username: str) -> None:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._store.renewing(self._url, username))
            except OSError as exc:  # renewed but not kept would mean: lost
                raise Unauthenticated(
                    f"The login of {username} at {self._url} must be renewed, and cannot be kept: {exc}"
                ) from exc
            login = self._read()  # another process may have been faster
            tokens = None if login is None else login.at(server)
            if login is None or tokens is None or self._is_good(login, server, refused):
                return
            if tokens.refresh_token is None or login.client_id is None:
                return
            after = self._fresh(login, server, tokens, tokens.refresh_token, login.client_id)
            try:
                is_kept = self._store.replace(self._url, login, after)
            except OSError as exc:
                is_kept = True
                _log.error(
                    "A renewed login could not be stored; other programs will have to log in again.",
                    extra={"event": "login.not_stored", "reason": str(exc), "path": str(self._store.path)},
                )
            if is_kept:
                self._login = after
            else:  # logged out, or in again, meanwhile
                self._read()

    def _fresh(
        self, login: StoredToken, server: str, tokens: ServerTokens, refresh_token: str, client_id: str
    ) -> StoredToken:
        try:
            found = self._oauth().refresh(refresh_token, client_id=client_id)
        except LoginFailed as exc:
            if exc.error != "invalid_grant":
                raise Unauthenticated(f"{exc} {_how(self._url)}") from exc
            _log.info("A login has ended.", extra={"event": "login.ended", "service": self._url})
            return login.with_tokens(server, replace(tokens, refresh_token=None))
        fresh = found.get(server) or next(iter(found.values()))
        if fresh.refresh_token is None:  # a service that does not rotate may leave it out (RFC 6749, 6)
            fresh = replace(fresh, refresh_token=refresh_token)
        return login.with_tokens(server, fresh)

    def _is_good(self, login: StoredToken, server: str, refused: str | None) -> bool:
        tokens = login.at(server)
        return tokens is not None and tokens.access_token != refused and not is_expiring(tokens, self._clock())

    def _read(self) -> StoredToken | None:
        """What the store has now."""
        if self._username is None and self._account is not None:
            self._username = self._named_account(self._account)
        login = self._store.get(self._url, self._username)
        self._login = login
        if login is not None:
            self._username = login.username
        self._has_read = True
        return login

    def _named_account(self, name: str) -> str:
        kept = self._store.accounts(self._url)
        for each in kept:
            if name in (each.login.username, each.login.identity_id):
                return each.login.username
        names = ", ".join(each.login.username for each in kept) or "none"
        raise ValueError(
            f"No login of {name!r} (FARCALL_ACCOUNT) at {self._url} is kept; there are: {names}. "
            f"`farcall login {self._url}` adds one."
        )

    def log_in_again(
        self, url: str, demand: SessionDemand, refused: str | None, error: ApiError, stop: threading.Event
    ) -> tuple[Again, ApiError]:
        from farcall.client import demand as demands
        from farcall.client import login as logins

        with self._asking.lock:
            before = self._login
            if self._is_other(self._read(), refused):
                return Again.OTHER_TOKEN, error
            login, person = self._login or before, logins.person_at_hand()
            if person is None or login is None or login.client_id is None:
                why = "Nobody can be asked here." if login is None or login.client_id else _HANDED_OUT
                return Again.NO, demands.unanswered(error, demand, url, why)
            try:
                fresh = logins.log_in_again(
                    self._oauth(), login, demand, person=person, why=error.message, cancelled=stop
                )
            except (LoginFailed, LoginNotOffered, ServiceUnreachable, ApiError) as exc:
                return Again.NO, demands.unanswered(error, demand, url, str(exc))
            self._store.put(self._url, fresh, use=False)
            self._username = fresh.username
            self._read()
            return Again.LOGGED_IN, error

    def _is_other(self, login: StoredToken | None, refused: str | None) -> bool:
        return (
            login is not None
            and refused is not None
            and all(
                tokens.access_token != refused for tokens in (login.at(COMPUTE_SERVER), login.at(AUTH_SERVER)) if tokens
            )
        )

    def refusal(self, url: str, token: str | None, answer: str) -> str:
        if token is None:
            whose = "" if self._username is None else f" of {self._username}"
            return f"There is no token{whose} for the service at {url}. {_how(url)}"
        whose = f"the token of {self._username} in {self._store.path}"
        return f"The service at {url} does not accept {whose} ({answer}). {_how(url)}"


_HANDED_OUT = "The token that is kept was handed out by the operator, and belongs to no login."


def credential_for(
    url: str,
    token: str | Callable[[], str] | None,
    store: TokenStore,
    oauth: Callable[[], OAuth],
    environment: Mapping[str, str] = os.environ,
) -> Credential:
    """The credential for a service. The first of these that is there counts:

    1. `token`, what the program gives; 2. `FARCALL_TOKEN`; 3. `FARCALL_CLIENT_ID` with `FARCALL_CLIENT_SECRET`;
    4. the kept login of `FARCALL_ACCOUNT`; 5. the kept login in use.

    Raises:
        ValueError: a token cannot be one, or only one of client id and secret is set.
    """
    if callable(token):
        return CallableToken(token)
    fixed = token or environment.get("FARCALL_TOKEN")
    if fixed:
        return FixedToken(fixed)
    client_id, secret = environment.get("FARCALL_CLIENT_ID"), environment.get("FARCALL_CLIENT_SECRET")
    if client_id and secret:
        return ClientCredentials(client_id.strip(), secret.strip(), oauth=oauth)
    if client_id or secret:
        there, missing = ("ID", "SECRET") if client_id else ("SECRET", "ID")
        raise ValueError(
            f"FARCALL_CLIENT_{there} is set and FARCALL_CLIENT_{missing} is not: a program needs both to log in. "
            "Set the other one too, or unset this one to use the login of `farcall login`."
        )
    return StoredLogin(store, url, oauth=oauth, account=environment.get("FARCALL_ACCOUNT") or None)


def checked_token(token: str) -> str:
    """`token` without blanks around it.

    Raises:
        ValueError: it cannot be a token.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is no token: it must be one word of printable ASCII characters")
    return token


def _how(url: str) -> str:
    from farcall.client.login import in_notebook

    if in_notebook():
        return f'Log in with `farcall.login("{url}")`, or put a token into FARCALL_TOKEN.'
    return f"Log in with `farcall login {url}`, or put a token into FARCALL_TOKEN."


class _Guard:
    """A lock that a forked child does not find held by a thread of its parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def lock(self) -> threading.Lock:
        if os.getpid() != self._pid:
            self._pid, self._lock = os.getpid(), threading.Lock()
        return self._lock


_T = TypeVar("_T")


def _to_the_end(work: Callable[[], _T]) -> _T:
    """Do something that Ctrl-C must not cut in two: between the service's answer and the disk a login would be lost."""
    done: list[_T] = []
    failed: list[BaseException] = []
    is_over = threading.Event()

    def run() -> None:
        try:
            done.append(work())
        except BaseException as exc:
            failed.append(exc)
        finally:
            is_over.set()

    thread = threading.Thread(target=run, name="farcall-renew", daemon=False)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending, and gives no more threads
        return work()
    is_over.wait()  # not `join`: before Python 3.13 one that is interrupted takes the thread for ended
    if failed:
        raise failed[0]
    return done[0]
