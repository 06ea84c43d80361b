"""The site's command, `farcall-endpoint`: configure, start, stop, restart, list, status, delete, login and the like.

Composes the endpoint with the user's token store, signals and the terminal. What is heavy (the agent, pydantic) is
imported by `start` alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from farcall import __version__
from farcall.cli import login as logins
from farcall.cli.configure import configure
from farcall.cli.site import (
    EX_DATAERR,
    EX_NOPERM,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    Common,
    configured,
    error,
    exit_status,
    fail,
    name_argument,
    note,
    open_client,
    service_errors,
)
from farcall.cli.user_endpoint import start_user_endpoint
from farcall.client.settings import user_dir
from farcall.endpoint.directory import EndpointDirectory, Registration, RegistrationUnreadable, find_endpoints
from farcall.endpoint.pidfile import running_process
from farcall.endpoint.status import EndpointStatus, endpoint_state, endpoint_status
from farcall.wire.errors import (
    EndpointNotFound,
    FarcallError,
)
from farcall.wire.messages import is_uuid_text

if TYPE_CHECKING:
    from farcall.client.rest import ApiClient
    from farcall.endpoint.process import EndpointRun

__all__ = ["main"]

STOP_PATIENCE_S = 90.0
"""How long `stop` waits for the process to end before it says so."""
START_PATIENCE_S = 60.0
"""How long `start --detach` waits for the service."""
STATUS_PATIENCE_S = 5.0
"""How long `status` waits for the service, which only adds to what is known here."""


_F = TypeVar("_F", bound=Callable[..., Any])


def _flags(function: _F) -> _F:
    """Flags that people write before or after the command's name."""
    function = click.option("--debug", is_flag=True, help="Write a verbose log.")(function)
    function = click.option("--log-to-console", is_flag=True, help="Show the log here too.")(function)
    return click.option("--no-color", is_flag=True, help="No colours.")(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the endpoints' directories. [default: $FARCALL_USER_DIR, else ~/.farcall]",
)
@_flags
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


main.add_command(configure)


# Running -----------------------------------------------------------------------------------------------------------


def _start_options(function: _F) -> _F:
    options = [
        click.option(
            "--wait",
            metavar="SECONDS",
            type=click.FloatRange(min=0),
            default=START_PATIENCE_S,
            show_default=True,
            help="With --detach: how long the service may take to answer; then nothing is left running, "
            "and the exit status is 75. 0 does not wait for it.",
        ),
        click.option("--detach", is_flag=True, help="Run in the background; return when tasks can come."),
        click.option("--endpoint-uuid", metavar="UUID", help="Register with this id."),
    ]
    for option in options:
        function = option(function)
    return _flags(function)


@main.command()
@name_argument
@_start_options
@click.option("--ready-fd", type=int, hidden=True)
@click.pass_obj
def start(common: Common, /, name: str, ready_fd: int | None, **options: Any) -> None:
    """Run an endpoint: register it with the service, take tasks, run them.

    It runs in the foreground until Ctrl-C; running tasks then get a moment to finish, and what is not done
    is done after the next start. A second Ctrl-C ends it at once.

    As long as the service does not answer it waits: in the foreground without end, with --detach for --wait seconds.

    \b
    Examples:
      farcall-endpoint start my-first-endpoint
      farcall-endpoint start my-first-endpoint --detach
      farcall-endpoint start my-first-endpoint --detach --wait 600
    \b
    Exit status: 0 stopped in order; 65 refused by the service (data);
    69 blocked, replaced, deleted, or no Farcall service; 70 the engine failed;
    73 already running; 74 disk; 75 try later (no service, endpoint_setup failed);
    77 no permission; 78 configuration; 130 interrupted before it began.
    """
    _start(common, name, ready_fd=ready_fd, **options)


def _start(
    common: Common,
    name: str,
    *,
    ready_fd: int | None = None,
    detach: bool,
    wait: float,
    endpoint_uuid: str | None,
    debug: bool,
    log_to_console: bool,
    no_color: bool,
) -> None:
    directory = configured(common, name, to_start=True)
    is_debug, to_console = common.is_debug or debug, common.to_console or log_to_console
    if endpoint_uuid is not None:
        _check_uuid(endpoint_uuid)
    if no_color:
        os.environ["NO_COLOR"] = "1"
    if detach:
        _detach(common, directory, endpoint_uuid=endpoint_uuid, is_debug=is_debug, patience_s=wait)
        return
    with _leaving_at_once():
        status = _run_here(
            common, directory, endpoint_uuid=endpoint_uuid, is_debug=is_debug, to_console=to_console, ready_fd=ready_fd
        )
        sys.exit(status)


def _run_here(
    common: Common,
    directory: EndpointDirectory,
    *,
    endpoint_uuid: str | None,
    is_debug: bool,
    to_console: bool,
    ready_fd: int | None,
) -> int:
    from farcall.endpoint.background import PipeAnnouncer
    from farcall.endpoint.config import ConfigInvalid, load_config
    from farcall.endpoint.logfile import configure_logging
    from farcall.endpoint.process import EndpointRun, ExitStatus
    from farcall.endpoint.registered import Registered

    announcer = _Terminal(common, directory) if ready_fd is None else PipeAnnouncer(ready_fd)
    try:
        loaded = load_config(directory.path)
        configure_logging(directory.log_path, is_debug=is_debug or loaded.config.debug, to_console=to_console)
    except ConfigInvalid as exc:
        announcer.failed(str(exc))
        return ExitStatus.CONFIG
    except OSError as exc:
        announcer.failed(f"The log cannot be written: {exc}")
        return ExitStatus.CANNOT_CREATE
    with open_client(directory.ca_file) as client:
        run = EndpointRun(directory, Registered(directory, client, endpoint_id=endpoint_uuid), announcer=announcer)
        with _signals(run, is_quiet=ready_fd is not None):
            status = run.run()
    logging.shutdown()
    _end_despite_threads(status)
    return status


def _end_despite_threads(status: int) -> None:
    """A task that still runs in a thread of ours (ThreadPoolEngine) had its grace; nothing else can end it."""
    others = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    if others:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


class _Terminal:
    """Tells the person who started an endpoint in the foreground."""

    def __init__(self, common: Common, directory: EndpointDirectory) -> None:
        self._common = common
        self._directory = directory

    def notice(self, text: str) -> None:
        note(text)

    def waiting(self, text: str) -> None:
        click.secho(text, fg="yellow", err=True)

    def registered(self, endpoint_id: str) -> None:
        click.echo(f"Starting endpoint; registered ID: {endpoint_id}")

    def connecting(self) -> None: ...

    def online(self) -> None:
        click.echo(f"Tasks can come. Ctrl-C stops the endpoint; its log is {self._directory.log_path}", err=True)

    def failed(self, text: str) -> None:
        error(text)


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Ctrl-C while there is nothing to end in order yet (or any more): a line, and out. Loading takes a second."""

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(OSError):
            os.write(2, b"\nInterrupted; nothing is left running.\n")
        os._exit(128 + number)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _signals(run: EndpointRun, *, is_quiet: bool) -> Iterator[None]:
    """SIGTERM, SIGINT, SIGQUIT and SIGHUP end the endpoint in order; a second SIGINT at once, a third by force."""
    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        del frame
        if number != signal.SIGINT:
            run.stop()
            return
        interrupts += 1
        if interrupts > 2:
            os._exit(128 + signal.SIGINT)
        if not is_quiet:
            text = (
                "\nStopping; running tasks get a moment. Ctrl-C again ends it at once.\n" if interrupts == 1 else "\n"
            )
            os.write(2, text.encode())
        run.stop(at_once=interrupts > 1)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it ignored
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _detach(
    common: Common, directory: EndpointDirectory, *, endpoint_uuid: str | None, is_debug: bool, patience_s: float
) -> None:
    from farcall.cli.authorities import make_ca_variable_absolute
    from farcall.endpoint.background import StartTimedOut, start_in_background

    make_ca_variable_absolute()  # it works in another directory
    arguments = ["--config-dir", str(common.base), "start", directory.name]
    if endpoint_uuid is not None:
        arguments += ["--endpoint-uuid", endpoint_uuid]
    if is_debug:
        arguments.append("--debug")
    terminal = _Terminal(common, directory)
    try:
        outcome = start_in_background(
            arguments,
            output=directory.log_path,
            on_message=lambda kind, text: _pass_on(terminal, kind, text),
            patience_s=patience_s,
        )
    except StartTimedOut as exc:
        fail(exc, EX_TEMPFAIL)
    except KeyboardInterrupt:
        fail("Interrupted; the endpoint was stopped again.", 130)
    if outcome.status is not None:
        if outcome.status < 0:
            error(f"The endpoint was ended by signal {-outcome.status}. Its log is {directory.log_path}")
        sys.exit(outcome.status if outcome.status >= 0 else 128 - outcome.status)
    stop = common.command(f"stop {directory.name}")
    click.echo(f"It runs in the background (process {outcome.pid}); `{stop}` stops it. Log: {directory.log_path}")


def _pass_on(terminal: _Terminal, kind: str, text: str) -> None:
    if kind == "registered":
        terminal.registered(text)
    elif kind in ("notice", "waiting", "failed"):
        getattr(terminal, kind)(text)


@main.command()
@name_argument
@click.option("--remote", is_flag=True, help="Also end an instance that runs elsewhere, by way of the service.")
@click.option("--force", is_flag=True, help="Kill the process; its tasks are treated as after a crash.")
@click.pass_obj
def stop(common: Common, name: str, remote: bool, force: bool) -> None:
    """Stop a running endpoint, and wait until it has ended.

    Running tasks get the `shutdown_grace_period` of config.yaml; what is not done is done after the next start.

    \b
    Examples:
      farcall-endpoint stop my-first-endpoint
      farcall-endpoint stop my-first-endpoint --remote
    """
    directory = configured(common, name)
    if remote:
        _lock_remotely(directory)
    _stop_here(directory, force=force, is_remote_done=remote)


def _stop_here(directory: EndpointDirectory, *, force: bool = False, is_remote_done: bool = False) -> None:
    process = running_process(directory.pid_path)
    if process is None:
        click.echo(f"Endpoint <{directory.name}> is not running.")
        return
    if not process.is_here or process.pid is None:
        if is_remote_done:
            click.echo(f"Endpoint <{directory.name}> on {process.host} was told to stop.")
            return
        fail(f"Endpoint '{directory.name}' runs on {process.host}; stop it there, or with --remote.", EX_UNAVAILABLE)
    _end_process(directory, process.pid, signal.SIGKILL if force else signal.SIGTERM)


def _end_process(directory: EndpointDirectory, pid: int, number: int) -> None:
    """Signal and wait. The pid file's lock proves that the process behind the pidfd is the endpoint's."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            again = running_process(directory.pid_path)
            if again is not None and again.pid == pid:
                click.echo(f"Stopping endpoint <{directory.name}> (process {pid})")
                signal.pidfd_send_signal(fd, number)
                if not select.select([fd], [], [], STOP_PATIENCE_S)[0]:
                    fail(f"Process {pid} has not ended yet. `--force` kills it.", EX_TEMPFAIL)
        except PermissionError as exc:
            fail(f"Process {pid} is not yours to stop: {exc}", EX_NOPERM)
        finally:
            os.close(fd)
    click.echo(f"Endpoint <{directory.name}> is stopped.")


def _lock_remotely(directory: EndpointDirectory) -> None:
    registration = _registration(directory)
    if registration is None:
        fail(f"Endpoint '{directory.name}' was never registered.", EX_UNAVAILABLE)
    with open_client(directory.ca_file) as client, service_errors():
        client.lock_endpoint(registration.id_with(client.url) or registration.endpoint_id)
    click.echo(f"The service has disconnected endpoint {registration.endpoint_id}.")


@main.command()
@name_argument
@_start_options
@click.pass_obj
def restart(common: Common, /, name: str, **options: Any) -> None:
    """Stop an endpoint if it runs, and start it.

    \b
    Example:
      farcall-endpoint restart my-first-endpoint --detach
    """
    directory = configured(common, name, to_start=True)
    if running_process(directory.pid_path) is not None:
        _stop_here(directory)
    _start(common, name, **options)


# Looking and removing ----------------------------------------------------------------------------------------------


@main.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def list_endpoints(common: Common, as_json: bool) -> None:
    """Show the endpoints of this directory.

    \b
    Status:
      Initialized   configured, never started
      Running       working
      Disconnected  its process runs but has no connection to the service,
                    or it ended without being stopped
      Stopped       not running
    """
    rows = [_row(each) for each in find_endpoints(common.base)]
    if as_json:
        click.echo(json.dumps([{"id": row[0], "status": row[1], "name": row[2]} for row in rows], indent=2))
        return
    if not rows:
        click.echo(f"No endpoints in {common.base}. `{common.command('configure NAME')}` makes one.")
        return
    from farcall.cli.tables import print_table

    print_table(("ID", "Status", "Name"), [(row[0] or "", row[1], row[2]) for row in rows])


def _row(directory: EndpointDirectory) -> tuple[str | None, str, str]:
    try:
        registration = directory.registration()
    except RegistrationUnreadable:
        return "(endpoint.json cannot be read)", endpoint_state(directory, is_registered=True), directory.name
    endpoint_id = registration.endpoint_id if registration is not None else None
    return endpoint_id, endpoint_state(directory, is_registered=registration is not None), directory.name


@main.command()
@name_argument
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def status(common: Common, name: str, as_json: bool) -> None:
    """Show how an endpoint is: state, process, tasks, log.

    `list -h` says what the states mean. Tasks of a running endpoint are those of its last report to the service.

    \b
    Examples:
      farcall-endpoint status my-first-endpoint
      farcall-endpoint status my-first-endpoint --json
    """
    directory = configured(common, name)
    found = endpoint_status(directory, partial(_last_report, ca_file=directory.ca_file))
    if as_json:
        document = {"id": found.endpoint_id, "status": found.state, **asdict(found), "log": str(found.log_path)}
        for moved in ("endpoint_id", "state", "log_path"):
            del document[moved]
        click.echo(json.dumps(document, indent=2))
        return
    for label, text in _status_lines(found):
        click.echo(f"{label + ':':<10}{text}")


def _status_lines(found: EndpointStatus) -> Iterator[tuple[str, str]]:
    yield "Endpoint", found.name
    yield "Status", found.state
    yield "ID", found.endpoint_id or "none: never registered"
    if found.service_url is not None:
        yield "Service", found.service_url
    if found.pid is not None:
        since = ""
        if found.started_s is not None:
            since = f" since {datetime.fromtimestamp(found.started_s).astimezone():%Y-%m-%d %H:%M:%S %Z}"
        yield "Process", f"{found.pid} on {found.host}{since}"
    tasks = found.tasks
    if tasks is not None and tasks.source == "service":
        yield "Tasks", f"{tasks.queued} queued, {tasks.running} running (as last reported to the service)"
    elif tasks is not None:
        yield "Tasks", f"{tasks.queued} queued, {tasks.running} were running, {tasks.unconfirmed} results to be sent"
    yield "Log", str(found.log_path)


def _last_report(registration: Registration, *, ca_file: Path | None) -> dict[str, Any] | None:
    from farcall.client.rest import ApiClient
    from farcall.client.retry import RetryPolicy

    try:
        once = RetryPolicy(budget_s=0, unmet_budget_s=0)
        with ApiClient(registration.service_url, timeout_s=STATUS_PATIENCE_S, retry=once, ca_file=ca_file) as client:
            details = client.endpoint_status(registration.endpoint_id).get("details")
    except (FarcallError, ValueError):
        return None
    return details if isinstance(details, dict) else None


@main.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@click.option("--force", is_flag=True, help="Stop it if it runs; remove it here even if the service says no.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(common: Common, name_or_id: str, force: bool, yes: bool) -> None:
    """Delete an endpoint at the service, and its directory here.

    Its unfinished tasks fail. The id cannot be used again. By its id an endpoint is deleted even if its
    directory is gone.

    \b
    Examples:
      farcall-endpoint delete my-first-endpoint
      farcall-endpoint delete 54460200-b652-4f43-a918-02882fa6114a --yes
    """
    directory = _find(common, name_or_id)
    if directory is None:
        _delete_without_directory(common, name_or_id.lower(), force=force, yes=yes)
        return
    process = running_process(directory.pid_path)
    if process is not None and not force:
        stop_hint = common.command(f"stop {directory.name}")
        fail(f"Endpoint '{directory.name}' is running; stop it first (`{stop_hint}`), or use --force.", EX_UNAVAILABLE)
    if not yes:
        click.confirm(f"Delete endpoint <{directory.name}> with everything in {directory.path}?", abort=True)
    if process is not None:
        _stop_here(directory)
    try:
        registration = directory.registration()
    except RegistrationUnreadable as exc:
        if not force:
            fail(exc, EX_DATAERR)
        registration = None
    if registration is not None:
        _delete_at_service(registration, force=force, ca_file=directory.ca_file)
    shutil.rmtree(directory.path)
    click.echo(f"Endpoint <{directory.name}> has been deleted.")


def _delete_without_directory(common: Common, endpoint_id: str, *, force: bool, yes: bool) -> None:
    with open_client() as client, service_errors():
        name = client.endpoint(endpoint_id).get("name") or "?"
        note(f"No endpoint in {common.base} has this id; it is deleted at the service only.")
        if not yes:
            click.confirm(f"Delete endpoint <{name}> ({endpoint_id}) at {client.url}?", abort=True)
        if not force:
            _refuse_if_online(client, endpoint_id, how="there")
        client.delete_endpoint(endpoint_id)
        click.echo(f"Endpoint <{name}> ({endpoint_id}) has been deleted at {client.url}.")


def _refuse_if_online(client: ApiClient, endpoint_id: str, *, how: str) -> None:
    if client.endpoint_status(endpoint_id).get("status") == "online":
        fail(
            f"Endpoint {endpoint_id} is online, on another machine it seems: stop it {how} first, or use --force.",
            EX_UNAVAILABLE,
        )


def _delete_at_service(registration: Registration, *, force: bool, ca_file: Path | None) -> None:
    try:
        with open_client(ca_file) as client:
            endpoint_id = registration.id_with(client.url) or registration.endpoint_id
            if not force:
                _refuse_if_online(client, endpoint_id, how="there, or with `stop --remote`")
            client.delete_endpoint(endpoint_id)
    except EndpointNotFound:
        note("The service does not know this endpoint (any more).")
    except FarcallError as exc:
        if not force:
            fail(f"{exc}\nNothing was deleted. --force removes the directory all the same.", exit_status(exc))
        note(f"The service did not delete it: {exc}")


# Sharing -----------------------------------------------------------------------------------------------------------


_with_option = click.option("--with", "users", multiple=True, metavar="USER", help="User name or identity id.")
_group_option = click.option("--group", "groups", multiple=True, metavar="GROUP", help="Name or id of a group.")


@main.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@_with_option
@_group_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def share(common: Common, name_or_id: str, users: tuple[str, ...], groups: tuple[str, ...], yes: bool) -> None:
    """Let others run functions on an endpoint, as you.

    Their functions run as your account on the endpoint's machine: they can read and change your files,
    use your keys, and submit jobs in your name. `unshare` ends it for what is submitted later.

    \b
    Examples:
      farcall-endpoint share cluster --with bob@example.edu
      farcall-endpoint share cluster --with bob@example.edu --group lab --yes
    """
    if not users and not groups:
        raise click.UsageError("Name somebody: --with USER or --group GROUP.")
    endpoint_id, ca_file = _shared_endpoint(common, name_or_id)
    who = " and ".join((*users, *(f"the members of group {each}" for each in groups)))
    note(f"Functions of {who} will run as you there: with your account's files, keys and jobs.")
    if not yes and sys.stdin.isatty():
        click.confirm(f"Share endpoint {endpoint_id}?", abort=True)
    with open_client(ca_file) as client, service_errors():
        _print_shares(client.share_endpoint(endpoint_id, identities=users, groups=groups))


@main.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@_with_option
@_group_option
@click.option("--all", "everybody", is_flag=True, help="With nobody any more.")
@click.pass_obj
def unshare(common: Common, name_or_id: str, users: tuple[str, ...], groups: tuple[str, ...], everybody: bool) -> None:
    """Share an endpoint no longer. What was submitted before still runs.

    \b
    Examples:
      farcall-endpoint unshare cluster --with bob@example.edu
      farcall-endpoint unshare cluster --all
    """
    if everybody == bool(users or groups):
        raise click.UsageError("Name somebody (--with USER, --group GROUP), or give --all.")
    endpoint_id, ca_file = _shared_endpoint(common, name_or_id)
    with open_client(ca_file) as client, service_errors():
        _print_shares(client.unshare_endpoint(endpoint_id, identities=users, groups=groups))


@main.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def shares(common: Common, name_or_id: str, as_json: bool) -> None:
    """Show with whom an endpoint is shared."""
    endpoint_id, ca_file = _shared_endpoint(common, name_or_id)
    with open_client(ca_file) as client, service_errors():
        found = client.shares(endpoint_id)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print_shares(found)


def _shared_endpoint(common: Common, name_or_id: str) -> tuple[str, Path | None]:
    """Its id, and whose certificates its directory accepts."""
    directory = _find(common, name_or_id)
    if directory is None:
        return name_or_id.lower(), None
    registration = _registration(directory)
    if registration is None:
        start_hint = common.command(f"start {directory.name}")
        fail(f"Endpoint '{directory.name}' was never registered: start it once (`{start_hint}`).", EX_UNAVAILABLE)
    with open_client(directory.ca_file) as client:
        return registration.id_with(client.url) or registration.endpoint_id, directory.ca_file


def _print_shares(found: dict[str, Any]) -> None:
    from farcall.cli.tables import print_table

    rows = [(str(each.get("kind")), str(each.get("name")), str(each.get("id"))) for each in found.get("shares", ())]
    if not rows:
        click.echo(f"Endpoint {found.get('endpoint_id')} is shared with nobody.")
        return
    print_table(("Kind", "Name", "ID"), rows)


# Who am I ----------------------------------------------------------------------------------------------------------


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


# Helpers -----------------------------------------------------------------------------------------------------------


def _find(common: Common, name_or_id: str) -> EndpointDirectory | None:
    """The directory of an endpoint by name or id; None for an id that none here has."""
    for each in find_endpoints(common.base):
        with contextlib.suppress(RegistrationUnreadable):
            registration = each.registration()
            if registration is not None and registration.endpoint_id == name_or_id.lower():
                return each
    if is_uuid_text(name_or_id.lower()):
        return None
    return configured(common, name_or_id)


def _registration(directory: EndpointDirectory) -> Registration | None:
    try:
        return directory.registration()
    except RegistrationUnreadable as exc:
        fail(exc, EX_DATAERR)


def _check_uuid(text: str) -> None:
    if not is_uuid_text(text.lower()):
        raise click.BadParameter(f"{text!r} is not a UUID", param_hint="--endpoint-uuid")


main.add_command(start_user_endpoint)


if __name__ == "__main__":
    main(prog_name="farcall-endpoint")
