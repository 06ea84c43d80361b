"""Options of `farcall-endpoint configure` that restrict who may use an endpoint, and the policy that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from farcall.wire.messages import is_uuid_text

if TYPE_CHECKING:
    from farcall.client.rest import ApiClient

__all__ = ["Protection", "ProtectionIncomplete", "protection_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


class ProtectionIncomplete(click.UsageError):
    """The options contradict each other, or something is missing."""


def _uuid(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_uuid_text(value.lower()):
        raise click.BadParameter(f"{value!r} is not a UUID")
    return value and value.lower()


def _domains(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    domains = tuple(part.strip() for part in (value or "").split(",") if part.strip())
    if value is not None and not domains:  # a variable of a script that is empty must not open the endpoint to all
        raise click.BadParameter("no domain is named; leave the option out if none is meant")
    return domains


def protection_options(function: _F) -> _F:
    """The options, as keyword arguments of `Protection`."""
    options = [
        click.option("--auth-policy", callback=_uuid, metavar="UUID", help="An authentication policy that exists."),
        click.option(
            "--allowed-domains",
            callback=_domains,
            metavar="DOMAINS",
            help="Only users of these, separated by commas: example.edu, or with a wildcard *.example.edu.",
        ),
        click.option(
            "--excluded-domains", callback=_domains, metavar="DOMAINS", help="No users of these, even if allowed."
        ),
        click.option(
            "--auth-timeout", type=click.IntRange(min=1), metavar="SECONDS", help="Only logins that are no older."
        ),
        click.option("--auth-policy-mfa-required", is_flag=True, help="Only logins with a second factor."),
        click.option("--auth-policy-display-name", metavar="TEXT", help="Name of the new policy."),
        click.option("--auth-policy-description", metavar="TEXT", help="Description of the new policy."),
        click.option(
            "--auth-policy-project-id",
            callback=_uuid,
            metavar="UUID",
            help="Project whose admins manage the new policy.  [default: one of your own]",
        ),
        click.option(
            "--subscription-id", callback=_uuid, metavar="UUID", help="The organisation that answers for the endpoint."
        ),
        click.option(
            "--high-assurance",
            is_flag=True,
            help="For protected data; cannot be changed later. Needs a subscription and a policy for it.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@dataclass(frozen=True, kw_only=True)
class Protection:
    """What the options said."""

    auth_policy: str | None
    allowed_domains: Sequence[str]
    excluded_domains: Sequence[str]
    auth_timeout: int | None
    auth_policy_mfa_required: bool
    auth_policy_display_name: str | None
    auth_policy_description: str | None
    auth_policy_project_id: str | None
    subscription_id: str | None
    high_assurance: bool

    def keys(self, name: str, client: Callable[[], ApiClient]) -> dict[str, Any]:
        """The keys of `config.yaml`; a policy that was asked for is made now.

        Args:
            name: of the endpoint.
            client: opens a connection to the service, if it is needed.

        Raises:
            ProtectionIncomplete: before anything is made.
            FarcallError: the service refuses, or does not answer.
        """
        wanted = self._new_policy(name)
        if wanted is not None and self.auth_policy is not None:
            raise ProtectionIncomplete("--auth-policy names a policy that exists; leave out the options that make one.")
        if self.high_assurance and wanted is None and self.auth_policy is None:
            raise ProtectionIncomplete(
                "--high-assurance needs an authentication policy: --auth-policy UUID, or say what a new one demands "
                "(--allowed-domains, --auth-timeout, --auth-policy-mfa-required)."
            )
        if self.high_assurance and self.subscription_id is None:
            raise ProtectionIncomplete("--high-assurance needs a subscription: --subscription-id UUID.")
        policy_id = self.auth_policy
        if wanted is not None:
            with client() as service:
                policy_id = str(service.add_policy(**wanted)["id"])
        keys: dict[str, Any] = {
            "authentication_policy": policy_id,
            "subscription_id": self.subscription_id,
            "high_assurance": self.high_assurance or None,
        }
        return {key: value for key, value in keys.items() if value is not None}

    def _new_policy(self, name: str) -> dict[str, Any] | None:
        demands: dict[str, Any] = {
            "domain_constraints_include": list(self.allowed_domains) or None,
            "domain_constraints_exclude": list(self.excluded_domains) or None,
            "authentication_assurance_timeout": self.auth_timeout,
            "required_mfa": self.auth_policy_mfa_required or None,
        }
        named = (self.auth_policy_display_name, self.auth_policy_description, self.auth_policy_project_id)
        if not any(demands.values()) and not any(named):
            return None
        fields = {
            **demands,
            "high_assurance": self.high_assurance or None,
            "project_id": self.auth_policy_project_id,
            "display_name": self.auth_policy_display_name or f"Policy of endpoint {name}",
            "description": self.auth_policy_description or f"Made by `farcall-endpoint configure` for endpoint {name}.",
        }
        return {key: value for key, value in fields.items() if value is not None}
