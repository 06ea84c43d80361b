"""People and programs log in at a real service with the real commands, stay logged in, and log out."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from web_person import Browser, add_person, add_program, make_logins_old, operate

from certificates import Authority
from farcall import Client, Executor
from farcall.client.rest import ApiClient
from farcall.client.tokens import TokenStore
from farcall.testing.processes import ProcessSystem, process_system
from farcall.wire.errors import LoginRequired, Unauthenticated

BIN = Path(sys.executable).parent
WAIT_S = 90

THREADS = """\
engine:
  type: ThreadPoolEngine
  max_workers: 4
"""


class Home:
    """Somebody's user directory, from which our commands are run."""

    def __init__(self, root: Path, url: str) -> None:
        self.url = url
        self.store = TokenStore(root / "tokens.json")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FARCALL_")}
        self.env = {**kept, "FARCALL_USER_DIR": str(root), "COLUMNS": "200", "NO_COLOR": "1"}

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, status: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == status, f"{' '.join(command)} → {process.returncode}, not {status}\n{output}"
        return output

    def log_in(self, browser: Browser, *options: str, url: str | None = None, decision: str = "allow") -> str:
        """Run `farcall login`, do in the browser what it says, and return what it printed at the end."""
        process = self.start("farcall", "login", url or self.url, *options)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.strip().startswith("http"):
                self.page = browser.visit(line.strip(), decision=decision)
                break
        said += process.stdout
        self.status = process.wait(WAIT_S)
        return "".join(said)

    def python(self, code: str, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *args],
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def hasty_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    """A service whose access tokens count for three seconds: ours renew them after one and a half."""
    with process_system(tmp_path_factory.mktemp("hasty"), {"FARCALL_ACCESS_TOKEN_S": "3"}) as system:
        for name in ("ada", "bob"):
            add_person(system, name)
        yield system


@pytest.fixture
def home(hasty_system: ProcessSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path / "home", hasty_system.service.url)
    for name in [name for name in os.environ if name.startswith("FARCALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FARCALL_USER_DIR", made.env["FARCALL_USER_DIR"])
    return made


def test_a_person_logs_in_through_the_browser_and_out_again(home: Home) -> None:
    ada = Browser("ada")
    said = home.log_in(ada, "--no-browser")
    assert (home.status, ada.logins) == (0, 1), said
    assert "You are logged in" in home.page
    assert f"Logged in as ada@local at {home.url}, which is the default" in said
    assert home.run("farcall", "whoami").startswith("ada@local (")
    document = json.loads(home.run("farcall-endpoint", "whoami", "--linked-identities", "--json"))
    assert [each["username"] for each in document["linked_identities"]] == ["ada@local"]
    login = home.store.get(home.url)
    assert login is not None
    assert "Logged out" in home.run("farcall", "logout", home.url)
    assert home.store.accounts() == []
    with ApiClient(home.url, login.access_token, store=home.store) as stranger, pytest.raises(Unauthenticated):
        stranger.whoami()
    home.store.put(home.url, login)
    home.store.set_default(home.url)
    said = home.run("farcall", "whoami", status=77)
    assert "does not accept" in said, "the refresh token is void, too"


def test_with_a_code_and_as_somebody_else(home: Home) -> None:
    ada, bob = Browser("ada"), Browser("bob")
    said = home.log_in(ada, "--device")
    assert home.status == 0, said
    assert "Already logged in as ada@local" in home.run("farcall", "login", home.url)
    said = home.log_in(bob, "--no-browser", "--force")
    assert "Also kept: ada@local" in said
    assert home.run("farcall", "whoami").startswith("bob@local (")
    home.run("farcall", "switch", "ada")
    assert home.run("farcall", "whoami").startswith("ada@local (")
    logins = ada.logins
    home.log_in(ada, "--no-browser", "--force")
    assert ada.logins == logins + 1, "--force asks for the password again, whatever the browser remembers"


def test_a_no_ends_the_login(home: Home) -> None:
    said = home.log_in(Browser("ada"), "--no-browser", decision="deny")
    assert home.status == 77
    assert "The login" in said
    assert "refused" in said
    assert "You are not logged in" in home.page
    assert home.store.accounts() == []


def test_an_endpoint_and_an_executor_outlive_their_tokens(home: Home, tmp_path: Path) -> None:
    home.log_in(Browser("ada"), "--no-browser")
    home.run("farcall-endpoint", "configure", "here")
    directory = Path(home.env["FARCALL_USER_DIR"]) / "here"
    (directory / "config.yaml").write_text(THREADS)
    home.run("farcall-endpoint", "start", "here", "--detach")
    try:
        endpoint_id = json.loads((directory / "endpoint.json").read_text())["endpoint_id"]
        store, seen = TokenStore(), set()
        with Executor(endpoint_id) as executor:
            began_s = time.monotonic()
            while len(seen) < 4:  # over four tokens
                assert executor.submit(pow, 2, 5).result(WAIT_S) == 32
                login = store.get(home.url)
                assert login is not None
                seen.add(login.access_token)
            assert time.monotonic() - began_s > 3, "longer than one token counts"
        assert home.run("farcall", "endpoints").count("online") == 1
    finally:
        home.run("farcall-endpoint", "stop", "here")


WHO = """
import sys
from farcall import Client
from farcall.client.tokens import TokenStore
client, store, seen, count = Client(do_version_check=False), TokenStore(), set(), 0
while len(seen) < 3:
    assert client.api.whoami()["username"] == "ada@local"
    seen.add(store.get(sys.argv[1]).access_token)
    count += 1
print(count)
"""


def test_processes_that_share_a_login_renew_it_in_turn_and_none_is_taken_for_a_thief(home: Home) -> None:
    home.log_in(Browser("ada"), "--no-browser")
    processes = [home.python(WHO, home.url) for _ in range(3)]
    for process in processes:
        output, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors
        assert int(output) >= 3
    assert home.run("farcall", "whoami").startswith("ada@local (")


ONCE = """
import sys
from farcall import Client
client = Client(do_version_check=False)
print("ready", flush=True)
sys.stdin.readline()
print(client.api.whoami()["username"], flush=True)
"""


def test_a_process_that_is_killed_between_the_services_answer_and_the_disk_costs_nobody_the_login(home: Home) -> None:
    with gate_before(home.url) as gate:
        home.log_in(Browser("ada"), "--no-browser", url=gate.url)
        login = home.store.get(gate.url)
        assert login is not None
        assert login.expires_at is not None
        first = home.python(ONCE)
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        gate.hold(b"grant_type=refresh_token")
        wait_until(login.expires_at)
        assert first.stdin is not None
        first.stdin.write("\n")
        first.stdin.flush()
        assert gate.held.wait(WAIT_S), "the service has answered; the answer has not arrived"
        first.kill()
        first.communicate(timeout=WAIT_S)
        gate.let_go()
        assert home.store.get(gate.url) == login
        assert home.run("farcall", "whoami").startswith("ada@local ("), "the older refresh token is taken once more"
        renewed = home.store.get(gate.url)
        assert renewed is not None
        assert renewed.refresh_token != login.refresh_token
        # What the first was given does not count any more: nobody can have two of it.
        home.store.put(gate.url, login)
        home.run("farcall", "whoami", status=77)
        home.store.put(gate.url, renewed)
        home.run("farcall", "whoami", status=77)


def wait_until(unix_s: float) -> None:
    """Until a time of the wall clock, which is when a token expires and no event tells."""
    while (left_s := unix_s - time.time()) > 0:
        select.select([], [], [], left_s)


def test_a_program_logs_in_with_id_and_secret(home: Home, hasty_system: ProcessSystem, monkeypatch) -> None:
    client_id, secret = add_program(hasty_system)
    home.env |= {
        "FARCALL_CLIENT_ID": client_id,
        "FARCALL_CLIENT_SECRET": secret,
        "FARCALL_SERVICE_URL": home.url,
    }
    assert client_id in home.run("farcall", "whoami")
    assert home.store.accounts() == [], "nothing on disk"
    monkeypatch.setenv("FARCALL_CLIENT_ID", client_id)
    monkeypatch.setenv("FARCALL_CLIENT_SECRET", secret)
    monkeypatch.setenv("FARCALL_SERVICE_URL", home.url)
    home.run("farcall-endpoint", "configure", "robots")
    directory = Path(home.env["FARCALL_USER_DIR"]) / "robots"
    (directory / "config.yaml").write_text(THREADS)
    home.run("farcall-endpoint", "start", "robots", "--detach")
    try:
        endpoint_id = json.loads((directory / "endpoint.json").read_text())["endpoint_id"]
        with Executor(endpoint_id, Client()) as executor:
            assert executor.submit(pow, 2, 5).result(WAIT_S) == 32
    finally:
        home.run("farcall-endpoint", "stop", "robots")
    home.env["FARCALL_CLIENT_SECRET"] = "wrong"
    said = home.run("farcall", "whoami", status=77)
    assert f"does not accept the client {client_id}" in said
    del home.env["FARCALL_CLIENT_SECRET"]
    assert "FARCALL_CLIENT_SECRET is not" in home.run("farcall", "whoami", status=65)


def test_the_administrator_who_has_logged_in_as_a_person_stays_that_over_a_restart(system: ProcessSystem) -> None:
    add_person(system, "ada")
    home = Home(system.root / "user", system.service.url)
    home.env["FARCALL_SERVICE_URL"] = system.service.url
    assert "@localhost (" in home.run("farcall", "whoami")
    home.log_in(Browser("ada"), "--no-browser", "--force")
    system.service.stop()
    system.service.start()
    assert home.run("farcall", "whoami").startswith("ada@local (")
    assert "Tasks" in system.service.command("status").stdout, "what only the administrator is told"
    (other,) = [each.login.username for each in home.store.accounts(home.url) if not each.is_used]
    home.run("farcall", "switch", other)
    assert "@localhost (" in home.run("farcall", "whoami")


def test_a_login_and_its_renewal_trust_the_authority_that_was_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    cert, key = authority.server()
    env = {"FARCALL_TLS_CERT": str(cert), "FARCALL_TLS_KEY": str(key), "FARCALL_ACCESS_TOKEN_S": "3"}
    with process_system(tmp_path / "system", env) as system:
        add_person(system, "ada")
        home = Home(tmp_path / "home", system.service.url)
        ada = Browser("ada", authority.ca_file)
        said = home.log_in(ada, "--no-browser", "--ca-file", str(authority.ca_file))
        assert home.status == 0, said
        home.run("farcall-endpoint", "configure", "here")
        directory = Path(home.env["FARCALL_USER_DIR"]) / "here"
        (directory / "config.yaml").write_text(f"ca_file: {authority.ca_file}\n{THREADS}")
        home.store.set_ca_file(home.url, None)
        login = home.store.get(home.url)
        assert login is not None
        assert login.expires_at is not None
        wait_until(login.expires_at)
        home.run("farcall", "whoami", status=69)
        home.run("farcall-endpoint", "start", "here", "--detach")
        home.run("farcall-endpoint", "stop", "here")
        renewed = home.store.get(home.url)
        assert renewed is not None
        assert renewed.access_token != login.access_token


# --- a policy asks for a login of its own


@pytest.fixture
def protected_endpoint(hasty_system: ProcessSystem) -> Iterator[str]:
    """The id of an endpoint that ada may use, with a login of the last ten minutes."""
    made = json.loads(operate(hasty_system, "policy", "create", "Fresh", "--auth-timeout", "600", "--json"))
    config = THREADS + f"authentication_policy: {made['id']}\n"
    endpoint = hasty_system.endpoint("protected", config)
    endpoint.command("share", "protected", "--with", "ada@local")
    yield endpoint.id
    endpoint.command("stop", "protected", status=None)
    endpoint.command("delete", "protected", "--yes")


def grow_old(home: Home, system: ProcessSystem) -> None:
    """The login of `home` is an hour old, and the service does not remember its token."""
    login = home.store.get(home.url)
    assert login is not None
    assert login.expires_at is not None
    make_logins_old(system, 3600)
    wait_until(login.expires_at)


POWER = """
import sys
from farcall import Executor
with Executor(sys.argv[1]) as executor:
    print(executor.submit(pow, 2, 5).result())
"""


def test_a_program_is_told_what_to_run_and_runs_after_that(
    home: Home, hasty_system: ProcessSystem, protected_endpoint: str
) -> None:
    ada = Browser("ada")
    home.log_in(ada, "--no-browser")
    with Executor(protected_endpoint) as executor:
        assert executor.submit(pow, 2, 5).result(WAIT_S) == 32
        grow_old(home, hasty_system)
        error = executor.submit(pow, 2, 5).exception(WAIT_S)
        assert isinstance(error, LoginRequired)
        assert error.authorization_parameters
        (command,) = [line.strip() for line in str(error).splitlines() if line.strip().startswith("farcall login")]
        assert "--session-policy" in command
        logins = ada.logins
        said = home.log_in(ada, *command.split()[2:-1], "--no-browser")
        assert home.status == 0, said
        assert ada.logins == logins + 1
        assert executor.submit(pow, 2, 5).result(WAIT_S) == 32, "the same Executor goes on"


def test_a_person_at_a_terminal_is_led_through_the_login_and_the_call_goes_on(
    home: Home, hasty_system: ProcessSystem, protected_endpoint: str
) -> None:
    ada = Browser("ada")
    home.log_in(ada, "--no-browser")
    grow_old(home, hasty_system)
    logins = ada.logins
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", POWER, protected_endpoint],
        env={**home.env, "SSH_CONNECTION": "far away"},
        stdin=inner,
        stderr=inner,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(inner)
    with open(outer, encoding="utf-8", errors="replace") as terminal:
        said = ""
        for line in terminal:
            said += line
            if line.strip().startswith("http"):
                ada.visit(line.strip())
                break
        output, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, output) == (0, "32\n"), said
    assert "Fresh" in said
    assert ada.logins == logins + 1


# --- a network that can be stopped


class Gate:
    """A proxy before a service that can hold the answer to a request."""

    def __init__(self, url: str) -> None:
        host, port = url.rsplit("/", 1)[-1].rsplit(":", 1)
        self._to = ("127.0.0.1" if host == "localhost" else host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.held = threading.Event()
        self._go = threading.Event()
        self._pattern: bytes | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, pattern: bytes) -> None:
        """The answer to the next request with this text does not arrive until `let_go`."""
        self._pattern = pattern

    def let_go(self) -> None:
        self._go.set()

    def close(self) -> None:
        self._go.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            caught = threading.Event()
            pumps: tuple[tuple[socket.socket, socket.socket, Callable[[bytes], None]], ...] = (
                (client, server, lambda data, caught=caught: self._look(data, caught)),
                (server, client, lambda data, caught=caught: self._stop(caught)),
            )
            for source, target, before in pumps:
                threading.Thread(target=_pump, args=(source, target, before), daemon=True).start()

    def _look(self, data: bytes, caught: threading.Event) -> None:
        if self._pattern is not None and self._pattern in data:
            self._pattern = None
            caught.set()

    def _stop(self, caught: threading.Event) -> None:
        if caught.is_set():
            self.held.set()
            self._go.wait(WAIT_S)


def _pump(source: socket.socket, target: socket.socket, before: Callable[[bytes], None]) -> None:
    try:
        while data := source.recv(65536):
            before(data)
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@contextmanager
def gate_before(url: str) -> Iterator[Gate]:
    gate = Gate(url)
    try:
        yield gate
    finally:
        gate.close()
