"""The operator's commands `farcall-service policy …` and `subscription …`. They work on the database itself, whether or
not the service runs.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from farcall.cli.tables import print_table
from farcall.wire.errors import ApiError, FarcallError
from farcall.wire.messages import is_uuid_text

if TYPE_CHECKING:
    from farcall.service.accounts.rules import Identity
    from farcall.service.policies.rules import Policy, Subscription

__all__ = ["add_commands"]

EX_USAGE, EX_UNAVAILABLE = 64, 69

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_StoreUrl = Callable[[Path | None, dict[str, Any]], str]
_json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


def add_commands(main: click.Group, settings_options: _Decorator, store_url: _StoreUrl) -> None:
    """Give `main` the groups `policy` and `subscription`.

    Args:
        settings_options: adds `--data-dir` and `--settings`.
        store_url: from their values to the database.
    """
    main.add_command(_policy_group(settings_options, store_url))
    main.add_command(_subscription_group(settings_options, store_url))


# Policies ----------------------------------------------------------------------------------------------------------


def _demand_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--description", metavar="TEXT"),
        click.option(
            "--allowed-domains", metavar="DOMAINS", help="example.edu,*.example.org; empty: all.", callback=_domains
        ),
        click.option("--excluded-domains", metavar="DOMAINS", help="Likewise; empty: none.", callback=_domains),
        click.option(
            "--auth-timeout", type=click.IntRange(min=0), metavar="SECONDS", help="Oldest login; 0: however old."
        ),
        click.option("--mfa-required/--no-mfa-required", default=None, help="A second factor."),
        click.option("--high-assurance/--no-high-assurance", default=None, help="A login of the right identity."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _policy_group(settings_options: _Decorator, store_url: _StoreUrl) -> click.Group:
    @click.group(name="policy")
    def group() -> None:
        """Make and change authentication policies: on which logins endpoints insist."""

    @group.command()
    @click.argument("name")
    @_demand_options
    @click.option("--project-id", metavar="UUID", help="Of a project.  [default: none, everybody may use it]")
    @settings_options
    @_json_option
    def create(
        name: str,
        project_id: str | None,
        settings_file: Path | None,
        data_dir: Path | None,
        as_json: bool,
        **given: Any,
    ) -> None:
        """Make a policy. Endpoints name it as `authentication_policy`.

        \b
        Examples:
          farcall-service policy create "Staff" --allowed-domains example.edu,*.example.edu
          farcall-service policy create "Vault" --high-assurance --auth-timeout 3600 --mfa-required
        """
        from farcall.service.ids import canonical_uuid, new_id
        from farcall.service.policies import rules, store

        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            fields = rules.plan_policy(**{**_demands(given), "display_name": name})
            project = None if project_id is None else canonical_uuid(project_id, "--project-id")
            me, actor = _operator()
            made = store.add_policy(conn, new_id(), project, fields, me, actor, time.time(), project is None)
        _show_policy(made, as_json=as_json)

    @group.command(name="list")
    @settings_options
    @_json_option
    def list_(settings_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
        """Show all policies."""
        from farcall.service.policies import store

        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            found = store.list_policies(conn)
        if as_json:
            click.echo(json.dumps([_policy_document(each) for each in found], indent=2))
        elif not found:
            click.echo("There are no policies. `farcall-service policy create NAME` makes one.")
        else:
            rows = [(each.id, each.fields.display_name, _in_words(each)) for each in found]
            print_table(("ID", "Name", "Demands"), rows)

    @group.command()
    @click.argument("policy_id", metavar="UUID")
    @settings_options
    @_json_option
    def show(policy_id: str, settings_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
        """Show one policy."""
        from farcall.service.policies import rules, store

        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            found = rules.check_use_of_policy(store.find_policy(conn, _id(policy_id)), policy_id, _operator()[0])
        _show_policy(found, as_json=as_json)

    @group.command()
    @click.argument("policy_id", metavar="UUID")
    @click.option("--name", metavar="TEXT", help="A new name.")
    @_demand_options
    @settings_options
    @_json_option
    def update(
        policy_id: str, name: str | None, settings_file: Path | None, data_dir: Path | None, as_json: bool, **given: Any
    ) -> None:
        """Change a policy; what is not said stays. It counts from the next request on."""
        from farcall.service.policies import store

        changes = _demands(given)
        if name is not None:
            changes["display_name"] = name
        if not changes:
            raise click.UsageError("Say what is to change.")
        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            me, actor = _operator()
            changed = store.change_policy(conn, _id(policy_id), changes, me, actor, time.time())
        _show_policy(changed, as_json=as_json)

    @group.command()
    @click.argument("policy_id", metavar="UUID")
    @settings_options
    @_json_option
    def delete(policy_id: str, settings_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
        """Delete a policy that no endpoint uses."""
        from farcall.service.policies import store

        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            me, actor = _operator()
            gone = store.delete_policy(conn, _id(policy_id), me, actor, time.time())
        if as_json:
            click.echo(json.dumps(_policy_document(gone), indent=2))
        else:
            click.echo(f"Policy '{gone.fields.display_name}' ({gone.id}) is deleted.")

    return group


def _demands(given: dict[str, Any]) -> dict[str, Any]:
    """Options as arguments of `rules.plan_policy`, without those that were not given."""
    found = {
        "description": given["description"],
        "include": given["allowed_domains"],
        "exclude": given["excluded_domains"],
        "required_mfa": given["mfa_required"],
        "high_assurance": given["high_assurance"],
    }
    demands = {name: value for name, value in found.items() if value is not None}
    if given["auth_timeout"] is not None:
        demands["timeout_s"] = given["auth_timeout"] or None
    return demands


def _domains(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


def _policy_document(policy: Policy) -> dict[str, Any]:
    fields = policy.fields
    return {
        "id": policy.id,
        "project_id": None if policy.project is None else policy.project.id,
        "display_name": fields.display_name,
        "description": fields.description,
        "domain_constraints_include": list(fields.include),
        "domain_constraints_exclude": list(fields.exclude),
        "high_assurance": fields.high_assurance,
        "authentication_assurance_timeout": fields.timeout_s,
        "required_mfa": fields.required_mfa,
    }


def _show_policy(policy: Policy, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_policy_document(policy), indent=2))
        return
    project = "everybody's" if policy.project is None else f"{policy.project.display_name} ({policy.project.id})"
    for label, text in (
        ("Policy", policy.fields.display_name),
        ("ID", policy.id),
        ("Project", project),
        ("Demands", _in_words(policy)),
        ("About", policy.fields.description or "-"),
    ):
        click.echo(f"{label + ':':<10}{text}")


def _in_words(policy: Policy) -> str:
    fields = policy.fields
    parts = [f"domains {', '.join(fields.include)}"] if fields.include else []
    parts += [f"not {', '.join(fields.exclude)}"] if fields.exclude else []
    parts += ["high assurance"] if fields.high_assurance else []
    parts += [f"logins of the last {fields.timeout_s} s"] if fields.timeout_s is not None else []
    parts += ["a second factor"] if fields.required_mfa else []
    return "; ".join(parts) or "nothing"


# Subscriptions -------------------------------------------------------------------------------------------------------


def _subscription_group(settings_options: _Decorator, store_url: _StoreUrl) -> click.Group:
    @click.group(name="subscription")
    def group() -> None:
        """Organisations that vouch for endpoints; high assurance needs one."""

    @group.command()
    @click.argument("name")
    @click.option("--high-assurance", is_flag=True, help="Endpoints for protected data may name it.")
    @click.option("--admin", "admins", multiple=True, metavar="USER", help="May name it; by user name or identity id.")
    @click.option("--group", "groups", multiple=True, metavar="GROUP", help="All of whose members may; by name or id.")
    @click.option("--id", "subscription_id", metavar="UUID", help="In place of a new one, as configurations name it.")
    @settings_options
    @_json_option
    def create(
        name: str,
        high_assurance: bool,
        admins: tuple[str, ...],
        groups: tuple[str, ...],
        subscription_id: str | None,
        settings_file: Path | None,
        data_dir: Path | None,
        as_json: bool,
    ) -> None:
        """Make a subscription. Endpoints name it as `subscription_id`; administrators of the service always may.

        \b
        Example:
          farcall-service subscription create "University Hospital" --high-assurance --admin ada@example.edu
        """
        from farcall.service.ids import new_id
        from farcall.service.policies import store
        from farcall.service.policies.rules import Subscription

        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            admin_ids, group_ids = store.find_grantees(conn, admins, groups)
            wanted = Subscription(
                id=new_id() if subscription_id is None else _id(subscription_id),
                name=name,
                high_assurance=high_assurance,
                admin_ids=frozenset(admin_ids),
                group_ids=frozenset(group_ids),
            )
            made = store.add_subscription(conn, wanted, _operator()[1], time.time())
        if as_json:
            click.echo(json.dumps(_subscription_document(made), indent=2))
        else:
            click.echo(f"Subscription '{made.name}' ({made.id}) is made.")

    @group.command(name="list")
    @settings_options
    @_json_option
    def list_(settings_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
        """Show all subscriptions."""
        from farcall.service.policies import store

        with _transaction(store_url(settings_file, {"data_dir": data_dir})) as conn:
            found = store.list_subscriptions(conn)
        if as_json:
            click.echo(json.dumps([_subscription_document(each) for each in found], indent=2))
        elif not found:
            click.echo("There are no subscriptions. `farcall-service subscription create NAME` makes one.")
        else:
            rows = [(each.id, each.name, "yes" if each.high_assurance else "no") for each in found]
            print_table(("ID", "Name", "High assurance"), rows)

    return group


def _subscription_document(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": subscription.id,
        "name": subscription.name,
        "high_assurance": subscription.high_assurance,
        "admin_ids": sorted(subscription.admin_ids),
        "group_ids": sorted(subscription.group_ids),
    }


# Both ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _transaction(url: str) -> Iterator[Any]:  # an SQLAlchemy connection, which is not this module's business
    from farcall.service.db.upkeep import one_transaction

    try:
        with one_transaction(url) as conn:
            yield conn
    except FarcallError as exc:
        _fail(str(exc), EX_USAGE if isinstance(exc, ApiError) else EX_UNAVAILABLE)


def _operator() -> tuple[Identity, Any]:
    """Whoever gives a command on the service's machine, and how the audit table calls them."""
    from farcall.service.accounts.rules import Identity
    from farcall.service.audit.rules import operator

    actor = operator(getpass.getuser())
    return Identity(id="", username=actor.name, is_admin=True, credential_generation=0), actor


def _id(text: str) -> str:
    if not is_uuid_text(text.lower()):
        raise click.UsageError(f"{text!r} is not a UUID.")
    return text.lower()


def _fail(message: str, exit_status: int) -> NoReturn:
    click.secho(f"Error: {message}", fg="red", err=True)
    sys.exit(exit_status)
