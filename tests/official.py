"""The released packages of the other ecosystem, unmodified, in a venv of their own, and their processes: an SDK that
runs programs, endpoints that are killed and started again. Imported by the `conftest.py` of the directories beside
this file.

`FARCALL_TEST_OFFICIAL_PYTHON` names an interpreter that has them; without it a venv is made once and kept in
`FARCALL_TEST_CACHE` (default ~/.cache/farcall-tests). They find a service on any port through `HTTP_PROXY`: their
address is fixed, http://localhost:5000, and the service takes what is meant for a proxy as meant for itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from farcall.testing.processes import ProcessSystem, kill_and_wait
from farcall.wire.auth import COMPUTE_SCOPE

VERSION: Final = "4.19.0"
FAMILY: Final = "globus_compute_sdk"
_PROGRAMS: Final = Path(__file__).parent / "system" / "programs.py"
_PACKAGES: Final = (f"globus-compute-sdk=={VERSION}", f"globus-compute-endpoint=={VERSION}")
_INSTALL_S: Final = 600
_PATIENCE_S: Final = 120

Calls = Sequence[tuple[str, Mapping[str, Any]]]

THREADS: Final = """\
heartbeat_period: 5
engine:
  type: ThreadPoolEngine
  max_workers: {{ workers|default(4) }}
"""

GLOBUS_COMPUTE: Final = """\
heartbeat_period: 5
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
"""


def official_python() -> Path:
    """An interpreter with the packages. Where they cannot be installed the test is skipped; in CI it fails."""
    named = os.environ.get("FARCALL_TEST_OFFICIAL_PYTHON")
    if named:
        return Path(named)
    cache = Path(os.environ.get("FARCALL_TEST_CACHE") or Path.home() / ".cache" / "farcall-tests")
    venv = cache / f"official-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = venv / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (venv / "complete").exists():
            _install(venv, python)
    return python


def _install(venv: Path, python: Path) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    try:
        uv = Path(sys.executable).parent / "uv"
        if uv.exists():
            _run([str(uv), "venv", "--quiet", "--python", sys.executable, str(venv)])
            _run([str(uv), "pip", "install", "--quiet", "--python", str(python), *_PACKAGES])
        else:
            _run([sys.executable, "-m", "venv", str(venv)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_PACKAGES])
    except (subprocess.SubprocessError, OSError) as exc:
        reason = f"the packages {', '.join(_PACKAGES)} cannot be installed here: {getattr(exc, 'stderr', exc)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    (venv / "complete").touch()


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S, stdin=subprocess.DEVNULL)


class Client:
    """A program's account at the service: what `farcall-service client create` printed."""

    def __init__(self, system: ProcessSystem, name: str) -> None:
        made = json.loads(system.service.command("client", "create", name, "--json").stdout)
        self.id: str = made["client_id"]
        self.secret: str = made["client_secret"]


class OfficialSide:
    """The packages as one client's.

    Args:
        root: holds their files.
        port: of the service, on this machine.
        client: None for nobody's: they ask for a login.
    """

    def __init__(self, root: Path, port: int, client: Client | None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.python = official_python()
        self.user_dir = root / "globus"
        proxy = f"http://127.0.0.1:{port}"
        self.env = {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(root),
            "GLOBUS_COMPUTE_USER_DIR": str(self.user_dir),
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": "http://localhost:5000/",
            "HTTP_PROXY": proxy,
            "http_proxy": proxy,
        }
        if client is not None:
            self.client = client
            self.env |= {"GLOBUS_COMPUTE_CLIENT_ID": client.id, "GLOBUS_COMPUTE_CLIENT_SECRET": client.secret}
        self.endpoints: list[OfficialEndpoint] = []

    def program(self, name: str, **arguments: Any) -> Any:
        """Run one of `system/programs.py` with the official SDK, and return its answer."""
        (answer,) = self.programs([(name, arguments)])
        return value_of(answer)

    def programs(self, calls: Calls) -> list[dict[str, Any]]:
        """Run several of them in one process."""
        return answers_of(self.command(str(self.python), *programs(FAMILY, calls)))

    def command(self, *command: str, as_user: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(unprivileged() if as_user else ()), *command],
            env=self.env,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )

    def endpoint(
        self, name: str = "there", template: str = THREADS, config: str = "", options: Sequence[str] = ()
    ) -> OfficialEndpoint:
        """Configure one and start it. `options`: of the command `configure`."""
        endpoint = OfficialEndpoint(self, name, template, config, options)
        self.endpoints.append(endpoint)
        endpoint.start()
        return endpoint

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.stop()


class OfficialEndpoint:
    """One `globus-compute-endpoint`, in the foreground: a manager, with the user endpoints that it starts."""

    def __init__(self, side: OfficialSide, name: str, template: str, config: str, options: Sequence[str]) -> None:
        self._side, self.name = side, name
        self.directory = side.user_dir / name
        done = side.command(self._program, "configure", name, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        (self.directory / "user_config_template.yaml.j2").write_text(template)
        (self.directory / "user_config_schema.json").unlink(missing_ok=True)
        with (self.directory / "config.yaml").open("a") as file:
            file.write("\nheartbeat_period: 5\n" + config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _program(self) -> str:
        return str(self._side.python.parent / "globus-compute-endpoint")

    @property
    def id(self) -> str:
        return str(json.loads((self.directory / "endpoint.json").read_text())["endpoint_id"])

    @property
    def log(self) -> Path:
        return self.directory / "endpoint.log"

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self._side.command(self._program, *args)

    def start(self) -> None:
        """Returns when it is registered and takes commands."""
        end = self.log.stat().st_size if self.log.exists() else 0
        self._process = subprocess.Popen(
            [*unprivileged(), self._program, "start", self.name],
            env=self._side.env,
            cwd=self._side.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Whoever stops it with a command waits until it is gone, and a process that nobody waits for never is.
        threading.Thread(target=self._process.wait, daemon=True).start()
        wait_for_line(self.log, "Awaiting messages from queue", end)

    def stop(self) -> None:
        """In order: it ends its user endpoints. Returns when it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; its user endpoints go on or die, as they like."""
        self._end(signal.SIGKILL)

    def forget_stopped_process(self) -> None:
        """Make the PID file of a killed one old: for three heartbeat periods, it keeps another from starting."""
        os.utime(self.directory / "daemon.pid", (0, 0))

    def wait_until_ended(self) -> None:
        """Until it has ended by itself, or by a command."""
        process, self._process = self._process, None
        assert process is not None
        process.wait(_PATIENCE_S)

    def user_endpoint_pids(self) -> list[int]:
        """The processes of its user endpoints."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"_start-user-endpoint" in command and f"uep.{self.id}.".encode() in command:
                    found.append(int(entry.name))
        return found

    def kill_user_endpoints(self) -> None:
        """SIGKILL. Returns when they are gone."""
        for pid in self.user_endpoint_pids():
            kill_and_wait(pid)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(60)


def token_of(client: Client, system: ProcessSystem, scope: str) -> str:
    """An access token."""
    answer = httpx.post(
        f"{system.service.url}/v2/oauth2/token",
        data={"grant_type": "client_credentials", "scope": scope},
        auth=(client.id, client.secret),
    )
    return str(answer.raise_for_status().json()["access_token"])


class OurSide:
    """Our SDK and our endpoints as the same client's: programs of the installed package, in processes of their own."""

    def __init__(self, root: Path, system: ProcessSystem, client: Client) -> None:
        self.env = {**system.commands.env, "FARCALL_USER_DIR": str(root / "farcall")}
        self.token = token_of(client, system, COMPUTE_SCOPE)
        login = [str(Path(sys.executable).parent / "farcall"), "login", system.service.url]
        env = {**self.env, "FARCALL_TOKEN": self.token}
        subprocess.run(login, env=env, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S)

    def program(self, name: str, **arguments: Any) -> Any:
        """Run one of `system/programs.py` with our SDK, and return its answer."""
        (answer,) = self.programs([(name, arguments)])
        return value_of(answer)

    def programs(self, calls: Calls) -> list[dict[str, Any]]:
        """Run several of them in one process."""
        with self.start(calls) as process:
            out, err = process.communicate(timeout=_PATIENCE_S)
        return answers_of(subprocess.CompletedProcess((), process.returncode, out, err))

    def start(self, calls: Calls) -> subprocess.Popen[str]:
        """Begin to run them."""
        return subprocess.Popen(
            [sys.executable, *programs("farcall", calls)],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def programs(family: str, calls: Calls) -> list[str]:
    """The arguments for Python that run some of `system/programs.py`."""
    return [str(_PROGRAMS), family, json.dumps(list(calls))]


def answers_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What they printed as their answers."""
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    mark = "ANSWER "
    return [json.loads(line.removeprefix(mark)) for line in done.stdout.splitlines() if line.startswith(mark)]


def value_of(answer: Mapping[str, Any]) -> Any:
    assert "error" not in answer, answer["error"]
    return answer["value"]


def wait_for_line(log: Path, text: str, since: int = 0) -> None:
    """Until `text` stands in a file after its first `since` bytes. The file may still have to be made."""
    with subprocess.Popen(
        ["tail", "-F", "-c", f"+{since + 1}", str(log)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tail:
        assert tail.stdout is not None
        said = b""
        try:
            while text.encode() not in said:
                assert select.select([tail.stdout], [], [], _PATIENCE_S)[0], f"no {text!r} in {log}: {said.decode()}"
                said += os.read(tail.stdout.fileno(), 65536)
        finally:
            tail.kill()


def unprivileged() -> Sequence[str]:
    """The beginning of a command that is not to run as root: there, official endpoints map identities to accounts."""
    if os.geteuid() != 0:
        return ()
    nobody = ("--map-user=65534", "--map-group=65534")
    return ("unshare", "--user", *nobody, "--")


@contextmanager
def official_side(root: Path, system: ProcessSystem, name: str = "official") -> Iterator[OfficialSide]:
    """The packages, with a client of their own at the service; what they started is stopped at the end."""
    official_python()
    side = OfficialSide(root, system.service.port, Client(system, name))
    try:
        yield side
    finally:
        side.close()
