"""`farcall-endpoint start`, `stop` and `restart`, of endpoints that run tasks and of managers alike.

Composes what runs with signals and the terminal. What is heavy (the agent, pydantic) is imported by `start` alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from farcall.cli.site import (
    EX_NOPERM,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    Common,
    configured,
    error,
    fail,
    flags,
    name_argument,
    note,
    open_client,
    registration_of,
    service_errors,
)
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.pidfile import running_process
from farcall.wire.messages import is_uuid_text

if TYPE_CHECKING:
    from farcall.endpoint.configfile import CommonKeys

__all__ = ["Runnable", "restart", "start", "stop", "stop_here"]

STOP_PATIENCE_S = 90.0
"""How long `stop` waits for the process to end before it says so."""
START_PATIENCE_S = 60.0
"""How long `start --detach` waits for the service."""

_F = TypeVar("_F", bound=Callable[..., Any])


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
    return flags(function)


@click.command()
@name_argument
@_start_options
@click.option("--ready-fd", type=int, hidden=True)
@click.pass_obj
def start(common: Common, /, name: str, ready_fd: int | None, **options: Any) -> None:
    """Run an endpoint: register it with the service, take tasks, run them.

    A manager (made by `configure --multi-user`) starts user endpoints that do that, as the users who ask for them.

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
    from farcall.endpoint.announcing import ExitStatus
    from farcall.endpoint.background import PipeAnnouncer
    from farcall.endpoint.configfile import ConfigInvalid
    from farcall.endpoint.logfile import configure_logging
    from farcall.endpoint.manager.config import is_manager

    announcer = _Terminal(common, directory) if ready_fd is None else PipeAnnouncer(ready_fd)
    is_one = is_manager(directory.path)
    try:
        is_debug = _keys(directory, is_manager=is_one).debug or is_debug
        configure_logging(directory.log_path, is_debug=is_debug, to_console=to_console)
    except ConfigInvalid as exc:
        announcer.failed(str(exc))
        return ExitStatus.CONFIG
    except OSError as exc:
        announcer.failed(f"The log cannot be written: {exc}")
        return ExitStatus.CANNOT_CREATE
    with open_client(directory.ca_file) as client:
        run: Runnable
        if is_one:
            from farcall.endpoint.manager.process import ManagerRun

            run = ManagerRun(directory, client, announcer=announcer, endpoint_id=endpoint_uuid, is_debug=is_debug)
        else:
            from farcall.endpoint.process import EndpointRun
            from farcall.endpoint.registered import Registered

            run = EndpointRun(directory, Registered(directory, client, endpoint_id=endpoint_uuid), announcer=announcer)
        with _signals(run, is_quiet=ready_fd is not None):
            status = run.run()
    logging.shutdown()
    _end_despite_threads(status)
    return status


class Runnable(Protocol):
    """An endpoint's run, of either kind."""

    def run(self) -> int: ...

    def stop(self, *, at_once: bool = False) -> None: ...


def _keys(directory: EndpointDirectory, *, is_manager: bool) -> CommonKeys:
    """What every endpoint's config.yaml has. Raises ConfigInvalid."""
    if is_manager:
        from farcall.endpoint.manager.config import load_manager_config

        return load_manager_config(directory.path).config
    from farcall.endpoint.config import load_config

    return load_config(directory.path).config


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
def _signals(run: Runnable, *, is_quiet: bool) -> Iterator[None]:
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


@click.command()
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
    stop_here(directory, force=force, is_remote_done=remote)


def stop_here(directory: EndpointDirectory, *, force: bool = False, is_remote_done: bool = False) -> None:
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
    registration = registration_of(directory)
    if registration is None:
        fail(f"Endpoint '{directory.name}' was never registered.", EX_UNAVAILABLE)
    with open_client(directory.ca_file) as client, service_errors():
        client.lock_endpoint(registration.id_with(client.url) or registration.endpoint_id)
    click.echo(f"The service has disconnected endpoint {registration.endpoint_id}.")


@click.command()
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
        stop_here(directory)
    _start(common, name, **options)


def _check_uuid(text: str) -> None:
    if not is_uuid_text(text.lower()):
        raise click.BadParameter(f"{text!r} is not a UUID", param_hint="--endpoint-uuid")
