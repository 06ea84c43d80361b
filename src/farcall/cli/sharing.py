"""`farcall-endpoint share`, `unshare` and `shares`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from farcall.cli.site import (
    EX_UNAVAILABLE,
    Common,
    fail,
    find,
    note,
    open_client,
    registration_of,
    service_errors,
)

__all__ = ["share", "shares", "unshare"]

_with_option = click.option("--with", "users", multiple=True, metavar="USER", help="User name or identity id.")
_group_option = click.option("--group", "groups", multiple=True, metavar="GROUP", help="Name or id of a group.")


@click.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@_with_option
@_group_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def share(common: Common, name_or_id: str, users: tuple[str, ...], groups: tuple[str, ...], yes: bool) -> None:
    """Let others run functions on an endpoint, as you.

    Their functions run as your account on the endpoint's machine: they can read and change your files,
    use your keys, and submit jobs in your name. `unshare` ends it for what is submitted later.

    \b
    Examples:
      farcall-endpoint share cluster --with bob@example.edu
      farcall-endpoint share cluster --with bob@example.edu --group lab --yes
    """
    if not users and not groups:
        raise click.UsageError("Name somebody: --with USER or --group GROUP.")
    endpoint_id, ca_file = _shared_endpoint(common, name_or_id)
    who = " and ".join((*users, *(f"the members of group {each}" for each in groups)))
    note(f"Functions of {who} will run as you there: with your account's files, keys and jobs.")
    if not yes and sys.stdin.isatty():
        click.confirm(f"Share endpoint {endpoint_id}?", abort=True)
    with open_client(ca_file) as client, service_errors():
        _print_shares(client.share_endpoint(endpoint_id, identities=users, groups=groups))


@click.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@_with_option
@_group_option
@click.option("--all", "everybody", is_flag=True, help="With nobody any more.")
@click.pass_obj
def unshare(common: Common, name_or_id: str, users: tuple[str, ...], groups: tuple[str, ...], everybody: bool) -> None:
    """Share an endpoint no longer. What was submitted before still runs.

    \b
    Examples:
      farcall-endpoint unshare cluster --with bob@example.edu
      farcall-endpoint unshare cluster --all
    """
    if everybody == bool(users or groups):
        raise click.UsageError("Name somebody (--with USER, --group GROUP), or give --all.")
    endpoint_id, ca_file = _shared_endpoint(common, name_or_id)
    with open_client(ca_file) as client, service_errors():
        _print_shares(client.unshare_endpoint(endpoint_id, identities=users, groups=groups))


@click.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def shares(common: Common, name_or_id: str, as_json: bool) -> None:
    """Show with whom an endpoint is shared."""
    endpoint_id, ca_file = _shared_endpoint(common, name_or_id)
    with open_client(ca_file) as client, service_errors():
        found = client.shares(endpoint_id)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print_shares(found)


def _shared_endpoint(common: Common, name_or_id: str) -> tuple[str, Path | None]:
    """Its id, and whose certificates its directory accepts."""
    directory = find(common, name_or_id)
    if directory is None:
        return name_or_id.lower(), None
    registration = registration_of(directory)
    if registration is None:
        start_hint = common.command(f"start {directory.name}")
        fail(f"Endpoint '{directory.name}' was never registered: start it once (`{start_hint}`).", EX_UNAVAILABLE)
    with open_client(directory.ca_file) as client:
        return registration.id_with(client.url) or registration.endpoint_id, directory.ca_file


def _print_shares(found: dict[str, Any]) -> None:
    from farcall.cli.tables import print_table

    rows = [(str(each.get("kind")), str(each.get("name")), str(each.get("id"))) for each in found.get("shares", ())]
    if not rows:
        click.echo(f"Endpoint {found.get('endpoint_id')} is shared with nobody.")
        return
    print_table(("Kind", "Name", "ID"), rows)
