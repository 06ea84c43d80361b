"""Puts the web console before the service, if it is wanted and installed, and says how to get in."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from farcall.service.roles import part_of
from farcall.service.settings import ServiceSettings
from farcall.wire.errors import FarcallError

if TYPE_CHECKING:
    from farcall.service.server import Front, RunningService

__all__ = ["LINK", "ConsoleNotInstalled", "front_of", "hint_of", "is_installed", "login_link"]


LINK: Final = "Log in to it"
"""Name of the line with a link in it, which is for a terminal and not for a log."""


class ConsoleNotInstalled(FarcallError):
    """A process that shall show nothing but the console, and no console."""

    code = "CONSOLE_NOT_INSTALLED"

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "The web console is not installed here. Install it: pip install 'farcall[console]'."


def is_installed() -> bool:
    """Whether the console's pages can be shown. Loads nothing."""
    return importlib.util.find_spec("nicegui") is not None


def front_of(settings: ServiceSettings) -> Front | None:
    """The console as these settings want it; None: without.

    Raises:
        ConsoleNotInstalled: the role is the console's, and it cannot be had.
        RoleNeedsServers: see `part_of`.
    """
    part = part_of(settings)
    if not part.shows:
        return None
    if not is_installed():
        if part.is_console:
            raise ConsoleNotInstalled
        return None
    from farcall.console.app import ConsoleSettings, console_front

    chosen = ConsoleSettings(lifetime_s=settings.login_s, answers=part.answers_outside)
    return partial(console_front, settings=chosen)


def hint_of(running: RunningService, identity_id: str, front: Front | None) -> list[tuple[str, str]]:
    """What an operator is told of the console, as names and values; the link logs them in, once.

    Args:
        identity_id: of the person who starts the service.
    """
    from farcall.service.login.links import LINK_LIFETIME_S
    from farcall.service.login.once import login_link_path
    from farcall.service.ports import is_loopback

    service = running.service
    if front is None:
        has_one = part_of(service.settings).shows
        return [("Console", "not installed (pip install 'farcall[console]')")] if has_one else []
    lines = [("Console", f"{running.url}/compute")]
    if service.cluster is None and is_loopback(service.settings.host):
        path = login_link_path(service.links.make(identity_id))
        minutes = round(LINK_LIFETIME_S / 60)
        lines.append((LINK, f"{running.url}{path}"))
        lines.append(("", f"once, on this machine, within {minutes} min; `farcall-service login-link`"))
    return lines


@click.command("login-link")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Of the service; as for `start`.")
@click.option("--settings", "settings_file", type=click.Path(path_type=Path, dir_okay=False), help="As for `start`.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def login_link(data_dir: Path | None, settings_file: Path | None, as_json: bool) -> None:
    """Print a link that logs your browser in to the console, once: for whoever runs a service on this machine.

    It counts on this machine alone, for a quarter of an hour. People on other machines log in with an account.
    """
    from farcall.cli import service as commands
    from farcall.service import statefile

    state = statefile.running_state(commands._data_dir(settings_file, data_dir))
    if state is None:
        commands._fail("No service runs there. Start one with `farcall-service start`.", commands.NOT_RUNNING)
    try:
        document = json.loads(commands._asked(state, "/v3/login-links", "POST"))
    except urllib.error.HTTPError as exc:
        told = json.loads(exc.read() or b"{}")
        commands._fail(str(told.get("detail") or f"The service answers HTTP {exc.code}."), commands.EX_UNAVAILABLE)
    except (OSError, ValueError) as exc:
        commands._fail(f"The service does not answer: {exc}", commands.EX_UNAVAILABLE)
    link = state.url + document["path"]
    click.echo(json.dumps({"url": link, "lifetime_s": document["lifetime_s"]}) if as_json else link)
