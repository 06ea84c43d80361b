"""`farcall-endpoint enable-on-boot` and `disable-on-boot`: an endpoint as a service of systemd."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from farcall.cli.site import EX_CANTCREAT, EX_NOPERM, EX_UNAVAILABLE, Common, configured, fail, name_argument
from farcall.endpoint.pidfile import running_process
from farcall.wire.names import endpoint_name_fault

__all__ = ["disable_on_boot", "enable_on_boot", "unit_text"]

_UNITS: Final = Path("/etc/systemd/system")
_KEPT: Final = ("FARCALL_CA_FILE", "FARCALL_SERVICE_URL", "FARCALL_USER_DIR")
"""Variables that the service needs as the person who enabled it had them. None is a secret."""
_STOP_S: Final = 660
"""Longer than any manager waits for its user endpoints: their `shutdown_grace_period` counts up to ten minutes."""

_unit_dir = click.option(
    "--unit-dir", type=click.Path(file_okay=False, path_type=Path), default=_UNITS, hidden=True
)  # for tests


@click.command("enable-on-boot")
@name_argument
@_unit_dir
@click.pass_obj
def enable_on_boot(common: Common, name: str, unit_dir: Path) -> None:
    """Install a systemd service that runs an endpoint, from the next boot on and after every end.

    It runs as the user whom the endpoint's directory belongs to. Only root can install it.

    \b
    Example:
      sudo farcall-endpoint enable-on-boot cluster
    """
    directory = configured(common, name)
    running = running_process(directory.pid_path)
    if running is not None:
        fail(
            f"Endpoint '{name}' is running (process {running.pid}). Stop it first: "
            f"`{common.command(f'stop {name}')}`; the service starts it again.",
            EX_UNAVAILABLE,
        )
    path = unit_dir / f"{_unit(name)}.service"
    if path.exists():
        fail(f"{path} is there already. `{common.command(f'disable-on-boot {name}')}` removes it.", EX_CANTCREAT)
    owner = _owner(directory.path)
    kept = {key: os.environ[key] for key in _KEPT if os.environ.get(key)}
    kept.pop("FARCALL_USER_DIR" if common.is_base_given else "", None)
    try:
        text = unit_text(name, _command(common, name, owner), user=owner.pw_name, environment=kept)
    except ValueError as exc:
        fail(exc, EX_CANTCREAT)
    try:
        _write(path, text)
    except PermissionError:
        fail(_only_root(common, f"enable-on-boot {name}"), EX_NOPERM)
    except OSError as exc:
        fail(f"{path} cannot be written: {exc}", EX_CANTCREAT)
    click.echo(f"Systemd service installed at {path}. Run")
    click.echo(f"    sudo systemctl enable {_unit(name)} --now")
    click.echo("to enable the service and start the endpoint.")


@click.command("disable-on-boot")
@name_argument
@_unit_dir
@click.pass_obj
def disable_on_boot(common: Common, name: str, unit_dir: Path) -> None:
    """Stop an endpoint that runs as a systemd service, and remove the service. Only root can."""
    fault = endpoint_name_fault(name)
    if fault is not None:
        raise click.BadParameter(fault, param_hint="NAME")
    path = unit_dir / f"{_unit(name)}.service"
    if not path.exists():
        fail(f"Endpoint '{name}' is no systemd service: there is no {path}.", EX_UNAVAILABLE)
    if not os.access(unit_dir, os.W_OK):
        fail(_only_root(common, f"disable-on-boot {name}"), EX_NOPERM)
    is_ours = unit_dir == _UNITS and Path("/run/systemd/system").is_dir()
    if is_ours:
        _systemctl("disable", "--now", _unit(name))
    try:
        (unit_dir / "multi-user.target.wants" / path.name).unlink(missing_ok=True)
        path.unlink()
    except OSError as exc:
        fail(f"{path} cannot be removed: {exc}", EX_CANTCREAT)
    if is_ours:
        _systemctl("daemon-reload")
    click.echo(f"Systemd service {_unit(name)} removed; the endpoint no longer starts on boot.")


def unit_text(name: str, command: Sequence[str], *, user: str, environment: Mapping[str, str] | None = None) -> str:
    """A unit file of systemd.

    When the service is stopped, only the manager is told; it ends its user endpoints in order, and whatever is left
    when it is gone is killed. What one user has too much of, memory or processes, is no reason to end everybody's.
    Source: systemd.service(5), systemd.kill(5), systemd.resource-control(5), systemd.syntax(7).

    Args:
        command: the program's absolute path, and its arguments.
        environment: variables of the process; nothing secret, everybody can read them.

    Raises:
        ValueError: a part contains what a unit file cannot hold.
    """
    if any(each in command[0] for each in "\"'\\$"):
        raise ValueError(f"systemd starts no program whose path has quotes, backslashes or $: {command[0]}")
    lines = [f"Environment={_quoted(f'{key}={value}')}\n" for key, value in sorted((environment or {}).items())]
    started = " ".join([_quoted(command[0]), *(_quoted(part, is_expanded=True) for part in command[1:])])
    return f"""\
[Unit]
Description=Farcall Endpoint "{name.replace("%", "%%")}"
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart={started}
{"".join(lines)}User={user}
Type=simple
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec={_STOP_S}
OOMPolicy=continue
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


def _quoted(word: str, *, is_expanded: bool = False) -> str:
    """A word of a unit file. `is_expanded`: systemd would put variables in for `$NAME`."""
    if any(ord(each) < 32 or ord(each) == 127 for each in word):
        raise ValueError(
            f"{word!r} contains what a systemd unit cannot hold. Choose a path without control characters."
        )
    text = word.replace("%", "%%")
    if is_expanded:
        text = text.replace("$", "$$")
    if all(each.isalnum() or each in "_./:@%+=,-$" for each in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _command(common: Common, name: str, owner: pwd.struct_passwd) -> list[str]:
    """How the service starts the endpoint: by the same program, whatever PATH is then."""
    beside = Path(sys.executable).parent / "farcall-endpoint"
    program = [str(beside)] if beside.exists() else [sys.executable, "-m", "farcall.cli.endpoint"]
    is_usual = common.base == Path(owner.pw_dir) / ".farcall"
    return [*program, *([] if is_usual else ["--config-dir", str(common.base)]), "start", name]


def _unit(name: str) -> str:
    return f"farcall-endpoint-{name}"


def _owner(path: Path) -> pwd.struct_passwd:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        fail(f"{path} belongs to user {uid}, whom this machine does not know.", EX_CANTCREAT)


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)


def _only_root(common: Common, command: str) -> str:
    return (
        "Only root can change the services of systemd. Run\n"
        f"    sudo {sys.argv[0]} --config-dir {common.base} {command}"
    )


def _systemctl(*arguments: str) -> None:
    program = shutil.which("systemctl") or "systemctl"
    try:
        subprocess.run([program, *arguments], check=True, timeout=_STOP_S + 30)
    except (OSError, subprocess.SubprocessError) as exc:
        fail(f"`systemctl {' '.join(arguments)}` failed: {exc}", EX_UNAVAILABLE)
