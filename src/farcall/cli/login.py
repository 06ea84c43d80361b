"""What `farcall` and `farcall-endpoint` have in common: login, logout, whoami, accounts, switch.

Composes the login with the terminal and the token store. Errors are raised; each command ends with them in its way.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from farcall.client.settings import canonical_url, service_url
from farcall.client.tokens import Account, StoredToken, TokenStore
from farcall.wire.auth import SessionDemand
from farcall.wire.errors import FarcallError, LoginNotOffered, Unauthenticated

__all__ = [
    "Wish",
    "login",
    "login_options",
    "logout",
    "qr_code",
    "show_accounts",
    "switch",
    "whoami",
]

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How somebody wants to log in: what the options say."""

    device: bool = False
    no_browser: bool = False
    token: bool = False
    force: bool = False
    session_policy: tuple[str, ...] = ()
    session_identity: tuple[str, ...] = ()
    session_domain: tuple[str, ...] = ()
    session_mfa: bool = False
    scope: tuple[str, ...] = ()
    ca_file: Path | None = None

    @property
    def demand(self) -> SessionDemand:
        return SessionDemand(
            policies=self.session_policy,
            identities=self.session_identity,
            domains=self.session_domain,
            mfa=True if self.session_mfa else None,
            scopes=self.scope,
            prompt="login" if self.force else None,
        )

    @property
    def is_for_a_person(self) -> bool:
        """Whether only a person can do it: a token that happens to be there is not what is meant."""
        return self.device or self.no_browser or self.demand not in (SessionDemand(), SessionDemand(prompt="login"))


def login_options(function: _F) -> _F:
    """The options of `login`; they make a `Wish`."""
    for option in (
        click.option("--device", is_flag=True, help="With a code that you confirm in a browser on any device."),
        click.option("--no-browser", is_flag=True, help="Print the address instead of opening a browser."),
        click.option("--token", is_flag=True, help="With a token that you paste, pipe in, or have in FARCALL_TOKEN."),
        click.option("--force", is_flag=True, help="Even if a login is kept that works: log in afresh, or as another."),
        click.option(
            "--session-policy", multiple=True, metavar="ID", help="Meet this authentication policy. Repeatable."
        ),
        click.option(
            "--session-identity", multiple=True, metavar="USER", help="Prove to be this identity. Repeatable."
        ),
        click.option("--session-domain", multiple=True, metavar="DOMAIN", help="With an account of this domain."),
        click.option("--session-mfa", is_flag=True, help="With a second factor."),
        click.option("--scope", multiple=True, metavar="SCOPE", help="Ask for this scope too. Repeatable."),
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path),
            help="Accept only certificates of the authorities in this PEM file from the service; remembered for URL. "
            "'system' forgets it.",
        ),
    ):
        function = option(function)
    return function


def login(url: str | None, wish: Wish) -> None:
    """Log in at a service, and remember both as what is used from now on.

    Raises:
        Unauthenticated: nobody is there to log in.
        LoginFailed, LoginNotOffered, ApiError, ServiceUnreachable: as `farcall.client.login.log_in`.
        CaFileUnusable: there are no certificates in the file.
        ValueError: `url` is no address.
    """
    from farcall.cli.authorities import remember_ca_file
    from farcall.client.login import kept_login

    store = TokenStore()
    address = service_url(url, store)
    remember_ca_file(store, address, wish.ca_file)
    given = None if wish.is_for_a_person else os.environ.get("FARCALL_TOKEN") or _piped_token()
    kept = None if given or wish.is_for_a_person or wish.force or wish.token else kept_login(address, store)
    if given or wish.token:
        login = _checked_login(address, given or _asked_token(address), store)
    else:
        login = kept or _new_login(address, wish, store)
    if kept is None:
        store.put(address, login)
    store.set_default(address)
    done = "Already logged in" if kept else "Logged in"
    click.echo(f"{done} as {login.username} at {address}, which is the default from now on.")
    others = [each.login.username for each in store.accounts(address) if not each.is_used]
    if others:
        click.echo(f"Also kept: {', '.join(others)} (`farcall switch NAME` uses another).")
    for text in _overriding(address, login, os.environ, is_from_environment=given is not None):
        click.echo(f"But not in this terminal: {text}.", err=True)


def _overriding(
    address: str, login: StoredToken, environment: Mapping[str, str], *, is_from_environment: bool
) -> Iterator[str]:
    """What makes this terminal use something else than the login that was just made."""
    url = environment.get("FARCALL_SERVICE_URL")
    if url and canonical_url(url) != canonical_url(address):
        yield f"FARCALL_SERVICE_URL is set, to {url}"
    if environment.get("FARCALL_TOKEN"):
        if not is_from_environment:
            yield "FARCALL_TOKEN is set, and goes before every login"
    elif environment.get("FARCALL_CLIENT_ID"):
        yield f"FARCALL_CLIENT_ID is set, to {environment['FARCALL_CLIENT_ID']}, and goes before every login"
    elif environment.get("FARCALL_ACCOUNT") not in (None, "", login.username, login.identity_id):
        yield f"FARCALL_ACCOUNT is set, to {environment['FARCALL_ACCOUNT']}"


def _new_login(address: str, wish: Wish, store: TokenStore) -> StoredToken:
    from farcall.client.login import Flow, log_in
    from farcall.client.rest import ApiClient

    is_somebody_there = sys.stdin.isatty() or wish.device or wish.no_browser
    flow = Flow.DEVICE if wish.device else Flow.LINK if wish.no_browser else None
    with ApiClient(address, "none", store=store) as client:
        oauth = client.oauth()
        try:
            oauth.provider()
        except LoginNotOffered:
            if wish.is_for_a_person:
                raise
            return _checked_login(address, _asked_token(address), store)
        if not is_somebody_there:
            raise Unauthenticated(
                "No token was given, and nobody is here to log in. A person can use `farcall login --device`; "
                "a program FARCALL_CLIENT_ID and FARCALL_CLIENT_SECRET, or FARCALL_TOKEN."
            )
        cancelled = threading.Event()
        try:
            return log_in(oauth, person=_Terminal(flow), demand=wish.demand, cancelled=cancelled)
        finally:
            cancelled.set()


class _Terminal:
    """A `Person` who has typed one of our commands."""

    break_off = "Ctrl-C"

    def __init__(self, flow: Any) -> None:
        from farcall.client.login import Flow, best_flow, in_notebook

        self.flow = flow or (Flow.DEVICE if in_notebook() else best_flow(os.environ, sys.platform))

    def tell(self, text: str) -> None:
        click.echo(text)

    def show_link(self, url: str) -> None:
        from farcall.client.login import Flow

        click.echo(f"\n  {url}\n")
        if self.flow is Flow.DEVICE and sys.stdout.isatty():
            click.echo(qr_code(url))

    def waiting(self, text: str) -> AbstractContextManager[object]:
        if not sys.stdout.isatty():
            click.echo(text.strip())
            return contextlib.nullcontext()
        from rich.console import Console

        return Console(highlight=False).status(text.strip())


def qr_code(text: str) -> str:
    """A picture for a telephone's camera; empty without the library, which comes with `farcall[service]`."""
    try:
        import segno
    except ImportError:
        return ""
    picture = io.StringIO()
    segno.make(text, error="l").terminal(out=picture, compact=True, border=2)
    return picture.getvalue()


def _piped_token() -> str | None:
    return None if sys.stdin.isatty() else sys.stdin.readline().strip() or None


def _asked_token(address: str) -> str:
    token = str(click.prompt(f"Token for {address}", hide_input=True)).strip() if sys.stdin.isatty() else ""
    if not token:
        raise Unauthenticated("No token was given: paste one, pipe one in, or set FARCALL_TOKEN.")
    return token


def _checked_login(address: str, token: str, store: TokenStore) -> StoredToken:
    """A token that was handed out, once the service has said whose it is."""
    from farcall.client.rest import ApiClient

    with ApiClient(address, token, store=store) as client:
        identity = client.whoami()
    return StoredToken(
        access_token=token.strip(), identity_id=str(identity["identity_id"]), username=str(identity["username"])
    )


def logout(url: str | None, account: str | None) -> None:
    """Forget a login, and have the service revoke its tokens.

    Raises:
        FarcallError: the tokens are forgotten here, but could not be revoked.
        ValueError: `url` is no address, or no login of `account` is kept.
    """
    from farcall.client.rest import ApiClient

    store = TokenStore()
    address = service_url(url, store)
    login = store.get(address) if account is None else _found(store, address, account).login
    if login is None:
        click.echo(f"No token for {address} is stored.")
        return
    store.remove(address, login.username)
    with ApiClient(address, login.access_token, store=store) as client:
        try:
            if login.client_id is None:
                client.logout()
            else:
                client.oauth().revoke_login(login)
        except Unauthenticated:
            pass  # revoked or expired already
        except FarcallError as exc:
            click.echo("The tokens are forgotten here, but could not be revoked:", err=True)
            raise exc
    click.echo(f"Logged out{'' if account is None else f' {login.username}'} from {address}.")
    others = [each.login.username for each in store.accounts(address)]
    if others:
        click.echo(f"Still kept: {', '.join(others)} (`farcall switch NAME` uses one).")


def whoami(*, linked: bool, as_json: bool) -> None:
    """Show who the caller is at which service.

    Raises:
        ApiError, ServiceUnreachable: as any request.
    """
    from farcall.cli.tables import print_table
    from farcall.client.rest import ApiClient

    with ApiClient() as client:
        identity: dict[str, Any] = {**client.whoami(), "service": client.url}
        identities = _linked(client.userinfo()) if linked else []
    if as_json:
        document = {**identity, "linked_identities": identities} if linked else identity
        click.echo(json.dumps(document, indent=2))
        return
    role = ", administrator" if identity.get("is_admin") else ""
    click.echo(f"{identity['username']} ({identity['identity_id']}{role}) at {identity['service']}")
    if linked:
        rows = [(each["username"], each["name"], each["id"], each["email"]) for each in identities]
        print_table(("Username", "Name", "ID", "Email"), rows)


def _linked(userinfo: Mapping[str, Any]) -> list[dict[str, str]]:
    """The identities of one person, as a service tells them; his own if it tells none."""
    found = userinfo.get("identity_set")
    entries = [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    return [
        {
            "id": str(each.get("sub") or ""),
            "username": str(each.get("username") or each.get("preferred_username") or ""),
            "name": str(each.get("name") or ""),
            "email": str(each.get("email") or ""),
        }
        for each in entries or [userinfo]
    ]


def show_accounts(*, as_json: bool) -> None:
    """List every login that is kept."""
    from farcall.cli.tables import print_table

    store = TokenStore()
    default = service_url(None, store)
    rows = [_account_row(each, default) for each in store.accounts()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        print_table(
            ("In use", "Account", "Service"),
            [(_mark(row), row["username"], row["service"]) for row in rows],
        )
    else:
        click.echo("No logins are kept. `farcall login URL` makes one.")


def _account_row(account: Account, default: str) -> dict[str, Any]:
    return {
        "service": account.url,
        "username": account.login.username,
        "identity_id": account.login.identity_id,
        "is_used": account.is_used,
        "is_default_service": account.url == canonical_url(default),
        "expires_at": None if account.login.refresh_token else account.login.expires_at,
    }


def _mark(row: Mapping[str, Any]) -> str:
    if not row["is_used"]:
        return ""
    return "yes, by default" if row["is_default_service"] else "yes"


def switch(names: tuple[str, ...]) -> None:
    """Use another kept login, another service, or both.

    Raises:
        ValueError: nothing of that name is kept.
    """
    store = TokenStore()
    urls = [name for name in names if "://" in name]
    users = [name for name in names if "://" not in name]
    if len(urls) > 1 or len(users) > 1:
        raise ValueError("Name one service, one account, or one of each.")
    address = service_url(urls[0] if urls else None, store)
    if users:
        account = _found(store, address, users[0])
        store.use(address, account.login.username)
    login = store.get(address)
    if urls:
        store.set_default(address)
    whose = "nobody: log in with `farcall login`" if login is None else login.username
    click.echo(f"From now on: {address}, as {whose}.")
    if login is not None:
        for text in _overriding(address, login, os.environ, is_from_environment=False):
            click.echo(f"But not in this terminal: {text}.", err=True)


def _found(store: TokenStore, address: str, name: str) -> Account:
    """The kept login that is meant by a user name, an identity's id, or what stands before the @ of one user name."""
    kept = store.accounts(address)
    exact = [each for each in kept if name in (each.login.username, each.login.identity_id)]
    found = exact or [each for each in kept if each.login.username.partition("@")[0] == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.login.username for each in kept) or "none"
    what = "several accounts are called" if found else "no login is kept of"
    raise ValueError(f"At {address} {what} {name!r}; there are: {names}.")
