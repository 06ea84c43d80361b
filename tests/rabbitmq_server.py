"""A RabbitMQ of the tests' own, on loopback, with the plugins that Farcall needs: started, stopped, killed, emptied.

It asks about logins at a forwarder in this process, which leads to whichever service a test names (`lead_to`): so one
server serves services that come and go on ports of their own. RabbitMQ runs as the user `rabbitmq` if root starts it.
Imported by the `conftest.py` of the directories beside this file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

_DEBIAN = Path("/usr/lib/rabbitmq/bin")
_SERVER_USER = "rabbitmq"
_VHOST = "farcall"
_PLUGINS = "[rabbitmq_management,rabbitmq_auth_backend_http,rabbitmq_event_exchange]."
_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
load_definitions = {home}/definitions.json
auth_backends.1 = internal
auth_backends.2 = http
auth_http.http_method = post
auth_http.user_path = http://127.0.0.1:{auth_port}/rabbitmq/user
auth_http.vhost_path = http://127.0.0.1:{auth_port}/rabbitmq/vhost
auth_http.resource_path = http://127.0.0.1:{auth_port}/rabbitmq/resource
auth_http.topic_path = http://127.0.0.1:{auth_port}/rabbitmq/topic
event_exchange.vhost = {vhost}
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
log.file.level = info
"""
_TLS_CONFIG = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.certfile = {home}/server.pem
ssl_options.keyfile = {home}/server.key
"""
_STARTED = b"completed with"


def find_program() -> Path | None:
    """The start script, not Debian's wrapper, which root alone may run; None if there is no RabbitMQ."""
    if (_DEBIAN / "rabbitmq-server").exists():
        return _DEBIAN / "rabbitmq-server"
    found = shutil.which("rabbitmq-server")
    return None if found is None else Path(found)


class Forwarder:
    """Leads connections to a port of this machine; closes them while nobody listens there.

    Attributes:
        was_in_vain: set when it had to close one.
    """

    def __init__(self) -> None:
        self.was_in_vain = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.target: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                if self.target is None:
                    raise OSError("nowhere")
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                self.was_in_vain.set()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class RabbitServer:
    """One node with one account for the service, `farcall`, and one vhost of that name.

    Attributes:
        url: for the service's setting `broker`, password and all.
        management_url: likewise for `broker_management`.

    Args:
        certificate: PEM files, certificate and key: then `url` is one of AMQPS.
    """

    def __init__(self, program: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self._program = program
        self.home = Path(tempfile.mkdtemp(prefix="farcall-rabbitmq-"))
        self.password = secrets.token_hex(8)
        self.port, self.management_port, self._dist_port, self._epmd_port, tls_port = _free_ports(5)
        self.auth = Forwarder()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://farcall:{self.password}@127.0.0.1:{self.port}/{_VHOST}"
        self.management_url = f"http://farcall:{self.password}@127.0.0.1:{self.management_port}"
        (self.home / "definitions.json").write_text(json.dumps(self._definitions()))
        (self.home / "plugins").write_text(_PLUGINS)
        (self.home / "env.conf").touch()
        (self.home / "advanced.config").write_text("[].")
        (self.home / "rabbitmq.conf").write_text(
            _CONFIG.format(
                home=self.home,
                port=self.port,
                management_port=self.management_port,
                auth_port=self.auth.port,
                vhost=_VHOST,
            )
        )
        if certificate is not None:
            for path, name in zip(certificate, ("server.pem", "server.key"), strict=True):
                (self.home / name).write_bytes(path.read_bytes())
            with (self.home / "rabbitmq.conf").open("a") as file:
                file.write(_TLS_CONFIG.format(home=self.home, port=tls_port))
            self.url = f"amqps://farcall:{self.password}@localhost:{tls_port}/{_VHOST}"
        cookie = self.home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
        if os.geteuid() == 0:
            user = pwd.getpwnam(_SERVER_USER)
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)

    @property
    def environment(self) -> dict[str, str]:
        """For the service and its commands."""
        return {"FARCALL_BROKER": self.url, "FARCALL_BROKER_MANAGEMENT": self.management_url}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def lead_to(self, port: int | None) -> None:
        """Have it ask the service that listens on this port who may log in; None: nobody answers."""
        self.auth.target = port

    def start(self) -> None:
        """Returns when it accepts connections."""
        self._process = subprocess.Popen(
            [*self._as_user(), str(self._program)],
            cwd=self.home,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = b""
        while _STARTED not in said:
            assert select.select([self._process.stdout], [], [], 90)[0], f"RabbitMQ does not start: {said!r}"
            more = os.read(self._process.stdout.fileno(), 4096)
            assert more, f"RabbitMQ ended: {said.decode(errors='replace')}"
            said += more
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def stop(self) -> None:
        """In order: it tells its clients, and writes what it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Delete its data, while it does not run: at the next start it knows no queue."""
        assert self._process is None
        shutil.rmtree(self.home / "mnesia")

    def processes(self) -> list[psutil.Process]:
        """All of it, as it is now."""
        return [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]

    def clear(self) -> None:
        """Delete all queues."""
        with httpx.Client(base_url=self.management_url, trust_env=False) as http:
            found = http.get(f"/api/queues/{_VHOST}?columns=name").raise_for_status()
            for queue in found.json():
                http.delete(f"/api/queues/{_VHOST}/{queue['name']}")

    def close(self) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                self.kill()
        finally:
            self._end_port_mapper()
            self.auth.close()
            shutil.rmtree(self.home, ignore_errors=True)

    def _end_port_mapper(self) -> None:
        # `epmd -kill` is refused for a moment after the node was killed.
        for each in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if each.info["name"] == "epmd" and each.environ().get("ERL_EPMD_PORT") == str(self._epmd_port):
                    each.kill()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None
        os.killpg(process.pid, number)
        process.wait(60)

    def _as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={_SERVER_USER}", f"--regid={_SERVER_USER}", "--init-groups", "--"]

    def _environment(self) -> dict[str, str]:
        # Nothing of ours: its scripts read proxies, locales and much else.
        loopback = "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
        home = str(self.home)
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/generated",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _definitions(self) -> dict[str, object]:
        salt = secrets.token_bytes(4)
        hashed = base64.b64encode(salt + hashlib.sha256(salt + self.password.encode()).digest()).decode()
        user = {
            "name": "farcall",
            "password_hash": hashed,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"],
            "limits": {},
        }
        rights = {"user": "farcall", "vhost": _VHOST, "configure": ".*", "write": ".*", "read": ".*"}
        return {"users": [user], "vhosts": [{"name": _VHOST}], "permissions": [rights]}


@contextmanager
def rabbitmq_server(certificate: tuple[Path, Path] | None = None) -> Iterator[RabbitServer]:
    """A server that runs. Without RabbitMQ the test is skipped; in CI (`CI=true`) it fails."""
    program = find_program()
    if program is None:
        reason = "no RabbitMQ here (Debian: apt-get install rabbitmq-server; as root: scripts/ci-services.sh)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    server = RabbitServer(program, certificate)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as closing:
        found = [closing.enter_context(socket.socket()) for _ in range(count)]
        for sock in found:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in found]
