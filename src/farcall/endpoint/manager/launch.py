"""From the manager's order to the agent's program: a fresh process becomes the local user, renders, executes.

Begun by `spawn.py`, isolated from the environment and with the line as its only descriptor. As root it loads the
standard library and its own few modules, looks the account up, asks PAM, and becomes the user; everything of the user's
or of the submitter's is read, rendered, made and opened after that. Each step that fails says so on the line in words
for the submitter, with what only the site may know beside them, and has an exit status of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import farcall
from farcall.endpoint.manager.accounts import AccountRefused, UnknownLocalUser, check_may_become, local_account
from farcall.endpoint.manager.environment import EnvironmentRefused, user_environment
from farcall.endpoint.manager.line import Failed, LineFault, Message, Order, Rendered, pack, read_exactly_one
from farcall.endpoint.manager.pam import PamRefused
from farcall.endpoint.manager.privileges import become, end_with_parent, forget_what_is_inherited
from farcall.endpoint.manager.session import enter_session
from farcall.wire.names import endpoint_name_fault

if TYPE_CHECKING:
    from farcall.endpoint.manager.accounts import LocalAccount

__all__ = ["AGENT", "STATUSES", "main"]

AGENT: Final = "farcall-endpoint"
"""The program that is looked for on the PATH of `user_environment.yaml`."""

STATUSES: Final = {
    "order": 81, "account": 82, "pam": 83, "privileges": 84, "environment": 85, "home": 86, "schema": 87,
    "template": 88, "exec": 89,
}  # fmt: skip
"""Exit status by the step that failed, so that it can be told from what the agent itself ends with."""

_USUAL_GRACE_S: Final = 10.0
_ADMINISTRATORS: Final = "Its log tells the endpoint's administrators more."

# As `python -m`, but the home directory, where it runs, is no import path. What `farcall-endpoint` does with the same
# arguments, without loading its other commands.
_AGENT_BOOT: Final = (
    "import sys\n"
    "if sys.path[:1] == ['']: del sys.path[0]\n"
    "where = sys.argv.pop(1)\n"
    "if where not in sys.path: sys.path.insert(0, where)\n"
    f"sys.argv[0] = {AGENT!r}\n"
    "from farcall.cli.user_endpoint import start_user_endpoint\n"
    f"start_user_endpoint.main(sys.argv[2:], prog_name={AGENT!r})"
)


class _Stopped(Exception):
    """A step failed."""

    def __init__(self, step: str, text: str, detail: str = "") -> None:
        super().__init__(step, text, detail)
        self.step = step
        self.text = text
        self.detail = detail


def main() -> NoReturn:
    """`--line-fd N --mark TEXT [--tied]`: see `spawn.spawn`, which alone calls it."""
    arguments = sys.argv[1:]
    line = socket.socket(fileno=int(arguments[arguments.index("--line-fd") + 1]))
    mark = arguments[arguments.index("--mark") + 1]
    line.set_inheritable(False)
    _leave_no_core()
    _reset_signals()
    try:
        _launch(line, mark=mark, is_tied="--tied" in arguments)
    except _Stopped as exc:
        status = STATUSES[exc.step]
        with contextlib.suppress(OSError):
            _tell(line, Failed(step=exc.step, text=exc.text, status=status, detail=exc.detail))
    except BrokenPipeError:
        status = STATUSES["order"]  # the manager is gone: nobody wants this user endpoint
    os._exit(status)


def _launch(line: socket.socket, *, mark: str, is_tied: bool) -> NoReturn:
    order = _order(line)
    account = _account(order)
    of_session: dict[str, str] = {}
    if account is None:
        _tied_to(os.getppid() if is_tied else None)
    else:
        of_session = _become(order, account, line, is_tied=is_tied)
    os.umask(0o077)
    with _step("environment"):
        try:
            environment = user_environment(order, account, mark=mark, inherited=os.environ, of_session=of_session)
        except EnvironmentRefused as exc:
            raise _Stopped("environment", str(exc)) from exc
        os.environ.clear()
        os.environ.update(environment)
    _go_home(account)
    base = _base(order)
    config = _render(order, environment)
    _open_log(base / order.name)  # a refusal leaves nothing in anybody's home
    _tell(line, Rendered(config=config, grace_s=_grace_of(config)))
    _execute(order, environment, line, config=config, base=base, mark=mark)


def _order(line: socket.socket) -> Order:
    with _step("order"):
        try:
            order = read_exactly_one(line)
        except LineFault as exc:
            raise _Stopped(
                "order", f"The endpoint could not start a user endpoint. {_ADMINISTRATORS}", str(exc)
            ) from exc
        if order is None:
            raise BrokenPipeError
        fault = "no order"
        if isinstance(order, Order):
            fault = endpoint_name_fault(order.name) or ""
            if not order.name.startswith("uep."):  # below the same directory lie endpoints of the user's own
                fault = fault or "no user endpoint's name"
            if not fault:
                return order
        raise _Stopped("order", f"The endpoint could not start a user endpoint. {_ADMINISTRATORS}", fault)


def _account(order: Order) -> LocalAccount | None:
    """Whom to become; None: nobody else."""
    is_privileged = 0 in os.getresuid()
    with _step("account"):
        if order.local_user is None:
            if is_privileged:
                raise _Stopped("account", "Nobody's tasks run as root here.", "the order names no local user")
            return None
        if not is_privileged:
            why = f"the manager is not root, and the order says {order.local_user!r}"
            raise _Stopped("account", f"The endpoint cannot start processes as other users. {_ADMINISTRATORS}", why)
        try:
            account = local_account(order.local_user)
            check_may_become(account, own_uid=os.getuid(), allows_system=order.allows_system_accounts)
        except (UnknownLocalUser, AccountRefused) as exc:
            raise _Stopped("account", str(exc)) from exc
        return account


def _become(order: Order, account: LocalAccount, line: socket.socket, *, is_tied: bool) -> dict[str, str]:
    """Become the account for good; what PAM's modules want in the environment."""
    forget_what_is_inherited()
    groups: Sequence[int] = account.groups
    of_session: dict[str, str] = {}
    parent = os.getppid() if is_tied else None
    if order.pam_service is not None:
        with _step("pam"):
            try:
                inside = enter_session(order.pam_service, account, line_fd=line.fileno(), is_tied=is_tied)
            except PamRefused as exc:
                raise _Stopped("pam", str(exc), exc.detail) from exc
        groups, of_session, parent = inside.groups, inside.environment, inside.keeper_pid
    _use_for_output(os.open(os.devnull, os.O_RDWR))  # nothing of root's terminal or log is the user's to write to
    with _step("privileges"):
        become(account, groups, keeps_helpers=order.pam_service is not None)
    _tied_to(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    return of_session


def _tied_to(parent: int | None) -> None:
    if parent is not None:
        end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            raise BrokenPipeError  # it ended just before


def _go_home(account: LocalAccount | None) -> None:
    who = "The account that the endpoint runs as" if account is None else f"Local user {account.name!r}"
    home = os.path.expanduser("~") if account is None else account.home
    with _step("home"):
        try:
            if not os.path.isabs(home):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            os.chdir(home)
        except OSError as exc:
            text = f"{who} has no home directory on the endpoint's machine that can be used ({exc.strerror})."
            raise _Stopped("home", f"{text} Ask its administrators for one.", str(exc)) from exc


def _base(order: Order) -> Path:
    with _step("home"):
        return Path.cwd() / (order.base if order.base is not None else ".farcall")


def _open_log(directory: Path) -> None:
    """Make the directory, private, and have what is printed go to its log; as the user, so no link gains anything."""
    with _step("home"):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            within = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            is_own = os.fstat(within).st_uid == os.geteuid()
            if not is_own:
                raise PermissionError(errno.EPERM, "it belongs to somebody else")
            os.fchmod(within, 0o700)
            # A pipe in its place would have us wait for a reader.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                log = os.open("endpoint.log", flags, 0o600, dir_fd=within)
                is_file = stat.S_ISREG(os.fstat(log).st_mode)
            except OSError as exc:
                if exc.errno not in (errno.ENXIO, errno.ELOOP, errno.EISDIR):  # a pipe, a link, a directory
                    raise
                is_file = False
            if not is_file:
                raise FileExistsError(errno.EEXIST, "endpoint.log is no regular file")
            os.set_blocking(log, True)
        except OSError as exc:
            text = f"The user endpoint's directory cannot be made or written in your home directory ({exc.strerror})."
            raise _Stopped("home", f"{text} Make room or access there, and submit again.", str(exc)) from exc
        os.close(within)
    _use_for_output(log)


def _render(order: Order, environment: dict[str, str]) -> str:
    with _step("exec", "The endpoint's software cannot be used by the local user that your identity maps to."):
        from farcall.endpoint.templates import TemplateRefused, render
    with _step("template"):
        try:
            return render(
                order.template,
                options=order.user_options,
                schema=order.schema,
                template_dir=None if order.template_dir is None else Path(order.template_dir),
                parent_config=order.parent_config,
                user_runtime=order.user_runtime,
                mapped_identity=order.mapped_identity,
                environment=environment,
            )
        except TemplateRefused as exc:
            raise _Stopped(exc.step, exc.text) from exc


def _grace_of(config: str) -> float:
    """`shutdown_grace_period`, if it makes sense; whether the rest does says the agent."""
    import yaml

    try:
        grace_s = float(yaml.safe_load(config)["shutdown_grace_period"])
    except (yaml.YAMLError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        return _USUAL_GRACE_S
    return grace_s if 0 <= grace_s < 1e6 else _USUAL_GRACE_S


def _execute(
    order: Order, environment: dict[str, str], line: socket.socket, *, config: str, base: Path, mark: str
) -> NoReturn:
    document = {
        "name": order.name,
        "user_endpoint_id": order.user_endpoint_id,
        "manager_name": order.manager_name,
        "base": str(base),
        "config": config,
        "is_debug": order.is_debug,
        "mark": mark,
    }
    with _step("exec"):
        config_fd = _file_of(json.dumps(document).encode())
        arguments = ["_start-user-endpoint", order.name, "--line-fd", str(line.fileno()), "--config-fd", str(config_fd)]
        program = _site_program(order.environment.get("PATH"))
        if program is None:
            where = str(Path(farcall.__file__).absolute().parents[1])
            command = [sys.executable, "-c", _AGENT_BOOT, where, *arguments]
        else:
            command = [program, *arguments]
        for fd in (line.fileno(), config_fd):
            os.set_inheritable(fd, True)
        _close_all_but(line.fileno(), config_fd)
        try:
            os.execve(command[0], command, environment)
        except OSError as exc:
            raise _Stopped("exec", _why_not(exc), f"{command[0]}: {exc}") from exc


def _why_not(exc: OSError) -> str:
    if exc.errno == errno.EAGAIN:
        return "You have as many processes on the endpoint's machine as you may have. End some, and submit again."
    if exc.errno == errno.E2BIG:
        return f"The environment that the endpoint sets is too large to start a program. {_ADMINISTRATORS}"
    return f"The endpoint's software cannot be started as the local user that your identity maps to. {_ADMINISTRATORS}"


def _site_program(path: str | None) -> str | None:
    """What a site has put before our own program, on the PATH that it sets; relative directories do not count."""
    directories = [each for each in (path or "").split(os.pathsep) if os.path.isabs(each)]
    programs = (os.path.join(each, AGENT) for each in directories)
    return next((each for each in programs if os.path.isfile(each) and os.access(each, os.X_OK)), None)


def _file_of(data: bytes) -> int:
    """A nameless file with this content, to be read from its beginning."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("farcall-config", os.MFD_CLOEXEC)
    else:  # a Python that was built for older systems
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    with open(fd, "wb", closefd=False) as file_:
        file_.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _use_for_output(fd: int) -> None:
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _close_all_but(*fds: int) -> None:
    for each in [int(entry) for entry in os.listdir("/proc/self/fd")]:
        if each > 2 and each not in fds:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(each)


def _leave_no_core() -> None:
    """What root remembers, and then the agent its broker login, is not to lie in a file. A user may raise it again."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _reset_signals() -> None:
    """An interpreter ignores some, and whoever started the manager may have had others ignored or blocked."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _tell(line: socket.socket, message: Message) -> None:
    line.sendall(pack(message), socket.MSG_NOSIGNAL)


@contextlib.contextmanager
def _step(name: str, text: str = "") -> Iterator[None]:
    """What goes wrong inside without being told ends the launch all the same, with its trace for the manager's log."""
    try:
        yield
    except (_Stopped, BrokenPipeError):
        raise
    except Exception as exc:
        import traceback

        said = text or f"The endpoint could not start a user endpoint: its step {name!r} failed."
        raise _Stopped(name, f"{said} {_ADMINISTRATORS}", traceback.format_exc(limit=-3)) from exc
