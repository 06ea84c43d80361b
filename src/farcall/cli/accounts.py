"""Commands of `farcall-service` about who may use the service: user, client, group, admin, audit.

They work on the store itself, with the settings that `start` would use, whether or not a service runs; one that runs
notices within seconds. `farcall.cli.service`, whose helpers they share, loads this module when one of them is called.
Passwords are read from a terminal or standard input, never from the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from farcall.cli.groups import Commands
from farcall.cli.service import (
    _effective,
    _fail,
    _make_data_dir,
    _reporting,
    _settings_options,
    _store_option,
)
from farcall.service import statefile
from farcall.service.settings import ServiceSettings
from farcall.wire.errors import ApiError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from farcall.service.audit.rules import Actor, Entry
    from farcall.service.groups.rules import Role

__all__ = ["admin", "audit", "client", "group", "user"]

T = TypeVar("T")
REFUSED = 1
_EXPORT_PAGE = 1000
_UNLIMITED = 100_000


class _Store:
    """The store that the settings name, and whoever gives the command."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings

    @property
    def actor(self) -> Actor:
        from farcall.service.audit.rules import operator

        return operator(getpass.getuser())

    def run(self, run: Callable[..., T], *args: Any, **more: Any) -> T:
        """One transaction; the first command on a new data directory makes the tables. Ends with a message if it
        cannot be done.
        """
        from farcall.service.db.administer import SchemaMissing, administer

        def unit(conn: Connection) -> T:
            return run(conn, *args, **more)

        url = self.settings.store_url
        with _reporting(None), _refusals():
            os.umask(0o077)
            try:
                return administer(url, unit)
            except SchemaMissing as exc:
                if exc.found is not None:
                    raise
            _make_tables(self.settings)
            return administer(url, unit)


def _make_tables(settings: ServiceSettings) -> None:
    from farcall.service.db.upkeep import upgrade_store

    if settings.store is None:
        _make_data_dir(settings.data_dir)
        lock = statefile.DataDirLock(settings.data_dir)
        lock.acquire()
        try:
            upgrade_store(settings.store_url)
        finally:
            lock.release()
    else:
        upgrade_store(settings.store_url)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What cannot be done, as a message and an exit status."""
    try:
        yield
    except ApiError as exc:
        _fail(exc.message, REFUSED)


def _command(parent: click.Group, name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """A command of `parent` with the options of the settings and --json; its function gets a `_Store` first."""

    def register(function: Callable[..., None]) -> click.Command:
        def run(store: str | None, settings_file: Path | None, data_dir: Path | None, **given: Any) -> None:
            settings = _effective(settings_file, {"store": store, "data_dir": data_dir}).settings
            function(_Store(settings), **given)

        update_wrapper(run, function)
        as_json = click.option("--json", "as_json", is_flag=True, help="For scripts.")
        return parent.command(name)(_store_option(_settings_options(as_json(run))))

    return register


# --- user --------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def user() -> None:
    """People: the accounts of this service, and who came from elsewhere."""


_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, instead of making one."
)


@_command(user)
@click.argument("name")
@click.option("--display-name", help="How the person is called.")
@click.option("--email")
@click.option("--organization")
@_password_option
def add(
    store: _Store,
    name: str,
    display_name: str | None,
    email: str | None,
    organization: str | None,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Make an account NAME (without a domain, or with the local one).

    Prints a password that has to be changed at the first login. One that is read from standard input stays.
    """
    from farcall.service.accounts.rules import local_username
    from farcall.service.users.store import add_user

    with _refusals():
        username = local_username(name, store.settings.local_domain)
    password, hashed = _password(username, password_stdin)
    person = store.run(
        add_user,
        username,
        hashed,
        must_change=not password_stdin,
        display_name=display_name,
        email=email,
        organization=organization,
        actor=store.actor,
        now=time.time(),
    )
    _show_password("Added", person.id, username, None if password_stdin else password, as_json)


@_command(user, "list")
@click.option("--clients", is_flag=True, help="Also programs that log in by themselves.")
def list_users(store: _Store, clients: bool, as_json: bool) -> None:
    """List everybody who may use the service, or might again."""
    from farcall.service.users.store import list_people

    people = [each for each in store.run(list_people) if clients or each.kind == "user"]
    if as_json:
        _json([dataclasses.asdict(each) for each in people])
        return
    rows = [
        (
            each.username,
            each.display_name or "",
            each.provider or ("this service" if each.has_password else "command line"),
            ", ".join(_remarks(each)),
            each.id,
        )
        for each in people
    ]
    _table(("User name", "Name", "Vouched for by", "", "Id"), rows)


def _remarks(person: Any) -> Iterator[str]:
    if person.disabled_at is not None:
        yield "disabled"
    if person.is_admin:
        yield "administrator"
    if person.has_totp:
        yield "second factor"
    if person.person_id != person.id:
        yield "linked"


@_command(user)
@click.argument("name")
def disable(store: _Store, name: str, as_json: bool) -> None:
    """Keep NAME out. Tokens, logins, streams and endpoints stop counting within seconds; nothing is deleted."""
    _set_disabled(store, name, True, as_json)


@_command(user)
@click.argument("name")
def enable(store: _Store, name: str, as_json: bool) -> None:
    """Let NAME in again, after a new login."""
    _set_disabled(store, name, False, as_json)


def _set_disabled(store: _Store, name: str, is_disabled: bool, as_json: bool) -> None:
    from farcall.service.users.store import one_person, set_disabled

    def change(conn: Connection) -> str:
        person = one_person(conn, name, store.settings.local_domain)
        set_disabled(conn, person.id, is_disabled, actor=store.actor, now=time.time())
        return person.username

    username = store.run(change)
    _done(as_json, f"{username} is {'disabled' if is_disabled else 'enabled'}.", username=username)


@_command(user, "reset-password")
@click.argument("name")
@_password_option
@click.option("--keep-logins", is_flag=True, help="Leave tokens and streams alone, and end logins in browsers only.")
def reset_password(store: _Store, name: str, password_stdin: bool, keep_logins: bool, as_json: bool) -> None:
    """Give NAME a new password, and log them out everywhere. Also gives a first one to whoever has none."""
    from farcall.service.users.store import one_person, set_password, void_logins

    person = store.run(one_person, name, store.settings.local_domain)
    password, hashed = _password(person.username, password_stdin)

    def change(conn: Connection) -> None:
        now = time.time()
        set_password(conn, person.id, hashed, must_change=not password_stdin, actor=store.actor, now=now)
        if not keep_logins:
            void_logins(conn, person.id, now=now)

    store.run(change)
    _show_password("Changed", person.id, person.username, None if password_stdin else password, as_json)


@_command(user, "remove-factor")
@click.argument("name")
def remove_factor(store: _Store, name: str, as_json: bool) -> None:
    """Forget the second factor of NAME and its recovery codes, for somebody who has lost both. Be sure who asks."""
    from farcall.service.audit.store import record
    from farcall.service.factors.store import remove_totp
    from farcall.service.users.store import one_person

    def change(conn: Connection) -> tuple[str, bool]:
        person = one_person(conn, name, store.settings.local_domain)
        is_removed = remove_totp(conn, person.id)
        if is_removed:
            detail = {"username": person.username}
            record(conn, store.actor, "user.totp-remove", "user", person.id, at=time.time(), detail=detail)
        return person.username, is_removed

    username, is_removed = store.run(change)
    text = f"{username} {'has no second factor any more' if is_removed else 'had no second factor'}."
    _done(as_json, text, username=username, removed=is_removed)


def _password(username: str, is_given: bool) -> tuple[str, str]:
    """A password and what is stored of it."""
    from farcall.service.accounts.passwords import check_new_password, hash_password
    from farcall.service.users.rules import new_password

    if not is_given:
        password = new_password()
        return password, hash_password(password)
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    with _refusals():
        check_new_password(password, username)
    return password, hash_password(password)


def _show_password(done: str, identity_id: str, username: str, password: str | None, as_json: bool) -> None:
    if as_json:
        _json({"id": identity_id, "username": username, "password": password, "must_change": password is not None})
        return
    click.echo(f"{done}: {username}")
    if password is not None:
        click.echo(f"Password: {password}\nIt is shown only now, and has to be changed at the first login.")


# --- client ------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def client() -> None:
    """Programs that log in by themselves, or that people log in through."""


@_command(client)
@click.argument("name")
@click.option(
    "--redirect-uri", "redirect_uris", multiple=True, help="Where it may have people sent back to. Repeatable."
)
@click.option("--native", is_flag=True, help="It cannot keep a secret (runs on people's own machines): gets none.")
def create(store: _Store, name: str, redirect_uris: tuple[str, ...], native: bool, as_json: bool) -> None:
    """Register a program NAME. Its secret is shown once.

    \b
    Example:
      farcall-service client create nightly --json
      FARCALL_CLIENT_ID=… FARCALL_CLIENT_SECRET=… python nightly.py
    """
    from farcall.service.clients.rules import Client, check_redirect_uri, new_secret, secret_hash
    from farcall.service.clients.store import add_client
    from farcall.service.ids import new_id

    name = " ".join(name.split())
    if not name or len(name) > 128:
        _fail("The name of a client has 1 to 128 characters.", REFUSED)
    with _refusals():
        for uri in redirect_uris:
            check_redirect_uri(uri)
    if native and not redirect_uris:
        _fail("Nobody could log in through a native client without a --redirect-uri.", REFUSED)
    secret = None if native else new_secret()
    made = Client(
        id=new_id(),
        name=name,
        is_confidential=not native,
        redirect_uris=redirect_uris,
        secret_hash=None if secret is None else secret_hash(secret),
        created_at=time.time(),
    )
    store.run(add_client, made, store.settings.local_domain, store.actor)
    if as_json:
        shown = {"client_id": made.id, "name": name, "redirect_uris": list(redirect_uris)}
        _json(shown if secret is None else {**shown, "client_secret": secret})
        return
    click.echo(f"Client id:     {made.id}")
    if secret is not None:
        click.echo(f"Client secret: {secret}\nThe secret is shown only now.")


@_command(client, "list")
def list_clients_(store: _Store, as_json: bool) -> None:
    """List registered programs, revoked ones among them."""
    from farcall.service.clients.store import list_clients

    clients = store.run(list_clients)
    if as_json:
        _json(
            [
                {
                    "client_id": each.id,
                    "name": each.name,
                    "is_confidential": each.is_confidential,
                    "redirect_uris": list(each.redirect_uris),
                    "created_at": each.created_at,
                    "revoked_at": each.revoked_at,
                }
                for each in clients
            ]
        )
        return
    rows = [
        (
            each.name,
            "with a secret" if each.is_confidential else "native",
            "revoked" if each.revoked_at is not None else "",
            each.id,
        )
        for each in clients
    ]
    _table(("Name", "Kind", "", "Id"), rows)


@_command(client, "revoke")
@click.argument("name_or_id")
def revoke_(store: _Store, name_or_id: str, as_json: bool) -> None:
    """Void a program's secret and every token that it was given, within seconds."""
    from farcall.service.clients.store import revoke_client

    found, _ = store.run(revoke_client, name_or_id, store.actor, time.time())
    _done(as_json, f"The client {found.name} ({found.id}) is revoked.", client_id=found.id)


# --- group -------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def group() -> None:
    """Groups of people, for sharing functions and endpoints."""


@_command(group, "create")
@click.argument("name")
@click.option("--description")
def create_group(store: _Store, name: str, description: str | None, as_json: bool) -> None:
    """Make a group NAME without members."""
    from farcall.service.groups.rules import group_name
    from farcall.service.groups.store import add_group

    with _refusals():
        name = group_name(name)
    made = store.run(add_group, name, description, store.actor, time.time())
    _done(as_json, f"The group {made.name} has the id {made.id}.", id=made.id, name=made.name)


@_command(group, "add")
@click.argument("name")
@click.argument("people", nargs=-1, required=True)
@click.option("--manager", is_flag=True, help="As managers of the group, not as plain members.")
def add_to_group(store: _Store, name: str, people: tuple[str, ...], manager: bool, as_json: bool) -> None:
    """Put PEOPLE into the group NAME."""
    from farcall.service.groups.store import add_member, one_group
    from farcall.service.users.store import one_person

    def change(conn: Connection) -> tuple[str, list[str]]:
        found = one_group(conn, name)
        everybody = [one_person(conn, each, store.settings.local_domain) for each in people]
        role: Role = "manager" if manager else "member"
        added = [
            each.username for each in everybody if add_member(conn, found, each, role, store.actor, time.time())
        ]  # fmt: skip
        return found.name, added

    found, added = store.run(change)
    text = f"In {found} now: {', '.join(added)}." if added else f"They were in {found} already."
    _done(as_json, text, name=found, added=added)


@_command(group, "remove")
@click.argument("name")
@click.argument("people", nargs=-1, required=True)
def remove_from_group(store: _Store, name: str, people: tuple[str, ...], as_json: bool) -> None:
    """Take PEOPLE out of the group NAME."""
    from farcall.service.groups.store import one_group, remove_member
    from farcall.service.users.store import one_person

    def change(conn: Connection) -> tuple[str, list[str]]:
        found = one_group(conn, name)
        everybody = [one_person(conn, each, store.settings.local_domain) for each in people]
        removed = [each.username for each in everybody if remove_member(conn, found, each, store.actor, time.time())]
        return found.name, removed

    found, removed = store.run(change)
    text = f"Not in {found} any more: {', '.join(removed)}." if removed else f"They were not in {found}."
    _done(as_json, text, name=found, removed=removed)


@_command(group, "delete")
@click.argument("name")
def delete_group_(store: _Store, name: str, as_json: bool) -> None:
    """Forget the group NAME. Whatever was shared with it is shared with nobody then."""
    from farcall.service.groups.store import delete_group, one_group

    def change(conn: Connection) -> str:
        found = one_group(conn, name)
        delete_group(conn, found, store.actor, time.time())
        return found.name

    _done(as_json, f"The group {(found := store.run(change))} is deleted.", name=found)


@_command(group, "list")
def list_groups_(store: _Store, as_json: bool) -> None:
    """List groups with their members."""
    from farcall.service.groups.store import list_groups

    groups = store.run(list_groups)
    if as_json:
        _json([dataclasses.asdict(each) for each in groups])
        return
    rows = [
        (
            each.name,
            ", ".join(f"{one.username}{' (manager)' if one.role == 'manager' else ''}" for one in each.members),
            each.id,
        )
        for each in groups
    ]
    _table(("Group", "Members", "Id"), rows)


# --- admin -------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def admin() -> None:
    """Administrators: they see and may stop everything on this service."""


@_command(admin)
@click.argument("name")
def grant(store: _Store, name: str, as_json: bool) -> None:
    """Make NAME an administrator."""
    _set_admin(store, name, True, as_json)


@_command(admin)
@click.argument("name")
def revoke(store: _Store, name: str, as_json: bool) -> None:
    """Take an administrator's rights from NAME."""
    _set_admin(store, name, False, as_json)


def _set_admin(store: _Store, name: str, is_admin: bool, as_json: bool) -> None:
    from farcall.service.users.store import one_person, set_admin

    def change(conn: Connection) -> str:
        person = one_person(conn, name, store.settings.local_domain)
        set_admin(conn, person.id, is_admin, actor=store.actor, now=time.time())
        return person.username

    username = store.run(change)
    _done(as_json, f"{username} is {'an' if is_admin else 'no'} administrator.", username=username)


@_command(admin, "list")
def list_admins(store: _Store, as_json: bool) -> None:
    """List the administrators."""
    from farcall.service.users.store import list_people

    people = [each for each in store.run(list_people) if each.is_admin]
    if as_json:
        _json([{"id": each.id, "username": each.username} for each in people])
        return
    _table(("User name", "Id"), [(each.username, each.id) for each in people])


# --- audit -------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def audit() -> None:
    """Who did what: logins, tokens, changes of rights. Kept in the store, and never changed."""


@_command(audit)
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=20, show_default=True, help="So many entries.")
@click.option("--action", help="Only this action, for example `login`; with a dot at the end all of a kind: `user.`.")
def tail(store: _Store, count: int, action: str | None, as_json: bool) -> None:
    """Show the last entries, the newest at the end. With --json one object per line."""
    from farcall.service.audit.store import tail as last_entries

    _show_entries(store.run(last_entries, count, action), as_json)


@_command(audit)
@click.option("--after", type=click.IntRange(0), default=0, help="Only entries with a larger number (`seq`).")
def export(store: _Store, after: int, as_json: bool) -> None:
    """Write all entries to standard output, oldest first, one JSON object per line."""
    from farcall.service.audit.store import entries_after

    while entries := store.run(entries_after, after, _EXPORT_PAGE):
        _show_entries(entries, True)
        after = entries[-1].seq


def _show_entries(entries: Sequence[Entry], as_json: bool) -> None:
    for each in entries:
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(each)))
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.at))
        what = f"{each.object_kind} {each.object_id}" if each.object_id else ""
        refused = "" if each.outcome == "done" else f"({each.outcome}) "
        detail = " ".join(f"{name}={value}" for name, value in each.detail.items())
        click.echo(f"{at}  {each.actor_name}  {each.action} {refused} {what}  {each.address or ''}  {detail}".rstrip())


# --- Output ------------------------------------------------------------------------------------------------------


def _json(document: Any) -> None:
    click.echo(json.dumps(document))


def _done(as_json: bool, text: str, **document: Any) -> None:
    if as_json:
        _json(document)
    else:
        click.echo(text)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        click.echo("None.")
        return
    table = Table(box=None, pad_edge=False)
    for index, head in enumerate(heads):  # nothing is cut, and what commands take stands in one piece
        is_whole = head in ("User name", "Id")
        least = max(len(row[index]) for row in rows) if is_whole else None
        table.add_column(head, no_wrap=is_whole, min_width=least, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:  # one line per row, however long
        console.width = _UNLIMITED
    console.print(table)
