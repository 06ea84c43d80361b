"""What the commands of `farcall-endpoint` share: where endpoints lie, the service, and how a failure is told."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from farcall.endpoint.directory import EndpointDirectory, Registration, RegistrationUnreadable, find_endpoints
from farcall.tls import CaFileUnusable
from farcall.wire.errors import ApiError, FarcallError, Forbidden, LoginFailed, ServiceUnreachable, Unauthenticated
from farcall.wire.messages import is_uuid_text
from farcall.wire.names import endpoint_name_fault
from farcall.wire.shown import shown

if TYPE_CHECKING:
    from farcall.client.rest import ApiClient

__all__ = [
    "DEFAULT_NAME",
    "EX_CANTCREAT",
    "EX_CONFIG",
    "EX_DATAERR",
    "EX_INTERRUPTED",
    "EX_NOPERM",
    "EX_TEMPFAIL",
    "EX_UNAVAILABLE",
    "Common",
    "configured",
    "error",
    "exit_status",
    "fail",
    "find",
    "flags",
    "name_argument",
    "note",
    "open_client",
    "registration_of",
    "service_errors",
]

EX_DATAERR, EX_UNAVAILABLE, EX_CANTCREAT, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 65, 69, 73, 75, 77, 78
EX_INTERRUPTED = 130

DEFAULT_NAME = "default"
_KEPT = "\n\t"


@dataclass(frozen=True)
class Common:
    """What every command knows."""

    base: Path
    is_base_given: bool
    is_debug: bool
    to_console: bool

    def directory(self, name: str) -> EndpointDirectory:
        """The directory of an endpoint, which may not exist. A name is also a path: only safe ones pass."""
        fault = endpoint_name_fault(name)
        if fault is not None:
            raise click.BadParameter(fault, param_hint="NAME")
        return EndpointDirectory(self.base / name)

    def command(self, text: str) -> str:
        """A command as the user would type it to reach the same endpoints."""
        return f"farcall-endpoint {f'-c {self.base} ' if self.is_base_given else ''}{text}"


_F = TypeVar("_F", bound=Callable[..., Any])


def name_argument(function: _F) -> _F:
    """NAME, `default` if it is left out."""
    return click.argument("name", default=DEFAULT_NAME, metavar="[NAME]")(function)


def flags(function: _F) -> _F:
    """Flags that people write before or after the command's name."""
    function = click.option("--debug", is_flag=True, help="Write a verbose log.")(function)
    function = click.option("--log-to-console", is_flag=True, help="Show the log here too.")(function)
    return click.option("--no-color", is_flag=True, help="No colours.")(function)


def configured(common: Common, name: str, *, to_start: bool = False) -> EndpointDirectory:
    """The directory of an endpoint that exists; ends the command otherwise."""
    directory = common.directory(name)
    if not directory.is_configured:
        known = ", ".join(each.name for each in find_endpoints(common.base)) or "none"
        advice = f" `{common.command(f'configure {name}')}` makes it." if to_start else ""
        fail(f"There is no endpoint '{name}' in {common.base} (there: {known}).{advice}", EX_CONFIG)
    return directory


def find(common: Common, name_or_id: str) -> EndpointDirectory | None:
    """The directory of an endpoint by name or id; None for an id that none here has."""
    for each in find_endpoints(common.base):
        with contextlib.suppress(RegistrationUnreadable):
            registration = each.registration()
            if registration is not None and registration.endpoint_id == name_or_id.lower():
                return each
    if is_uuid_text(name_or_id.lower()):
        return None
    return configured(common, name_or_id)


def registration_of(directory: EndpointDirectory) -> Registration | None:
    """What `endpoint.json` remembers; ends the command if it makes no sense."""
    try:
        return directory.registration()
    except RegistrationUnreadable as exc:
        fail(exc, EX_DATAERR)


def open_client(ca_file: Path | None = None) -> ApiClient:
    """A connection to the service; ends the command if the settings make no sense."""
    from farcall.client.rest import ApiClient

    try:
        return ApiClient(ca_file=ca_file)
    except (ValueError, CaFileUnusable) as exc:
        fail(exc, EX_CONFIG)


@contextlib.contextmanager
def service_errors() -> Iterator[None]:
    """What the service says, as a message and an exit status."""
    try:
        yield
    except FarcallError as exc:
        fail(exc, exit_status(exc))
    except ValueError as exc:
        fail(exc, EX_CONFIG)
    except KeyboardInterrupt:
        fail("Interrupted.", EX_INTERRUPTED)


def exit_status(exc: FarcallError) -> int:
    """What a command returns for an error (sysexits)."""
    if isinstance(exc, ServiceUnreachable):
        return EX_TEMPFAIL
    if isinstance(exc, (Unauthenticated, Forbidden, LoginFailed)):
        return EX_NOPERM
    if isinstance(exc, CaFileUnusable):
        return EX_CONFIG
    return EX_UNAVAILABLE if isinstance(exc, ApiError) else 1


def note(text: str) -> None:
    """What people should know; on standard error."""
    click.secho(f"Note: {shown(text, keep=_KEPT)}", fg="yellow", err=True)


def error(text: str) -> None:
    """Why it failed; on standard error."""
    click.secho(f"Error: {shown(text, keep=_KEPT)}", fg="red", err=True)


def fail(reason: object, status: int) -> NoReturn:
    """Say why, and end the command."""
    error(str(reason))
    sys.exit(status)
