"""The operator's command, `farcall-service`: start, stop, status, migrate, check, version.

Composes the service with the user's token store. What is heavy (FastAPI, SQLAlchemy) is imported by `start` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import getpass
import json
import logging
import logging.handlers
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape

from farcall import __version__
from farcall.client.settings import canonical_url, service_url
from farcall.client.tokens import StoredToken, TokenStore
from farcall.service import statefile
from farcall.service.settings import ServiceSettings
from farcall.service.statefile import ServiceState
from farcall.wire.errors import FarcallError

if TYPE_CHECKING:
    from farcall.service.server import RunningService

__all__ = ["main"]

_logger = logging.getLogger("farcall.cli.service")  # by name: the background process runs this as __main__

EX_USAGE = 64
EX_UNAVAILABLE, EX_SOFTWARE, EX_CANTCREAT, EX_TEMPFAIL = 69, 70, 73, 75
EX_INTERRUPTED = 130
NOT_RUNNING = 3
_STOP_S = 60.0
_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOG_BYTES = 100 * 1024 * 1024
_LOG_LEVELS = ["debug", "info", "warning", "error"]

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def _default_data_dir() -> Path:
    """`FARCALL_DATA_DIR`, else `farcall-service` in the user's data directory."""
    configured = os.environ.get("FARCALL_DATA_DIR")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "farcall-service"


def _absolute(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    return (value or _default_data_dir()).expanduser().absolute()


_data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_absolute,
    help="Where the service keeps its database, log and state. "
    "[default: $FARCALL_DATA_DIR, else ~/.local/share/farcall-service]",
)


def _without_password(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The store's URL; on the command line, which everybody on the machine can read, without a password."""
    from_environment = context.get_parameter_source(parameter.name or "") == ParameterSource.ENVIRONMENT
    if value and not from_environment and _PASSWORD.search(value):
        _fail(
            "A password in --store can be read by everybody on this machine (`ps`). Leave it out there, and give it by "
            "PGPASSFILE or PGPASSWORD, or give the whole URL as FARCALL_STORE.",
            EX_USAGE,
        )
    return value or None


_PASSWORD = re.compile(r"^\w+://[^/?@]*:[^/?]*@|[?&]password=", re.IGNORECASE)
_store_option = click.option(
    "--store",
    envvar="FARCALL_STORE",
    show_envvar=True,
    callback=_without_password,
    metavar="URL",
    help="postgresql://USER@HOST/DATABASE, or sqlite:///FILE. [default: SQLite in the data directory]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="farcall-service")
def main() -> None:
    """Run a Farcall service: it takes functions and tasks, keeps them safe, and hands results back.

    One process, with its own message broker, and a database: SQLite, or the PostgreSQL that `--store` names. Whoever
    starts it is its administrator, and is logged in to it at once.

    \b
    Examples:
      farcall-service start              in this terminal, until Ctrl-C
      farcall-service start --detach     in the background
      farcall-service status
      farcall-service stop
    """


@main.command()
@click.option("--detach", is_flag=True, help="Run in the background; returns when the service answers.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="For HTTP; 0: any free.")
@click.option(
    "--amqp-port",
    type=click.IntRange(0, 65535),
    default=5672,
    show_default=True,
    help="For the message broker; 0: any free.",
)
@_store_option
@_data_dir_option
@click.option("--log-level", type=click.Choice(_LOG_LEVELS), default="info", show_default=True)
@click.option("--ready-fd", type=int, hidden=True, help="Where to report to, for --detach.")
def start(
    detach: bool,
    host: str,
    port: int,
    amqp_port: int,
    store: str | None,
    data_dir: Path,
    log_level: str,
    ready_fd: int | None,
) -> None:
    """Start the service.

    \b
    Examples:
      farcall-service start --detach
      farcall-service start --port 0 --amqp-port 0 --data-dir /tmp/farcall
      farcall-service start --store postgresql://farcall@db.example.org/farcall
    """
    settings = ServiceSettings(data_dir=data_dir, host=host, port=port, amqp_port=amqp_port, database_url=store)
    _make_data_dir(data_dir)
    if detach:
        _start_detached(settings, log_level)
        return
    os.umask(0o077)
    with _reporting(ready_fd) as report:
        lock = statefile.DataDirLock(data_dir)
        lock.acquire()
        _configure_logging(data_dir, log_level, to_console=ready_fd is None)
        _run(settings, report, is_foreground=ready_fd is None)


@main.command()
@_data_dir_option
def stop(data_dir: Path) -> None:
    """Stop the service that uses a data directory; it finishes what it is writing.

    Tasks and results stay in the database; endpoints and clients connect again when the service is back.
    """
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
@_data_dir_option
@click.option("--json", "as_json", is_flag=True, help="For scripts; `running` says whether it runs.")
def status(data_dir: Path, as_json: bool) -> None:
    """Show whether the service runs, where, and what it does. Exit status 3 if it does not run."""
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
@_data_dir_option
@click.option("--sql", "as_sql", is_flag=True, help="Print the statements instead, for somebody else to run.")
def migrate(store: str | None, data_dir: Path, as_sql: bool) -> None:
    """Bring the store's tables up to date with this release, while no service uses them.

    `start` does so by itself; this is for sites where the service's role may not change tables.
    """
    from farcall.service.db.upkeep import shown_url, upgrade_sql, upgrade_store

    url = ServiceSettings(data_dir=data_dir, database_url=store).store_url
    with _reporting(None):
        if as_sql:
            click.echo(upgrade_sql(url), nl=False)
            return
        if store is None:
            _make_data_dir(data_dir)
            statefile.DataDirLock(data_dir).acquire()  # until this process ends
        os.umask(0o077)
        changed = upgrade_store(url)
        _out.print(escape(f"{shown_url(url)} {'was brought' if changed else 'is'} up to date."))


@main.command()
@_store_option
@_data_dir_option
@click.option("--json", "as_json", is_flag=True, help="For scripts; `ok` says whether a service can start.")
def check(store: str | None, data_dir: Path, as_json: bool) -> None:
    """Connect to what the service needs, and say what is wrong and what to do. Changes nothing.

    Exit status 69 if a service could not work like this.
    """
    from farcall.service.db.upkeep import check_store

    findings = check_store(ServiceSettings(data_dir=data_dir, database_url=store).store_url)
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

    report = _Report(fd)
    try:
        yield report
    except FarcallError as exc:
        known: dict[type[FarcallError], int] = {CannotListen: EX_UNAVAILABLE, statefile.DataDirBusy: EX_CANTCREAT}
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
    from farcall.service.server import running_service

    stop_asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPPING_SIGNALS:
        loop.add_signal_handler(number, stop_asked.set)
    async with running_service(settings) as running:
        administrator = await _log_in(running)
        state = _state_of(settings, running)
        statefile.write_state(settings.data_dir, state)
        _logger.info("The service has started", extra={"event": "service.started", "url": state.url, "pid": state.pid})
        if is_foreground:
            _print_banner(settings.data_dir, state, administrator, "Ctrl-C")
        report.send({"ok": True, "state": vars(state), "administrator": administrator})
        gc.collect()
        gc.freeze()  # what was imported is here to stay: the collector need not look at it again
        await stop_asked.wait()
        _logger.info("The service is stopping", extra={"event": "service.stopping"})
        if is_foreground:
            _out.print("Stopping…")
        for number in _STOPPING_SIGNALS:
            loop.remove_signal_handler(number)  # the second one ends it at once
    statefile.write_state(settings.data_dir, None)
    _logger.info("The service has stopped", extra={"event": "service.stopped"})


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
    )


async def _log_in(running: RunningService) -> str:
    """Log the user of this process in: identity, administrator, token in the token store. Returns the user name."""
    from farcall.service.accounts.local import local_login

    store = TokenStore()
    try:
        stored = store.get(running.url)
    except (OSError, ValueError) as exc:
        _err.print(f"[yellow]Warning:[/] the token store cannot be read: {escape(str(exc))}")
        stored = None
    username = f"{getpass.getuser()}@localhost"
    login = await local_login(running.service, username, stored.access_token if stored else None)
    if stored is None or stored.access_token != login.token:
        token = StoredToken(access_token=login.token, identity_id=login.identity.id, username=username)
        try:
            store.put(running.url, token)
        except (OSError, ValueError) as exc:
            _err.print(f"[yellow]Warning:[/] your token could not be stored in {store.path}: {escape(str(exc))}")
    return username


def _start_detached(settings: ServiceSettings, log_level: str) -> None:
    """Start a fresh process and wait until it answers, by a pipe: it speaks, or it ends and the pipe closes."""
    running = statefile.running_state(settings.data_dir)
    if running is not None:
        _fail(str(statefile.DataDirBusy(str(settings.data_dir), running.pid, running.url)), EX_CANTCREAT)
    read_fd, write_fd = os.pipe()
    log = settings.data_dir / "service.log"
    command = [sys.executable, "-m", "farcall.cli.service", "start"]
    command += ["--host", settings.host, "--port", str(settings.port), "--amqp-port", str(settings.amqp_port)]
    command += ["--data-dir", str(settings.data_dir), "--log-level", log_level, "--ready-fd", str(write_fd)]
    # Not as an argument: it may hold a password, and everybody can read arguments.
    environment = {**os.environ, "FARCALL_STORE": settings.database_url or ""}
    with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[write_fd],
            cwd="/",
            env=environment,
        )
    os.close(write_fd)
    answer = _answer_of(child, read_fd)
    if not answer:
        _fail(f"The service ended before it answered (status {child.returncode}); see {log}.", EX_SOFTWARE)
    if not answer["ok"]:
        _fail(answer["message"], answer["exit"])
    child.returncode = 0  # it lives on, and is not ours to wait for
    _print_banner(
        settings.data_dir, ServiceState(**answer["state"]), answer["administrator"], _stop_command(settings.data_dir)
    )


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
    is_default = data_dir == _default_data_dir().expanduser().absolute()
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


def _print_banner(data_dir: Path, state: ServiceState, administrator: str, how_to_stop: str) -> None:
    host = "localhost" if state.url.startswith("http://localhost:") else state.host
    elsewhere = _clients_look_elsewhere(state.url)
    logged_in = "logged in" if elsewhere else "logged in: SDK and endpoints of this user just work"
    _out.print(f"[bold green]Farcall service {state.version} is running.[/]")
    _print_lines(
        [
            ("REST", f"{state.url} (described at {state.url}/docs)"),
            ("Broker", f"amqp://{host}:{state.amqp_port}"),
            ("Data", str(data_dir)),
            ("Store", state.store),
            ("Log", state.log),
            ("Process", str(state.pid)),
            ("Administrator", f"{administrator} ({logged_in})"),
            ("Stop with", how_to_stop),
        ]
    )
    if elsewhere:
        _out.print(f"SDK and endpoints of this user look at {escape(elsewhere)}. Have them use this service, in one")
        _out.print("terminal by the first line, or from now on by the second:")
        _out.print(f"  export FARCALL_SERVICE_URL={escape(state.url)}")
        _out.print(f"  farcall login {escape(state.url)}")
    if not _is_loopback(state.host):
        _out.print(
            f"[yellow]Warning:[/] it listens on {state.host} without TLS, so tokens and data cross the network in "
            "clear text. Put a TLS proxy in front, or keep to a network that you trust."
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
        ("REST", state.url),
        ("Broker port", str(state.amqp_port)),
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
        stored = TokenStore().get(state.url)
    except (OSError, ValueError) as exc:
        return {"error": str(exc)}
    request = urllib.request.Request(f"{state.url}/v3/service")
    if stored is not None:
        request.add_header("Authorization", f"Bearer {stored.access_token}")
    try:
        # No proxy: the service is on this machine.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            inside: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as exc:
        return {"error": f"it answers HTTP {exc.code}; only its administrator is told more"}
    except (OSError, ValueError) as exc:
        return {"error": f"it does not answer: {exc}"}
    return {key: inside[key] for key in ("endpoints_online", "tasks", "results")}


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _fail(message: str, exit_status: int) -> NoReturn:
    _err.print(f"[bold red]Error:[/] {escape(message)}")
    raise SystemExit(exit_status)


class _Formatter(logging.Formatter):
    """Time, level, sentence, then the members of `extra`, so that a site can search by task or endpoint."""

    _OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}

    def __init__(self, log_format: str, *, with_tracebacks: bool) -> None:
        super().__init__(log_format)
        self._with_tracebacks = with_tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if not self._with_tracebacks and record.exc_info:
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        extra = {key: value for key, value in vars(record).items() if key not in self._OWN}
        return super().format(record) + "".join(f" {key}={value}" for key, value in extra.items())


def _configure_logging(data_dir: Path, level: str, *, to_console: bool) -> None:
    log_format = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    file = logging.handlers.RotatingFileHandler(data_dir / "service.log", maxBytes=_LOG_BYTES, backupCount=1)
    os.chmod(data_dir / "service.log", 0o600)
    file.setFormatter(_Formatter(log_format, with_tracebacks=True))
    handlers: list[logging.Handler] = [file]
    if to_console:
        console = logging.StreamHandler()
        console.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
        console.setFormatter(_Formatter(log_format, with_tracebacks=level == "debug"))
        handlers.append(console)
    logging.basicConfig(level=level.upper(), handlers=handlers)
    for chatty in ("uvicorn", "asyncio", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
