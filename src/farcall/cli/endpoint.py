"""The site's command, `farcall-endpoint`: one group of commands, each in a module of its own or beside its sisters.

What is heavy (the agent, pydantic) is imported by the commands that need it alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from farcall import __version__
from farcall.cli import login as logins
from farcall.cli.boot import disable_on_boot, enable_on_boot
from farcall.cli.configure import configure
from farcall.cli.groups import Commands
from farcall.cli.looking import delete, list_endpoints, status
from farcall.cli.manager import stop_user_endpoint
from farcall.cli.running import restart, start, stop
from farcall.cli.sharing import share, shares, unshare
from farcall.cli.site import EX_UNAVAILABLE, Common, fail, flags, service_errors
from farcall.cli.templates import migrate_to_template_capable, render_user_config, validate_mapping
from farcall.cli.user_endpoint import start_user_endpoint
from farcall.client.settings import user_dir
from farcall.endpoint.directory import find_endpoints
from farcall.endpoint.pidfile import running_process

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the endpoints' directories. [default: $FARCALL_USER_DIR, else ~/.farcall]",
)
@flags
@click.pass_context
def main(context: click.Context, config_dir: Path | None, debug: bool, log_to_console: bool, no_color: bool) -> None:
    """Turn this machine, or the cluster it belongs to, into a place where functions run.

    \b
    A first endpoint:
      farcall-endpoint configure my-first-endpoint
      farcall-endpoint start my-first-endpoint
    \b
    The service is the one that `farcall login URL` chose, or $FARCALL_SERVICE_URL,
    or http://localhost:5000.
    """
    if no_color:
        os.environ["NO_COLOR"] = "1"
        context.color = False
    context.obj = Common(
        base=(config_dir or user_dir()).expanduser().absolute(),
        is_base_given=config_dir is not None,
        is_debug=debug,
        to_console=log_to_console,
    )


@main.command()
@click.pass_obj
def version(common: Common) -> None:
    """Show the version; with `farcall-endpoint --debug version` also those of what it stands on."""
    click.echo(f"farcall-endpoint, version {__version__}")
    if common.is_debug:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        click.echo(f"Python {sys.version.split()[0]}, {sys.executable}")
        for package in ("parsl", "dill", "pika", "pydantic"):
            with contextlib.suppress(PackageNotFoundError):
                click.echo(f"{package} {version_of(package)}")


@main.command()
@click.option("--linked-identities", is_flag=True, help="Show all identities that are linked with yours.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def whoami(linked_identities: bool, as_json: bool) -> None:
    """Show which service this user's endpoints belong to, and as whom."""
    with service_errors():
        logins.whoami(linked=linked_identities, as_json=as_json)


@main.command()
@click.argument("url", required=False)
@logins.login_options
def login(url: str | None, **options: Any) -> None:
    """Log in at a service: in a browser, or with a code that you confirm in a browser on any device.

    The same login as that of `farcall login`. The service on this machine needs none by the user who started it. A
    token that the service's operator gave you can be pasted (--token), piped in, or stand in FARCALL_TOKEN; an
    endpoint of a program uses FARCALL_CLIENT_ID and FARCALL_CLIENT_SECRET.

    \b
    Examples:
      farcall-endpoint login https://farcall.example.org
      farcall-endpoint login https://farcall.example.org --device
    """
    with service_errors():
        logins.login(url, logins.Wish(**options))


@main.command()
@click.option("--account", metavar="NAME", help="Of this user; otherwise the login in use.")
@click.option("--force", is_flag=True, help="Even if endpoints run.")
@click.pass_obj
def logout(common: Common, account: str | None, force: bool) -> None:
    """Revoke and forget this user's login. Running endpoints need it to come back after an interruption."""
    running = [each.name for each in find_endpoints(common.base) if running_process(each.pid_path) is not None]
    if running and not force:
        fail(f"Endpoints are running: {', '.join(running)}. Stop them first, or use --force.", EX_UNAVAILABLE)
    with service_errors():
        logins.logout(None, account)


for command in (
    configure,
    start,
    stop,
    restart,
    list_endpoints,
    status,
    stop_user_endpoint,
    delete,
    render_user_config,
    validate_mapping,
    migrate_to_template_capable,
    enable_on_boot,
    disable_on_boot,
    share,
    unshare,
    shares,
    start_user_endpoint,
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="farcall-endpoint")
