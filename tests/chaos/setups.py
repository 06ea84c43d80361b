"""The systems that are broken: real processes by the commands that operators type, each watched by a supervisor.

embedded    one service process, SQLite, the broker in it
postgres    the same with PostgreSQL
rabbitmq    one service process with PostgreSQL and RabbitMQ
servers     two API processes behind HAProxy and two relay processes, with both
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil

from chaos.balancer import haproxy_config
from chaos.network import Cable, cable, why_no_cable
from chaos.plan import Victim
from chaos.records import read_executions
from chaos.supervisor import Supervised
from farcall.testing.processes import ProcessSystem
from postgres_server import PostgresServer, find_binaries, postgres_server
from rabbitmq_server import RabbitServer, find_program, rabbitmq_server

__all__ = ["ENDPOINTS", "SETUPS", "ChaosSystem", "Site", "chaos_system", "missing_for", "why_no_cut"]

SETUPS = ("embedded", "postgres", "rabbitmq", "servers")
"""From the simplest to the fullest."""

_BIN = Path(sys.executable).parent
_START_S = 60.0


def missing_for(setup: str) -> str | None:
    """What a set-up needs and this machine lacks; None if it can run."""
    if setup != "embedded" and find_binaries() is None:
        return "no PostgreSQL 15 or newer (Debian: apt-get install postgresql)"
    if setup not in ("embedded", "postgres") and find_program() is None:
        return "no RabbitMQ (Debian: apt-get install rabbitmq-server)"
    if setup == "servers" and shutil.which("haproxy") is None:
        return "no HAProxy (Debian: apt-get install haproxy)"
    return None


def why_no_cut() -> str | None:
    """Why there can be no second host, and so no cut of the network; None if there can."""
    if shutil.which("haproxy") is None:
        return "no HAProxy (Debian: apt-get install haproxy)"
    return why_no_cable()


class Site:
    """An endpoint's configuration, and what it allows."""

    def __init__(self, name: str, config: str, retries: int) -> None:
        self.name, self.config, self.retries = name, config, retries


ENDPOINTS = (
    Site("once", "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n", 0),
    Site(
        "again",
        "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: 2\n  address: 127.0.0.1\n"
        "  max_retries_on_system_failure: 2\n"
        "  provider: {type: LocalProvider, init_blocks: 1, min_blocks: 1, max_blocks: 1}\n",
        2,
    ),
)
FAR = "once"
"""This endpoint is on the second host, where there is one: a cut must not make anything run twice."""


class ChaosSystem:
    """A running system, and handles to break its parts.

    Attributes:
        url: for clients.
        victims: kinds of parts that it has.
        executions: the file to which every call appends itself when it begins.
    """

    def __init__(
        self,
        root: Path,
        wire: Cable | None,
        postgres: PostgresServer | None,
        rabbit: RabbitServer | None,
        *,
        is_divided: bool,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self._is_divided = root, is_divided
        self.executions = root / "executions"
        self.endpoint_ids: dict[str, str] = {}
        self.clients: list[Supervised] = []
        self._commands = ProcessSystem(root, {"FARCALL_AMQP_HEARTBEAT_S": "8"}).commands
        self._cable, self._postgres, self._rabbit = wire, postgres, rabbit
        self._down: set[Victim] = set()
        self._services: list[Supervised] = []
        self._agents: dict[str, Supervised] = {}
        self._balancer: Supervised | None = None
        self._timers: list[threading.Timer] = []
        self._ports: dict[str, int] = {}
        self._http_port, self._amqp_port = free_port(), free_port()
        if postgres is not None:
            self._commands.env["FARCALL_STORE"] = postgres.database()
        if rabbit is not None:
            self._commands.env.update(rabbit.environment)
            self._amqp_port = rabbit.port
            rabbit.lead_to(self._http_port)
        self.victims = [Victim.API, Victim.RELAY] if is_divided else [Victim.SERVICE]
        self.victims += [Victim.AGENT, Victim.INTERCHANGE, Victim.WORKER, Victim.CLIENT]
        self.victims += [Victim.POSTGRESQL] if postgres else []
        self.victims += [Victim.RABBITMQ] if rabbit else []
        self.victims += [Victim.LINK] if wire else []

    # --- begin and end

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    def client_env(self) -> dict[str, str]:
        """Environment of a program that uses this system."""
        return {**self._commands.env, "FARCALL_SERVICE_URL": self.url, "FARCALL_TOKEN": self._token()}

    def start(self) -> None:
        """Returns when all parts run and the endpoints are registered."""
        self._start_services()
        for site in ENDPOINTS:
            self._start_agent(site)

    def close(self) -> None:
        for timer in self._timers:
            timer.join()
        for part in [*self.clients, *self._agents.values(), *self._services]:
            part.stop()
        if self._balancer is not None:
            self._balancer.stop()

    def add_client(self, name: str, job: dict[str, object], on_line: Callable[[str], None]) -> Supervised:
        """Start a client program with a job (see `client`)."""
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(job))
        program = str(Path(__file__).with_name("client.py"))
        client = Supervised(
            name,
            [sys.executable, program, str(path)],
            env=self.client_env(),
            log=self.root / f"{name}.log",
            on_line=on_line,
            ends=True,
        )
        self.clients.append(client)
        client.start()
        return client

    def parts(self) -> list[Supervised]:
        """All that is supervised."""
        return [*self._services, *self._agents.values(), *self.clients]

    def stop_agents(self) -> None:
        """So that their journals can be read."""
        for agent in self._agents.values():
            agent.stop()

    def queue_depths(self) -> list[str]:
        """What each service process says is in the broker's queues; who does not answer is left out."""
        found = []
        for name, port in self._ports.items():
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5.0, trust_env=False).text
            except httpx.HTTPError as exc:
                found.append(f"{name}: {type(exc).__name__}")
                continue
            lines = [line for line in text.splitlines() if line.startswith("farcall_queue_messages")]
            found += [f"{name}: {line}" for line in lines if not line.endswith(" 0")]
        return found

    def journal(self, name: str) -> Path:
        return self.root / "endpoints" / name / "journal.db"

    # --- breaking things

    def kill(self, victim: Victim, which: int, hold_s: float) -> str | None:
        """SIGKILL one part of a kind; it comes back after `hold_s`. Returns who it was; None: nobody is there."""
        if victim in (Victim.POSTGRESQL, Victim.RABBITMQ):
            return self._kill_server(victim, hold_s)
        part = self._supervised(victim, which)
        if part is not None:
            return part.name if part.kill(hold_s) else None
        found = self._process(victim, which)
        if found is None:
            return None
        name, process = found
        try:
            process.kill()
        except psutil.Error:
            return None
        return name

    def freeze(self, victim: Victim, which: int) -> tuple[str, Callable[[], None]] | None:
        """SIGSTOP one part of a kind. Returns who it was and what lets it go on; None: nobody is there."""
        part = self._supervised(victim, which)
        if part is not None:
            thaw = part.freeze()
            return None if thaw is None else (part.name, thaw)
        if victim in (Victim.POSTGRESQL, Victim.RABBITMQ):
            server = self._server(victim)
            return None if victim in self._down else (victim.value, _stand_still(server.processes()))
        found = self._process(victim, which)
        return None if found is None else (found[0], _stand_still([found[1]]))

    def cut(self) -> tuple[str, Callable[[], None]]:
        assert self._cable is not None
        self._cable.cut()
        return f"link to {FAR}", self._cable.heal

    def _supervised(self, victim: Victim, which: int) -> Supervised | None:
        kinds: dict[Victim, Sequence[Supervised]] = {
            Victim.SERVICE: self._services,
            Victim.API: [each for each in self._services if each.name.startswith("api")],
            Victim.RELAY: [each for each in self._services if each.name.startswith("relay")],
            Victim.AGENT: list(self._agents.values()),
            Victim.CLIENT: [client for client in self.clients if not client.is_finished.is_set()],
        }
        parts = kinds.get(victim)
        return parts[which % len(parts)] if parts else None

    def _process(self, victim: Victim, which: int) -> tuple[str, psutil.Process] | None:
        """A process that nobody of ours supervises: the engine's own business."""
        if victim is Victim.INTERCHANGE:
            for name, agent in self._agents.items():
                for process in _descendants(agent.pid):
                    if "interchange" in _command_line(process):
                        return f"interchange of {name}", process
        if victim is Victim.WORKER:
            sites = [site.name for site in ENDPOINTS]
            site = sites[which % len(sites)]
            for execution in reversed(read_executions(self.executions)):
                # Who ran the last call is most likely to run one now.
                if execution.endpoint == site and (worker := self._ours(execution.pid)) is not None:
                    return f"worker of {site}", worker
        return None

    def _ours(self, pid: int) -> psutil.Process | None:
        """The process, if it is one of this system: numbers are used again."""
        try:
            process = psutil.Process(pid)
            is_ours = process.environ().get("FARCALL_USER_DIR") == self._commands.env["FARCALL_USER_DIR"]
        except psutil.Error:
            return None
        return process if is_ours else None

    def _server(self, victim: Victim) -> PostgresServer | RabbitServer:
        server = self._postgres if victim is Victim.POSTGRESQL else self._rabbit
        assert server is not None
        return server

    def _kill_server(self, victim: Victim, hold_s: float) -> str | None:
        if victim in self._down:
            return None
        server = self._server(victim)
        self._down.add(victim)
        server.kill()

        def start() -> None:
            server.start()
            self._down.discard(victim)

        timer = threading.Timer(hold_s, start)
        self._timers.append(timer)
        timer.start()
        return victim.value

    # --- the parts

    def _start_services(self) -> None:
        if self._is_divided:
            ports = [free_port() for _ in range(4)]
            self._start_balancer(ports[:2])
            for name, port in zip(("api one", "api two", "relay one", "relay two"), ports, strict=True):
                self._services.append(self._service(name, ["--port", str(port), "--role", name.partition(" ")[0]]))
            return
        arguments = ["--port", str(self._http_port)]
        if self._rabbit is None:
            arguments += ["--amqp-port", str(self._amqp_port)]
        self._services.append(self._service("service", arguments))
        if self._cable is not None:
            self._start_balancer([self._http_port])

    def _service(self, name: str, arguments: Sequence[str]) -> Supervised:
        ready = threading.Event()
        data_dir = self.root / name
        service = Supervised(
            name,
            [str(_BIN / "farcall-service"), "start", "--data-dir", str(data_dir), *arguments],
            env=self._commands.env,
            log=self.root / f"{name}.out",
            on_line=lambda line: ready.set() if "http://" in line else None,
        )
        self._ports[name] = int(arguments[arguments.index("--port") + 1])
        service.start()
        if not ready.wait(_START_S):
            raise RuntimeError(f"{name} did not start; see {self.root / f'{name}.out'}")
        return service

    def _start_balancer(self, api_ports: Sequence[int]) -> None:
        config = self.root / "haproxy.cfg"
        outside = [self._cable.near_address] if self._cable is not None else []
        haproxy_config(
            config,
            http_addresses=["127.0.0.1", *outside] if self._is_divided else outside,
            http_port=self._http_port,
            api_ports=api_ports,
            amqp_addresses=outside,
            amqp_port=self._amqp_port,
        )
        self._balancer = Supervised(
            "haproxy",
            ["haproxy", "-db", "-f", str(config)],
            env=dict(os.environ),
            log=self.root / "haproxy.out",
        )
        self._balancer.start()

    def _start_agent(self, site: Site) -> None:
        config_dir = self.root / "endpoints"
        self._commands.run("farcall-endpoint", "--config-dir", str(config_dir), "configure", site.name)
        (config_dir / site.name / "config.yaml").write_text(f"heartbeat_period: 5\n{site.config}")
        registered = threading.Event()
        command = [str(_BIN / "farcall-endpoint"), "--config-dir", str(config_dir), "start", site.name]
        url = self.url
        if self._cable is not None and site.name == FAR:
            command = self._cable.on_far_host(*command)
            url = f"http://{self._cable.near_address}:{self._http_port}"
        agent = Supervised(
            f"agent of {site.name}",
            command,
            env={**self._commands.env, "FARCALL_SERVICE_URL": url, "FARCALL_TOKEN": self._token()},
            log=self.root / f"{site.name}.out",
            on_line=lambda line: registered.set() if "registered ID" in line else None,
        )
        self._agents[site.name] = agent
        agent.start()
        if not registered.wait(_START_S):
            raise RuntimeError(f"endpoint {site.name} did not register; see {self.root / f'{site.name}.out'}")
        stored = json.loads((config_dir / site.name / "endpoint.json").read_text())
        self.endpoint_ids[site.name] = str(stored["endpoint_id"])

    def _token(self) -> str:
        tokens = json.loads((self.root / "user" / "tokens.json").read_text())
        return str(next(iter(tokens["services"].values()))["access_token"])


@contextmanager
def chaos_system(setup: str, root: Path, *, with_cable: bool) -> Iterator[ChaosSystem]:
    """A running system.

    Args:
        setup: see above.
        with_cable: one endpoint is on a second host.
    """
    with ExitStack() as closing:
        wire = closing.enter_context(cable()) if with_cable else None
        postgres = closing.enter_context(postgres_server()) if setup != "embedded" else None
        rabbit = closing.enter_context(rabbitmq_server()) if setup not in ("embedded", "postgres") else None
        system = ChaosSystem(root, wire, postgres, rabbit, is_divided=setup == "servers")
        closing.callback(system.close)
        system.start()
        yield system


def free_port() -> int:
    """A port that nobody listens on, at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _stand_still(processes: Sequence[psutil.Process]) -> Callable[[], None]:
    for process in processes:
        _signal(process, signal.SIGSTOP)

    def thaw() -> None:
        for process in processes:
            _signal(process, signal.SIGCONT)

    return thaw


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        pass


def _descendants(pid: int | None) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True) if pid is not None else []
    except psutil.Error:
        return []


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
