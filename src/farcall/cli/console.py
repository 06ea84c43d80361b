"""Puts the web console before the service, if it is wanted and installed."""

from __future__ import annotations

import importlib.util
from functools import partial

from farcall.service.roles import part_of
from farcall.service.server import Front
from farcall.service.settings import ServiceSettings
from farcall.wire.errors import FarcallError

__all__ = ["ConsoleNotInstalled", "front_of", "is_installed"]


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

    return partial(console_front, settings=ConsoleSettings(lifetime_s=settings.login_s, answers=part.answers_outside))
