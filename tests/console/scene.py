"""A service with its console, people with passwords, an endpoint that works, and a manager whose user endpoints report.

Imported by the tests beside it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from relay_scene import Agent, Link
from service_world import PAYLOAD, Rest, ServiceThread
from starlette.types import ASGIApp

from farcall import Executor
from farcall.cli.console import front_of
from farcall.client.rest import ApiClient
from farcall.client.tokens import TokenStore
from farcall.console.app import Console
from farcall.console.sessions import Session
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.process import EndpointRun, Quiet
from farcall.endpoint.registered import Registered
from farcall.sdk import Client
from farcall.sdk.stream import close_streams
from farcall.service.accounts.passwords import hash_password
from farcall.service.audit.rules import operator
from farcall.service.managers.commands import STOP_COMMAND
from farcall.service.server import running_service
from farcall.service.settings import ServiceSettings
from farcall.service.users.store import add_user

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["PASSWORD", "ConsoleScene", "Manager", "log_in", "console_scene"]

PASSWORD = "lamp orbit tuesday"
_HASH = hash_password(PASSWORD)
_START_S = 60.0
_THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n"
_RUNTIME = {
    "globus_compute_sdk_version": "4.19.0",
    "python": {"version": "3.11.7", "version_tuple": [3, 11, 7]},
    "platform": {"node": "laptop"},
}


class ConsoleService(ServiceThread):
    """A service that shows the console."""

    def __init__(self, settings: ServiceSettings) -> None:
        super().__init__(settings)
        self._front = front_of(settings)
        self.console: Console | None = None

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with running_service(self._settings, self._seen) as self.running:
                self._ready.set()
                await self._stop.wait()
        except BaseException as exc:
            self._error = exc
            self._ready.set()

    @asynccontextmanager
    async def _seen(self, api: FastAPI) -> AsyncIterator[ASGIApp]:
        assert self._front is not None
        async with self._front(api) as front:
            assert isinstance(front, Console)
            self.console = front
            yield front


class RealEndpoint(Quiet):
    """An endpoint with threads, in this process: the agent that users start."""

    def __init__(self, directory: Path, url: str, token: str, name: str, display_name: str, config: str) -> None:
        self.id = ""
        self._is_settled = threading.Event()
        self._is_online = False
        path = directory / name
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(f"display_name: {json.dumps(display_name)}\n{config}", encoding="utf-8")
        self._client = ApiClient(url, token, store=TokenStore(directory / f"{name}.tokens.json"))
        place = EndpointDirectory(path)
        self._run = EndpointRun(place, Registered(place, self._client), announcer=self)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._is_settled.wait(_START_S)
        assert self._is_online

    def stop(self) -> None:
        self._run.stop(at_once=True)
        self._thread.join(_START_S)
        self._client.close()

    def registered(self, endpoint_id: str) -> None:
        self.id = endpoint_id

    def online(self) -> None:
        self._is_online = True
        self._is_settled.set()

    def _work(self) -> None:
        try:
            self._run.run()
        finally:
            self._is_settled.set()


class Manager:
    """A multi-user endpoint, played by pika: it starts what the service asks for."""

    def __init__(self, scene: ConsoleScene, owner: Rest, name: str, **registration: Any) -> None:
        self._scene = scene
        document = {
            "endpoint_name": name,
            "multi_user": True,
            "metadata": {"hostname": "login1", "commands": [STOP_COMMAND]},
            **registration,
        }
        told = owner.ask("POST", "/v3/endpoints", document)
        self.id: str = told["endpoint_id"]
        info = told["command_queue_info"]
        self._commands = scene.keep(Link(info["connection_url"], info["queue"]))
        self._read = 0

    def submit(self, who: Rest, function_id: str, options: dict[str, Any] | None = None) -> str:
        """A task of `who`; its id."""
        call = {"tasks": {function_id: [PAYLOAD]}, "user_runtime": _RUNTIME, "user_endpoint_config": options or {}}
        answer = who.ask("POST", f"/v3/endpoints/{self.id}/submit", call)
        return str(answer["tasks"][function_id][0])

    def user_endpoint(self, who: Rest, function_id: str, options: dict[str, Any] | None = None) -> Agent:
        """The user endpoint that a task of `who` has it start."""
        self.submit(who, function_id, options)
        return self._scene.keep(Agent(self.next_command("start")["kwargs"]["amqp_creds"]))

    def next_command(self, verb: str) -> Any:
        """The next one whose name begins so; those before are passed over."""
        while True:
            self._read += 1
            command = json.loads(self._commands.wait(self._read)[self._read - 1][2])
            if verb in command["command"]:
                return command


class ConsoleScene:
    """The service and who is there.

    Attributes:
        endpoint: an endpoint of `ada` that executes.
    """

    def __init__(self, root: Path, closing: ExitStack, **settings: Any) -> None:
        self._closing = closing
        self._root = root
        self.thread = ConsoleService(ServiceSettings(data_dir=root / "service", port=0, amqp_port=0, **settings))
        self.thread.start()
        closing.callback(self.thread.stop)
        self.url = f"{'https' if 'tls_cert' in settings else 'http'}://127.0.0.1:{self.thread.running.port}"

    def person(self, name: str, *, is_operator: bool = False) -> Rest:
        """Somebody with an account and the password of all; and a program of theirs."""
        shown = {"display_name": None, "email": None, "organization": None, "must_change": False}
        now = time.time()
        self.thread.call(
            lambda service: service.db.write(
                lambda conn: add_user(conn, f"{name}@local", _HASH, **shown, actor=operator("test"), now=now)
            )
        )
        return Rest(self.thread, f"{name}@local", is_admin=is_operator)

    def real_endpoint(
        self, who: Rest, name: str, *, display_name: str | None = None, config: str = _THREADS
    ) -> RealEndpoint:
        token = who.http.headers["authorization"].removeprefix("Bearer ")
        endpoint = RealEndpoint(self._root / "endpoints", self.url, token, name, display_name or name, config)
        endpoint.start()
        self._closing.callback(endpoint.stop)
        return endpoint

    def client(self, who: Rest) -> Client:
        token = who.http.headers["authorization"].removeprefix("Bearer ")
        self._closing.callback(close_streams, 2.0, self.url)
        return Client(url=self.url, token=token)

    def executor(self, who: Rest, endpoint_id: str) -> Executor:
        return Executor(endpoint_id=endpoint_id, client=self.client(who))

    def sessions(self) -> list[Session]:
        """The logins to the console."""
        assert self.thread.console is not None
        return [session for session, _ in self.thread.console.sessions._open.values()]

    def tokens(self) -> list[str]:
        """Those that the console holds for people who are logged in."""
        return [token for session in self.sessions() for token in session.tokens]

    def hurry(self) -> None:
        """Lists that are opened from now on are read again at once."""
        for session in self.sessions():
            session.live._list_pause_s = 0.05

    def keep(self, link: Any) -> Any:
        """Close it in the end."""
        self._closing.callback(link.close)
        return link


@contextmanager
def console_scene(root: Path, **settings: Any) -> Iterator[ConsoleScene]:
    """A service with its console, until the end of the block."""
    with ExitStack() as closing:
        yield ConsoleScene(root, closing, **settings)


def log_in(page: Page, scene: ConsoleScene, name: str, path: str = "/compute") -> None:
    """Open a page of the console as somebody who is not logged in yet."""
    page.goto(f"{scene.url}{path}")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in", exact=True).click()
    page.wait_for_url(f"{scene.url}{path}")
