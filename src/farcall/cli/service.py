"""The operator's command, `farcall-service`: start, stop, status, migrate, check, version; more is in `cli.accounts`.

Composes the service with the user's token store. What is heavy (FastAPI, SQLAlchemy) is imported by `start` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import getpass
import importlib
import json
import logging
import logging.handlers
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape

from farcall import __version__
from farcall.cli.console import LINK
from farcall.cli.groups import Commands
from farcall.client.settings import canonical_url, service_url
from farcall.client.tokens import StoredToken, TokenStore
from farcall.service import sources, statefile
from farcall.service.ops.logs import JsonFormatter, TextFormatter
from farcall.service.ports import is_loopback
from farcall.service.settings import ServiceSettings
from farcall.service.sources import Effective
from farcall.service.statefile import ServiceState
from farcall.wire.errors import FarcallError

if TYPE_CHECKING:
    from farcall.service.db.migrations import Half
    from farcall.service.server import RunningService

__all__ = ["main"]

_logger = logging.getLogger("farcall.cli.service")  # by name: the background process runs this as __main__

EX_USAGE = 64
EX_UNAVAILABLE, EX_SOFTWARE, EX_CANTCREAT, EX_TEMPFAIL, EX_CONFIG = 69, 70, 73, 75, 78
EX_INTERRUPTED = 130
NOT_RUNNING = 3
_STOP_S = 60.0
_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOG_BYTES = 100 * 1024 * 1024
_LOG_LEVELS = ["debug", "info", "warning", "error"]

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def _default_data_dir() -> Path:
    """`farcall-service` in the user's data directory."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "farcall-service"


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the service keeps things, and where its other settings are."""
    data_dir = click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the service keeps its database, log and state. "
        "[default: $FARCALL_DATA_DIR, else ~/.local/share/farcall-service]",
    )
    file = click.option(
        "--settings",
        "settings_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="FARCALL_SETTINGS",
        help="TOML file (YAML if it ends in .yaml) with settings.  [default: $FARCALL_SETTINGS]",
    )
    return file(data_dir(command))


def _without_password(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The store's URL; on the command line, which everybody on the machine can read, without a password."""
    if value and _PASSWORD.search(value):
        _fail(
            "A password in --store can be read by everybody on this machine (`ps`). Leave it out there, and give it by "
            "PGPASSFILE or PGPASSWORD, or give the whole URL as FARCALL_STORE.",
            EX_USAGE,
        )
    return value or None


_PASSWORD = re.compile(r"^\w+://[^/?@]*:[^/?]*@|[?&]password=", re.IGNORECASE)


def _without_broker_password(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The broker's URL, likewise."""
    if value and _PASSWORD.search(value):
        _fail(
            "A password in --broker can be read by everybody on this machine (`ps`). Give the whole URL as "
            "FARCALL_BROKER, or in a settings file that only the service's user may read.",
            EX_USAGE,
        )
    return value or None


_broker_option = click.option(
    "--broker",
    callback=_without_broker_password,
    metavar="URL",
    help="amqp://USER@HOST/VHOST of a RabbitMQ, or amqps://….  [default: $FARCALL_BROKER, else one in this process]",
)
_store_option = click.option(
    "--store",
    callback=_without_password,
    metavar="URL",
    help="postgresql://USER@HOST/DATABASE, or sqlite:///FILE.  [default: $FARCALL_STORE, else SQLite in the data dir]",
)


_FILE = click.Path(path_type=Path, dir_okay=False)
_ELSEWHERE = {
    **dict.fromkeys(("user", "client", "group", "admin", "audit"), "farcall.cli.accounts"),
    **dict.fromkeys(("policy", "subscription"), "farcall.cli.policies"),
    "login-link": "farcall.cli.console",
}


class _Commands(Commands):
    """Loads the commands of other modules when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *_ELSEWHERE})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _ELSEWHERE:
            return super().get_command(context, name)
        command: click.Command = getattr(importlib.import_module(_ELSEWHERE[name]), name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="farcall-service")
def main() -> None:
    """Run a Farcall service: it takes functions and tasks, keeps them safe, and hands results back.

    One process, with its own message broker, or the RabbitMQ that `--broker` names, and a database: SQLite, or the
    PostgreSQL that `--store` names. Whoever starts it is its administrator, and is logged in to it at once.

    \b
    Examples:
      farcall-service start              in this terminal, until Ctrl-C
      farcall-service start --detach     in the background
      farcall-service status
      farcall-service stop
      farcall-service user add ada       somebody else may use it
    """


@main.command()
@click.option("--detach", is_flag=True, help="Run in the background; returns when the service answers.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="For HTTP; 0: any free.  [default: 5000]")
@click.option(
    "--amqp-port", type=click.IntRange(0, 65535), help="For the message broker; 0: any free.  [default: 5672]"
)
@click.option(
    "--role",
    type=click.Choice(["all", "api", "relay", "console"]),
    help="What this process does, if several share the work.  [default: all]",
)
@_store_option
@click.option("--tls-cert", type=_FILE, help="PEM file: the certificate for HTTPS and AMQPS, with its chain.")
@click.option("--tls-key", type=_FILE, help="PEM file: its key, without passphrase.  [default: in --tls-cert]")
@click.option("--insecure", is_flag=True, default=None, help="Listen on a network without TLS all the same.")
@click.option("--console/--no-console", default=None, help="Show the web console.  [default: if it is installed]")
@_broker_option
@click.option("--log-level", type=click.Choice(_LOG_LEVELS), help="[default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Of service.log.  [default: text]")
@_settings_options
@click.option("--ready-fd", type=int, hidden=True, help="Where to report to, for --detach.")
def start(detach: bool, settings_file: Path | None, data_dir: Path | None, ready_fd: int | None, **given: Any) -> None:
    """Start the service.

    Every other setting can be made in a settings file, or in the environment as FARCALL_<NAME>: see
    `farcall-service settings`.

    \b
    Examples:
      farcall-service start --detach
      farcall-service start --port 0 --amqp-port 0 --data-dir /tmp/farcall
      farcall-service start --settings /etc/farcall/service.toml
      farcall-service start --store postgresql://farcall@db.example.org/farcall
      farcall-service start --host 0.0.0.0 --tls-cert fullchain.pem --tls-key privkey.pem
      FARCALL_BROKER=amqp://farcall:PASSWORD@rabbit.example.org/farcall farcall-service start
    """
    settings = _effective(settings_file, {**given, "data_dir": data_dir}).settings
    data_dir = settings.data_dir
    _make_data_dir(data_dir)
    if detach:
        _start_detached(settings, settings_file, given)
        return
    os.umask(0o077)
    with _reporting(ready_fd) as report:
        lock = statefile.DataDirLock(data_dir)
        lock.acquire()
        _configure_logging(settings, to_console=ready_fd is None)
        _run(settings, report, is_foreground=ready_fd is None)


@main.command()
@_settings_options
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def settings(settings_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show the settings that `start` would use here, and where each comes from. Secrets are masked.

    The first that says something counts: command line, environment (FARCALL_<NAME>), settings file, default.
    """
    effective = _effective(settings_file, {"data_dir": data_dir})
    values = {name: sources.shown(name, getattr(effective.settings, name)) for name in effective.origins}
    if as_json:
        shown = {name: {"value": value, "origin": effective.origins[name]} for name, value in values.items()}
        click.echo(json.dumps(shown))
        return
    _print_lines([(name, f"{value:<24} {effective.origins[name]}") for name, value in values.items()])


@main.command()
@_settings_options
def stop(settings_file: Path | None, data_dir: Path | None) -> None:
    """Stop the service that uses a data directory; it finishes what it is writing.

    Tasks and results stay in the database; endpoints and clients connect again when the service is back.
    """
    data_dir = _data_dir(settings_file, data_dir)
    state = statefile.running_state(data_dir)
    if state is None:
        _out.print(f"No service runs on {data_dir}.")
        return
    try:
        os.kill(state.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        _fail(f"Process {state.pid} is somebody else's; ask them, or root, to stop it.", 77)
    if not statefile.wait_for_end(state.pid, _STOP_S):
        _fail(f"Process {state.pid} has not ended after {_STOP_S:.0f} s; see {state.log}.", EX_TEMPFAIL)
    _out.print(f"Stopped the service at {state.url} (process {state.pid}).")


@main.command()
@_settings_options
@click.option("--json", "as_json", is_flag=True, help="For scripts; `running` says whether it runs.")
def status(settings_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show whether the service runs, where, and what it does. Exit status 3 if it does not run."""
    data_dir = _data_dir(settings_file, data_dir)
    state = statefile.running_state(data_dir)
    if state is None:
        if as_json:
            click.echo(json.dumps({"running": False, "data_dir": str(data_dir)}))
        else:
            _out.print(f"No service runs on {data_dir}. Start one with `farcall-service start`.")
        raise SystemExit(NOT_RUNNING)
    inside = _ask(state)
    if as_json:
        shown = {"running": True, "data_dir": str(data_dir), **vars(state), **inside}
        click.echo(json.dumps(shown))
        return
    _print_lines(_status_lines(data_dir, state, inside))


@main.command()
@_store_option
@_settings_options
@click.option("--sql", "as_sql", is_flag=True, help="Print the statements instead, for somebody else to run.")
@click.option("--pre", "half", flag_value="pre", help="Only add what this release needs; older processes go on.")
@click.option("--post", "half", flag_value="post", help="Remove what only older releases needed, when they are gone.")
def migrate(
    store: str | None, settings_file: Path | None, data_dir: Path | None, as_sql: bool, half: Half | None
) -> None:
    """Bring the store's tables up to date with this release, while no service uses them.

    `start` does so by itself; this is for sites where the service's role may not change tables, and for those where
    several service processes are replaced one after another: `--pre`, the new release everywhere, `--post`.
    """
    from farcall.service.db.upkeep import shown_url, upgrade_sql, upgrade_store

    settings = _effective(settings_file, {"store": store, "data_dir": data_dir}).settings
    data_dir, url = settings.data_dir, settings.store_url
    with _reporting(None):
        if as_sql:
            click.echo(upgrade_sql(url, half), nl=False)
            return
        if settings.store is None:
            _make_data_dir(data_dir)
            statefile.DataDirLock(data_dir).acquire()  # until this process ends
        os.umask(0o077)
        changed = upgrade_store(url, half)
        _out.print(escape(f"{shown_url(url)} {'was brought' if changed else 'is'} up to date."))


@main.command()
@_store_option
@_broker_option
@_settings_options
@click.option("--json", "as_json", is_flag=True, help="For scripts; `ok` says whether a service can start.")
def check(
    store: str | None, broker: str | None, settings_file: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Connect to what the service needs, and say what is wrong and what to do. Changes nothing.

    Exit status 69 if a service could not work like this.
    """
    from farcall.service.db.upkeep import check_store
    from farcall.service.oidc.check import check_providers
    from farcall.service.tls import check_tls

    logging.getLogger("farcall").addHandler(logging.NullHandler())  # what is wrong is said below
    settings = _effective(settings_file, {"store": store, "broker": broker, "data_dir": data_dir}).settings
    findings = [*check_store(settings.store_url), *check_tls(settings), *check_providers(settings.oidc)]
    if settings.broker is not None:
        from farcall.service.relay.rabbit.check import check_broker

        findings += check_broker(settings.broker, settings.broker_management)
    ok = all(finding.status != "failed" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": ok, "findings": [vars(finding) for finding in findings]}))
    else:
        for finding in findings:
            colour = {"ok": "green", "warning": "yellow", "failed": "red"}[finding.status]
            _out.print(f"[bold {colour}]{finding.status:7}[/]  {escape(finding.text)}")
            if finding.remedy:
                _out.print(f"         → {escape(finding.remedy)}")
    if not ok:
        raise SystemExit(EX_UNAVAILABLE)


@main.command()
def version() -> None:
    """Show the version."""
    click.echo(__version__)


# --- Running ---------------------------------------------------------------------------------------------------


class _Report:
    """Tells the starting process how it went, once. In the foreground there is nobody to tell."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def send(self, document: dict[str, Any]) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "w") as pipe:
            pipe.write(json.dumps(document) + "\n")


@contextlib.contextmanager
def _reporting(fd: int | None) -> Iterator[_Report]:
    """Errors that an operator can do something about become a message and an exit status."""
    from farcall.service.db.errors import StoreError
    from farcall.service.ports import CannotListen
    from farcall.service.relay.rabbit.address import BrokerMisnamed
    from farcall.service.roles import RoleNeedsServers
    from farcall.service.tls import CertificateUnusable, NotProtected

    report = _Report(fd)
    try:
        yield report
    except FarcallError as exc:
        known: dict[type[FarcallError], int] = {
            CannotListen: EX_UNAVAILABLE,
            statefile.DataDirBusy: EX_CANTCREAT,
            sources.SettingsError: EX_CONFIG,
            CertificateUnusable: EX_CONFIG,
            NotProtected: EX_CONFIG,
            BrokerMisnamed: EX_CONFIG,
            RoleNeedsServers: EX_CONFIG,
        }
        exit_status = EX_UNAVAILABLE if isinstance(exc, StoreError) else known.get(type(exc), EX_SOFTWARE)
        report.send({"ok": False, "message": str(exc), "exit": exit_status})
        _fail(str(exc), exit_status)
    except Exception as exc:
        _logger.exception("The service ended by a fault", extra={"event": "service.fault"})
        reason = (str(exc).splitlines() or [""])[0]
        message = f"The service ended by a fault ({type(exc).__name__}: {reason}). Its log says more."
        report.send({"ok": False, "message": message, "exit": EX_SOFTWARE})
        _fail(message, EX_SOFTWARE)


def _run(settings: ServiceSettings, report: _Report, *, is_foreground: bool) -> None:
    import uvloop

    # The event loop and the database's threads hand over to each other all the time. No effect was measured under
    # steady load; it bounds how long one of them waits for the other's computing (the default is 5 ms).
    sys.setswitchinterval(0.0005)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio_run = getattr(uvloop, "run", asyncio.run)
        asyncio_run(_serve(settings, report, is_foreground))


async def _serve(settings: ServiceSettings, report: _Report, is_foreground: bool) -> None:
    from farcall.cli.console import front_of, hint_of
    from farcall.service.server import running_service

    stop_asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPPING_SIGNALS:
        loop.add_signal_handler(number, stop_asked.set)
    front = front_of(settings)
    async with running_service(settings, front) as running:
        loop.add_signal_handler(signal.SIGHUP, stop_asked.set if _has_terminal() else partial(_read_again, running))
        administrator, identity_id = await _log_in(running)
        hint = hint_of(running, identity_id, front)
        state = _state_of(settings, running)
        statefile.write_state(settings.data_dir, state)
        _logger.info("The service has started", extra={"event": "service.started", "url": state.url, "pid": state.pid})
        if is_foreground:
            _print_banner(settings.data_dir, state, administrator, "Ctrl-C", hint)
        report.send({"ok": True, "state": vars(state), "administrator": administrator, "console": hint})
        gc.collect()
        gc.freeze()  # what was imported is here to stay: the collector need not look at it again
        await stop_asked.wait()
        _logger.info("The service is stopping", extra={"event": "service.stopping"})
        if is_foreground:
            _out.print("Stopping…")
        for number in (*_STOPPING_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)  # the second one ends it at once
    statefile.write_state(settings.data_dir, None)
    _logger.info("The service has stopped", extra={"event": "service.stopped"})


def _has_terminal() -> bool:
    """Whether SIGHUP comes since a terminal was closed; without one, an operator or a supervisor sends it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def _read_again(running: RunningService) -> None:
    """By SIGHUP; changed files are noticed without it, too."""
    certificate = running.service.certificate
    if certificate is None:
        _logger.info("SIGHUP: there is nothing to be read again", extra={"event": "service.hangup"})
    else:
        certificate.reload()


def _state_of(settings: ServiceSettings, running: RunningService) -> ServiceState:
    from farcall.service.db.upkeep import shown_url

    return ServiceState(
        pid=os.getpid(),
        process_start=statefile.process_start(os.getpid()),
        url=running.url,
        host=settings.host,
        port=running.port,
        amqp_port=running.service.amqp_port,
        started_at=time.time(),
        version=__version__,
        log=str(settings.data_dir / "service.log"),
        store=shown_url(settings.store_url),
        tls_cert=str(settings.tls_cert or ""),
        role=settings.role,
        broker=running.service.rabbitmq.shown if running.service.rabbitmq else "",
    )


async def _log_in(running: RunningService) -> tuple[str, str]:
    """Log the user of this process in: identity, administrator, token in the token store. Returns name and id."""
    from farcall.service.accounts.local import local_login

    store = TokenStore()
    username = f"{getpass.getuser()}@localhost"
    try:
        stored = store.get(running.url, username)
    except (OSError, ValueError) as exc:
        _err.print(f"[yellow]Warning:[/] the token store cannot be read: {escape(str(exc))}")
        stored = None
    login = await local_login(running.service, username, stored.access_token if stored else None)
    if stored is None or stored.access_token != login.token:
        token = StoredToken(access_token=login.token, identity_id=login.identity.id, username=username)
        try:
            store.put(running.url, token, use=False)  # who has logged in as somebody else stays that
        except (OSError, ValueError) as exc:
            _err.print(f"[yellow]Warning:[/] your token could not be stored in {store.path}: {escape(str(exc))}")
    return username, login.identity.id


def _effective(settings_file: Path | None, given: dict[str, Any]) -> Effective:
    """The settings in force, or an end with a message. `given`: options by field; None was not given."""
    try:
        return sources.effective_settings(
            command_line={name: value for name, value in given.items() if value is not None},
            environment=os.environ,
            file=settings_file,
            default_data_dir=_default_data_dir(),
        )
    except sources.SettingsError as exc:
        _fail(str(exc), EX_CONFIG)


def _data_dir(settings_file: Path | None, data_dir: Path | None) -> Path:
    """For commands that need to know no more; with --data-dir they work whatever the settings are."""
    if data_dir is not None:
        return data_dir.expanduser().absolute()
    return _effective(settings_file, {}).settings.data_dir


def _start_detached(settings: ServiceSettings, settings_file: Path | None, given: dict[str, Any]) -> None:
    """Start a fresh process and wait until it answers, by a pipe: it speaks, or it ends and the pipe closes."""
    running = statefile.running_state(settings.data_dir)
    if running is not None:
        _fail(str(statefile.DataDirBusy(str(settings.data_dir), running.pid, running.url)), EX_CANTCREAT)
    read_fd, write_fd = os.pipe()
    log = settings.data_dir / "service.log"
    command = [sys.executable, "-m", "farcall.cli.service", "start"]
    # The environment is the same there; the working directory, which relative paths go by, is not.
    command += ["--data-dir", str(settings.data_dir), "--ready-fd", str(write_fd)]
    command += ["--settings", str(settings_file.absolute())] if settings_file else []
    files = {name: getattr(settings, name) for name in ("tls_cert", "tls_key")}  # absolute
    for name, value in {**given, **files}.items():
        option = f"--{name.replace('_', '-')}"
        option = option.replace("--", "--no-") if value is False else option
        command += [] if value is None else [option] if isinstance(value, bool) else [option, str(value)]
    with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[write_fd],
            cwd="/",
        )
    os.close(write_fd)
    answer = _answer_of(child, read_fd)
    if not answer:
        _fail(f"The service ended before it answered (status {child.returncode}); see {log}.", EX_SOFTWARE)
    if not answer["ok"]:
        _fail(answer["message"], answer["exit"])
    child.returncode = 0  # it lives on, and is not ours to wait for
    stop = _stop_command(settings.data_dir)
    _print_banner(settings.data_dir, ServiceState(**answer["state"]), answer["administrator"], stop, answer["console"])


def _answer_of(child: subprocess.Popen[bytes], read_fd: int) -> dict[str, Any]:
    """What the started process reports; {} if it ended without. Unless all is well, it has ended when this returns."""
    try:
        with os.fdopen(read_fd) as pipe:
            answer: dict[str, Any] = json.loads(pipe.readline() or "{}")
        if not answer.get("ok"):
            child.wait()  # the data directory is locked until then
        return answer
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        _fail("Interrupted; the service was stopped again.", EX_INTERRUPTED)


def _stop_command(data_dir: Path) -> str:
    default = Path(os.environ.get("FARCALL_DATA_DIR") or _default_data_dir())
    is_default = data_dir == default.expanduser().absolute()
    return "farcall-service stop" + ("" if is_default else f" --data-dir {data_dir}")


def _make_data_dir(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir.chmod(0o700)
    except OSError as exc:
        _fail(
            f"The data directory {data_dir} cannot be used: {exc.strerror or exc}. Choose one with --data-dir.",
            EX_CANTCREAT,
        )


# --- Output ----------------------------------------------------------------------------------------------------


def _print_banner(
    data_dir: Path, state: ServiceState, administrator: str, how_to_stop: str, hint: list[tuple[str, str]]
) -> None:
    """Args: hint: what there is to be said of the console, as names and values."""
    host = urlsplit(state.url).hostname
    scheme = "amqps" if state.tls_cert else "amqp"
    if state.role == "relay":
        _out.print(f"[bold green]Farcall relay {state.version} is running.[/]")
        names = (("Health", f"{state.url}/readyz"), ("Broker", state.broker), ("Store", state.store))
        _print_lines([*names, ("Log", state.log), ("Process", str(state.pid)), ("Stop with", how_to_stop)])
        return
    elsewhere = _clients_look_elsewhere(state.url)
    logged_in = "logged in" if elsewhere else "logged in: SDK and endpoints of this user just work"
    _out.print(f"[bold green]Farcall service {state.version} is running.[/]")
    _print_lines(
        [
            ("REST", f"{state.url} (described at {state.url}/docs)"),
            ("Broker", state.broker or f"{scheme}://{host}:{state.amqp_port}"),
            ("Data", str(data_dir)),
            ("Store", state.store),
            ("Log", state.log),
            ("Process", str(state.pid)),
            ("Administrator", f"{administrator} ({logged_in})"),
            *((name, value) for name, value in hint if name != LINK or sys.stdout.isatty()),
            ("Stop with", how_to_stop),
        ]
    )
    if elsewhere:
        _out.print(f"SDK and endpoints of this user look at {escape(elsewhere)}. Have them use this service, in one")
        _out.print("terminal by the first line, or from now on by the second:")
        _out.print(f"  export FARCALL_SERVICE_URL={escape(state.url)}")
        _out.print(f"  farcall login {escape(state.url)}")
    if state.tls_cert:
        _out.print(f"Its certificate is {escape(state.tls_cert)}. If its authority is your site's own, clients need")
        _out.print("that authority's certificate: FARCALL_CA_FILE=FILE, or `farcall login URL --ca-file FILE`.")
    elif not is_loopback(state.host):
        _out.print(
            f"[yellow]Warning:[/] it listens on {state.host} without TLS, so tokens and data cross the network in "
            "clear text (--insecure). Keep to a network whose every machine you trust."
        )


def _clients_look_elsewhere(url: str) -> str | None:
    """Where clients of this user look for a service if nobody tells them, unless that is `url`."""
    try:
        theirs = service_url()
        return None if canonical_url(theirs) == canonical_url(url) else theirs
    except (OSError, ValueError):
        return "another service"


def _print_lines(lines: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        _out.print(f"  [bold]{name:{width}}[/]  {escape(value)}")


def _status_lines(data_dir: Path, state: ServiceState, inside: dict[str, Any]) -> list[tuple[str, str]]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started_at))
    lines = [
        ("Running", f"yes, since {since} (process {state.pid}, version {state.version})"),
        ("Role", state.role),
        ("REST", state.url),
        ("Broker", state.broker) if state.broker else ("Broker port", str(state.amqp_port)),
        ("Data", str(data_dir)),
        ("Store", state.store),
        ("Log", state.log),
    ]
    if "error" in inside:
        return [*lines, ("Inside", inside["error"])]
    tasks = ", ".join(f"{count} {name}" for name, count in sorted(inside["tasks"].items())) or "none"
    return [*lines, ("Endpoints online", str(len(inside["endpoints_online"]))), ("Tasks", tasks)]


def _ask(state: ServiceState) -> dict[str, Any]:
    """What the service says of itself, to its administrator; `error` if it does not."""
    try:
        inside: dict[str, Any] = json.loads(_asked(state, "/v3/service"))
    except urllib.error.HTTPError as exc:
        return {"error": f"it answers HTTP {exc.code}; only its administrator is told more"}
    except (OSError, ValueError) as exc:
        return {"error": f"it does not answer: {exc}"}
    return {key: inside[key] for key in ("endpoints_online", "tasks", "results")}


def _asked(state: ServiceState, path: str, method: str = "GET") -> bytes:
    """What the service of this machine answers its administrator. Raises OSError (HTTPError among them), ValueError."""
    store = TokenStore()
    stored = store.get(state.url, f"{getpass.getuser()}@localhost") or store.get(state.url)
    request = urllib.request.Request(f"{_address_here(state)}{path}", method=method)
    if stored is not None:
        request.add_header("Authorization", f"Bearer {stored.access_token}")
    # No proxy: the service is on this machine.
    handlers = [urllib.request.ProxyHandler({}), *_its_certificate(state)]
    with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _address_here(state: ServiceState) -> str:
    """The service's address by way of this machine: the name in its URL may lead to a proxy."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(state.host, state.host)
    return f"{'https' if state.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{state.port}"


def _its_certificate(state: ServiceState) -> list[urllib.request.BaseHandler]:
    """Trusts this very certificate, for whatever name it is: it lies on this machine, and so does the service."""
    if not state.tls_cert:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with contextlib.suppress(OSError):  # then the handshake fails, and says so
        context.load_verify_locations(state.tls_cert)
    return [urllib.request.HTTPSHandler(context=context)]


def _fail(message: str, exit_status: int) -> NoReturn:
    _err.print(f"[bold red]Error:[/] {escape(message)}")
    raise SystemExit(exit_status)


def _configure_logging(settings: ServiceSettings, *, to_console: bool) -> None:
    path, level = settings.data_dir / "service.log", settings.log_level
    file = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    os.chmod(path, 0o600)
    is_json = settings.log_format == "json"
    file.setFormatter(JsonFormatter() if is_json else TextFormatter(with_tracebacks=True))
    handlers: list[logging.Handler] = [file]
    if to_console:
        console = logging.StreamHandler()
        console.setLevel(logging.DEBUG if level == "debug" or is_json else logging.WARNING)
        console.setFormatter(JsonFormatter() if is_json else TextFormatter(with_tracebacks=level == "debug"))
        handlers.append(console)
    logging.basicConfig(level=level.upper(), handlers=handlers)
    for chatty in ("uvicorn", "asyncio", "alembic", "httpx", "oauthlib"):  # the last would write down secrets
        logging.getLogger(chatty).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
