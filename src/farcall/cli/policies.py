"""Commands of `farcall-service` about on what terms endpoints may be used: policy, subscription.

As those of `farcall.cli.accounts`, whose helpers they share: they work on the store itself, whether or not a service
runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from farcall.cli.accounts import _command, _json, _refusals, _Store, _table
from farcall.cli.groups import Commands
from farcall.wire.messages import is_uuid_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from farcall.service.accounts.rules import Identity
    from farcall.service.policies.rules import Policy, Subscription

__all__ = ["policy", "subscription"]


# Policies ----------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def policy() -> None:
    """Authentication policies: on which logins endpoints insist."""


def _domains(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


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


@_command(policy)
@click.argument("name")
@_demand_options
@click.option("--project-id", metavar="UUID", help="Of a project.  [default: none, everybody may use it]")
def create(store: _Store, name: str, project_id: str | None, as_json: bool, **given: Any) -> None:
    """Make a policy NAME. Endpoints name its id as `authentication_policy`.

    \b
    Examples:
      farcall-service policy create "Staff" --allowed-domains example.edu,*.example.edu
      farcall-service policy create "Vault" --high-assurance --auth-timeout 3600 --mfa-required
    """
    from farcall.service.ids import new_id
    from farcall.service.policies.rules import plan_policy
    from farcall.service.policies.store import add_policy

    with _refusals():
        fields = plan_policy(**{**_demands(given), "display_name": name})
    project = None if project_id is None else _id(project_id)
    made = store.run(
        add_policy, new_id(), project, fields, _me(store), store.actor, time.time(), of_site=project is None
    )
    _show_policy(made, as_json=as_json)


@_command(policy, "list")
def list_policies(store: _Store, as_json: bool) -> None:
    """List all policies."""
    from farcall.service.policies.store import list_policies

    found = store.run(list_policies)
    if as_json:
        _json([_policy_document(each) for each in found])
    else:
        _table(("Name", "Demands", "Id"), [(each.fields.display_name, _in_words(each), each.id) for each in found])


@_command(policy)
@click.argument("policy_id", metavar="UUID")
def show(store: _Store, policy_id: str, as_json: bool) -> None:
    """Show one policy."""
    from farcall.service.policies.rules import check_use_of_policy
    from farcall.service.policies.store import find_policy

    wanted = _id(policy_id)

    def find(conn: Connection) -> Policy:
        return check_use_of_policy(find_policy(conn, wanted), wanted, _me(store))

    _show_policy(store.run(find), as_json=as_json)


@_command(policy)
@click.argument("policy_id", metavar="UUID")
@click.option("--name", metavar="TEXT", help="A new name.")
@_demand_options
def update(store: _Store, policy_id: str, name: str | None, as_json: bool, **given: Any) -> None:
    """Change a policy; what is not said stays. It counts from the next request on."""
    from farcall.service.policies.store import change_policy

    changes = _demands(given)
    if name is not None:
        changes["display_name"] = name
    if not changes:
        raise click.UsageError("Say what is to change.")
    changed = store.run(change_policy, _id(policy_id), changes, _me(store), store.actor, time.time())
    _show_policy(changed, as_json=as_json)


@_command(policy)
@click.argument("policy_id", metavar="UUID")
def delete(store: _Store, policy_id: str, as_json: bool) -> None:
    """Delete a policy that no endpoint uses."""
    from farcall.service.policies.store import delete_policy

    gone = store.run(delete_policy, _id(policy_id), _me(store), store.actor, time.time())
    if as_json:
        _json(_policy_document(gone))
    else:
        click.echo(f"Policy '{gone.fields.display_name}' ({gone.id}) is deleted.")


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
        _json(_policy_document(policy))
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


@click.group(cls=Commands)
def subscription() -> None:
    """Organisations that vouch for endpoints; high assurance needs one."""


@_command(subscription, "create")
@click.argument("name")
@click.option("--high-assurance", is_flag=True, help="Endpoints for protected data may name it.")
@click.option("--admin", "admins", multiple=True, metavar="USER", help="May name it; by user name or identity id.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="All of whose members may; by name or id.")
@click.option("--id", "subscription_id", metavar="UUID", help="In place of a new one, as configurations name it.")
def create_subscription(
    store: _Store,
    name: str,
    high_assurance: bool,
    admins: tuple[str, ...],
    groups: tuple[str, ...],
    subscription_id: str | None,
    as_json: bool,
) -> None:
    """Make a subscription NAME. Endpoints name its id as `subscription_id`; administrators always may.

    \b
    Example:
      farcall-service subscription create "University Hospital" --high-assurance --admin ada@example.edu
    """
    from farcall.service.ids import new_id
    from farcall.service.policies.rules import Subscription
    from farcall.service.policies.store import add_subscription, find_grantees

    made_id = new_id() if subscription_id is None else _id(subscription_id)

    def make(conn: Connection) -> Subscription:
        admin_ids, group_ids = find_grantees(conn, admins, groups)
        wanted = Subscription(
            id=made_id,
            name=name,
            high_assurance=high_assurance,
            admin_ids=frozenset(admin_ids),
            group_ids=frozenset(group_ids),
        )
        return add_subscription(conn, wanted, store.actor, time.time())

    made = store.run(make)
    if as_json:
        _json(_subscription_document(made))
    else:
        click.echo(f"Subscription '{made.name}' ({made.id}) is made.")


@_command(subscription, "list")
def list_subscriptions(store: _Store, as_json: bool) -> None:
    """List all subscriptions."""
    from farcall.service.policies.store import list_subscriptions

    found = store.run(list_subscriptions)
    if as_json:
        _json([_subscription_document(each) for each in found])
    else:
        rows = [(each.name, "yes" if each.high_assurance else "no", each.id) for each in found]
        _table(("Name", "High assurance", "Id"), rows)


def _subscription_document(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": subscription.id,
        "name": subscription.name,
        "high_assurance": subscription.high_assurance,
        "admin_ids": sorted(subscription.admin_ids),
        "group_ids": sorted(subscription.group_ids),
    }


# Both ----------------------------------------------------------------------------------------------------------------


def _me(store: _Store) -> Identity:
    """Whoever gives a command on the service's machine may do everything."""
    from farcall.service.accounts.rules import Identity

    return Identity(id="", username=store.actor.name, is_admin=True, credential_generation=0)


def _id(text: str) -> str:
    if not is_uuid_text(text.lower()):
        raise click.UsageError(f"{text!r} is not a UUID.")
    return text.lower()
