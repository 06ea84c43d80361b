"""`farcall-endpoint configure`: a new endpoint's files, and where they are."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from farcall.cli.protection import Protection, protection_options
from farcall.cli.site import EX_CANTCREAT, Common, fail, name_argument, note, open_client, service_errors
from farcall.endpoint.profile import EndpointExists, create_profile

if TYPE_CHECKING:
    from farcall.endpoint.manager.profile import ManagerFiles, Sources

__all__ = ["configure"]

_F = TypeVar("_F", bound=Callable[..., Any])
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0")


class _OptionalTruth(click.Command):
    """Takes `--multi-user` alone, with a value behind it, and in front of the endpoint's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        stop = given.index("--") if "--" in given else len(given)
        for index in range(stop):
            if given[index] == "--multi-user":
                following = given[index + 1 : stop][:1]
                if not following or following[0].lower() not in _TRUTHS:
                    given[index] = "--multi-user=true"
        return super().parse_args(ctx, given)


def _file_options(function: _F) -> _F:
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    options = {
        "--manager-config": "Copy this as config.yaml, in place of the default.",
        "--template-config": "Copy this as user_config_template.yaml.j2.",
        "--schema-config": "Copy this as user_config_schema.json.",
        "--user-env-config": "Copy this as user_environment.yaml.",
        "--id-mapping-config": "Copy this as identity_mapping_config.json, in place of the example.",
    }
    for name, said in reversed(options.items()):
        function = click.option(name, type=path, metavar="FILE", help=f"With --multi-user: {_lower(said)}")(function)
    return function


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


@click.command(cls=_OptionalTruth)
@name_argument
@click.option(
    "--multi-user",
    type=bool,
    metavar="[true|false]",
    help="A manager that starts an endpoint for each of its users, as root each as their local user.",
)
@click.option("--display-name", help="What people see in lists, in place of the name.")
@click.option("--contact-email", metavar="ADDRESS", help="With --multi-user: whom its users can ask.")
@_file_options
@protection_options
@click.pass_obj
def configure(common: Common, /, name: str, multi_user: bool | None, display_name: str | None, **options: Any) -> None:
    """Make a new endpoint's directory with a config.yaml to edit.

    Options about domains, logins and second factors make an authentication policy at the service, by
    which it judges whoever wants to use the endpoint.

    \b
    Examples:
      farcall-endpoint configure my-first-endpoint
      farcall-endpoint configure cluster --display-name "The cluster, 8 nodes"
      farcall-endpoint configure cluster --allowed-domains "*.example.edu" --auth-timeout 3600
      farcall-endpoint configure vault --high-assurance --subscription-id ID --allowed-domains example.edu
      sudo farcall-endpoint configure cluster-for-all --multi-user
    """
    from farcall.endpoint.manager.profile import Sources

    directory = common.directory(name)
    contact_email = options.pop("contact_email")
    sources = Sources(**{key: options.pop(key) for key in Sources.__dataclass_fields__})
    _check(multi_user=bool(multi_user), contact_email=contact_email, sources=sources)
    wanted = Protection(**options)
    made: ManagerFiles | None = None
    try:
        if directory.is_configured:
            raise EndpointExists(directory.name, str(directory.path))
        _check_manager_config(sources, display_name, contact_email, wanted)
        with service_errors():
            keys = wanted.keys(name, open_client)
        if multi_user:
            from farcall.endpoint.manager.profile import create_manager_profile

            made = create_manager_profile(
                directory,
                is_privileged=os.geteuid() == 0,
                display_name=display_name,
                contact_email=contact_email,
                protection=keys,
                sources=sources,
            )
        else:
            create_profile(directory, display_name=display_name, protection=keys)
    except EndpointExists as exc:
        fail(exc, EX_CANTCREAT)
    except (OSError, UnicodeDecodeError) as exc:
        fail(f"{directory.path} cannot be made: {exc}", EX_CANTCREAT)
    _say(common, name, directory.config_path, made, keys)
    if multi_user is None and os.geteuid() == 0:
        note(
            "This endpoint runs every task as root. For an endpoint that runs each user's tasks as themselves, "
            f"remove it and configure it with --multi-user: `{common.command(f'configure {name} --multi-user')}`."
        )


def _check(*, multi_user: bool, contact_email: str | None, sources: Sources) -> None:
    """Options that only a manager has. Raises click.UsageError."""
    if multi_user:
        if sources.id_mapping_config is not None and os.geteuid() != 0:
            raise click.UsageError("--id-mapping-config is for root alone: your user endpoints all run as you.")
        return
    given = [f"--{key.replace('_', '-')}" for key, value in vars(sources).items() if value is not None]
    given += ["--contact-email"] if contact_email is not None else []
    if given:
        raise click.UsageError(f"{', '.join(given)}: only for endpoints with --multi-user.")


def _check_manager_config(
    sources: Sources, display_name: str | None, contact_email: str | None, wanted: Protection
) -> None:
    """What stands in a file that is copied cannot come from options as well. Raises click.UsageError."""
    if sources.manager_config is None:
        return
    if display_name is not None or contact_email is not None or any(vars(wanted).values()):
        raise click.UsageError(
            "--manager-config brings a whole config.yaml; write there what the other options would put into it."
        )


def _say(common: Common, name: str, config: Path, made: ManagerFiles | None, keys: dict[str, Any]) -> None:
    lines = [f"Created {'multi-user ' if made else ''}profile for endpoint named <{name}>"]
    lines.append(f"Configuration file: {config}")
    if made is not None:
        if made.mapping is not None:
            begin = "Example identity" if made.is_example else "Identity"
            lines.append(f"{begin} mapping configuration: {made.mapping}")
        lines += [
            f"User endpoint configuration template: {made.template}",
            f"User endpoint configuration schema: {made.schema}",
            f"User endpoint environment variables: {made.environment}",
        ]
    if "authentication_policy" in keys:
        lines.append(f"Authentication policy: {keys['authentication_policy']}")
    lines.append("Use the `start` subcommand to run it:")
    lines.append(f"    $ {common.command(f'start {name}')}")
    click.echo("\n\n".join(lines))
    if made is not None and made.mapping is None:
        note(
            f"Only root can make user endpoints run as other local users: those of this one run as you "
            f"({getpass.getuser()}), with your files, keys and jobs."
        )
