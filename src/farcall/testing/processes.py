"""Real processes for tests and benchmarks: a service and endpoints, run by the commands that users type.

Everything lies under one directory (data, endpoint directories, tokens), so several systems can live side by side.
`kill()` is SIGKILL and returns when the process is gone; nothing here polls.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farcall.client.tokens import TokenStore

__all__ = [
    "CommandFailed",
    "EndpointProcess",
    "ProcessSystem",
    "ServiceProcess",
    "SeveralProcesses",
    "kill_and_wait",
    "process_system",
    "several_processes",
]

_BIN = Path(sys.executable).parent
COMMAND_TIMEOUT_S = 120


class CommandFailed(RuntimeError):
    """A command of ours ended with another status than the test needs."""


def kill_and_wait(pid: int, sig: int = signal.SIGKILL, timeout_s: float = 30) -> None:
    """Send a signal and wait until the process has ended (an unreaped zombie counts as ended).

    Raises:
        TimeoutError: it still runs after `timeout_s`.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, sig)
        if not select.select([fd], [], [], timeout_s)[0]:
            raise TimeoutError(f"process {pid} still runs {timeout_s} s after signal {sig}")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


class _Commands:
    """Runs our commands with the system's environment."""

    def __init__(self, root: Path, extra_env: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FARCALL_")},
            "FARCALL_USER_DIR": str(root / "user"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            **(extra_env or {}),
        }

    def run(self, command: str, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run one of our commands.

        Args:
            status: the exit status it must have; None accepts any.

        Raises:
            CommandFailed: it has another one; the text holds all that it printed.
        """
        done = subprocess.run(
            [str(_BIN / command), *args],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        if status is not None and done.returncode != status:
            raise CommandFailed(
                f"{command} {' '.join(args)} → {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
            )
        return done


class ServiceProcess:
    """One `farcall-service`, detached, on ports of its own that it keeps over restarts.

    Args:
        name: of its directory.
        role: None: it does everything, and clients of the system find it.
    """

    def __init__(self, commands: _Commands, name: str = "service", role: str | None = None) -> None:
        self._commands = commands
        self.name = name
        self.role = role
        self.data_dir = commands.root / name
        self._ports = ("0", "0")
        self.status: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return str(self.status["url"])

    @property
    def port(self) -> int:
        """Of HTTP."""
        return int(self.status["port"])

    @property
    def pid(self) -> int:
        return int(self.status["pid"])

    @property
    def log(self) -> Path:
        return self.data_dir / "service.log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        http, amqp = self._ports
        role = [] if self.role is None else ["--role", self.role]
        self.command("start", "--detach", "--port", http, "--amqp-port", amqp, *role)
        self.status = json.loads(self.command("status", "--json").stdout)
        self._ports = (str(self.status["port"]), str(self.status["amqp_port"]))
        if self.role is None:
            self._commands.env["FARCALL_SERVICE_URL"] = self.url

    def command(self, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self._commands.run("farcall-service", *args, "--data-dir", str(self.data_dir), status=status)

    def kill(self) -> None:
        kill_and_wait(self.pid)

    def stop(self) -> None:
        self.command("stop", status=None)


class EndpointProcess:
    """One `farcall-endpoint`, detached."""

    def __init__(self, commands: _Commands, name: str, config: str | None) -> None:
        self._commands = commands
        self.name = name
        self.directory = commands.root / "endpoints" / name
        self.command("configure", name)
        if config is not None:
            (self.directory / "config.yaml").write_text(config)

    @property
    def id(self) -> str:
        return str(json.loads((self.directory / "endpoint.json").read_text())["endpoint_id"])

    @property
    def pid(self) -> int:
        return int((self.directory / "daemon.pid").read_text().split()[0])

    @property
    def log(self) -> Path:
        return self.directory / "endpoint.log"

    def command(self, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        config_dir = str(self._commands.root / "endpoints")
        return self._commands.run("farcall-endpoint", "--config-dir", config_dir, *args, status=status)

    def start(self) -> None:
        """Start it and wait until it is registered and connected."""
        self.command("start", self.name, "--detach")

    def kill(self) -> None:
        kill_and_wait(self.pid)

    def stop(self) -> None:
        self.command("stop", self.name, status=None)


class ProcessSystem:
    """A service and its endpoints under one directory; `close()` stops what runs."""

    def __init__(self, root: Path, extra_env: Mapping[str, str] | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.commands = _Commands(root, extra_env)
        self.service = ServiceProcess(self.commands)
        self.endpoints: list[EndpointProcess] = []

    def endpoint(self, name: str = "here", config: str | None = None, *, start: bool = True) -> EndpointProcess:
        """Configure an endpoint (and start it).

        Args:
            config: text of its `config.yaml`; None keeps what `configure` wrote.
        """
        endpoint = EndpointProcess(self.commands, name, config)
        self.endpoints.append(endpoint)
        if start:
            endpoint.start()
        return endpoint

    def client_env(self) -> dict[str, str]:
        """Environment variables with which an SDK process finds this system."""
        return {k: v for k, v in self.commands.env.items() if k.startswith("FARCALL_")}

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.stop()
        if self.service.status:
            self.service.stop()


class SeveralProcesses(ProcessSystem):
    """A service of several processes, and its endpoints.

    Args:
        roles: of the service's processes; at least one "api" or "all".

    Attributes:
        services: by name: role and number, "api-1".
    """

    def __init__(self, root: Path, extra_env: Mapping[str, str], roles: Sequence[str]) -> None:
        super().__init__(root, extra_env)
        self.services: dict[str, ServiceProcess] = {}
        for role in roles:
            name = f"{role}-{1 + sum(each.role == role for each in self.services.values())}"
            self.services[name] = ServiceProcess(self.commands, name, role)

    @property
    def fronts(self) -> list[ServiceProcess]:
        """Those that clients may ask."""
        return [each for each in self.services.values() if each.role in ("api", "all")]

    def start(self, url: str) -> None:
        """Start all of them, and lead clients to `url`, behind which `fronts` are."""
        with ThreadPoolExecutor(len(self.services)) as pool:
            list(pool.map(ServiceProcess.start, self.services.values()))
        stored = TokenStore(self.root / "user" / "tokens.json").get(self.fronts[0].url)
        assert stored is not None, "who starts a service is logged in to it"
        self.commands.env |= {"FARCALL_SERVICE_URL": url, "FARCALL_TOKEN": stored.access_token}

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.stop()
        with ThreadPoolExecutor(len(self.services)) as pool:
            list(pool.map(ServiceProcess.stop, [each for each in self.services.values() if each.status]))


@contextmanager
def process_system(
    root: Path,
    extra_env: Mapping[str, str] | None = None,
    on_start: Callable[[ServiceProcess], None] | None = None,
) -> Iterator[ProcessSystem]:
    """A running service under `root`, and this process's environment pointed at it; all stopped at the end.

    Args:
        extra_env: for the commands, for example settings of the service (FARCALL_BROKER, FARCALL_STORE).
        on_start: told when the service has started, for example to tell a RabbitMQ whom to ask about logins. Its ports
            stay the same over restarts.
    """
    system = ProcessSystem(root, extra_env)
    system.service.start()
    if on_start is not None:
        on_start(system.service)
    with _pointed_at(system):
        yield system


@contextmanager
def several_processes(
    root: Path, extra_env: Mapping[str, str], roles: Sequence[str], url: str
) -> Iterator[SeveralProcesses]:
    """The same with a service of several processes.

    Args:
        extra_env: names PostgreSQL and RabbitMQ.
        url: of the load balancer in front of them. It may learn where `fronts` are only when this has started.
    """
    system = SeveralProcesses(root, extra_env, roles)
    try:
        system.start(url)
    except BaseException:
        system.close()
        raise
    with _pointed_at(system):
        yield system


@contextmanager
def _pointed_at(system: ProcessSystem) -> Iterator[None]:
    before = {k: v for k, v in os.environ.items() if k.startswith("FARCALL_")}
    os.environ.update(system.client_env())
    try:
        yield
    finally:
        for key in system.client_env():
            os.environ.pop(key, None)
        os.environ.update(before)
        system.close()
