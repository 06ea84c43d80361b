"""A service in the test's own event loop (`Site`, for routes), and one in a thread of its own (for AMQP clients).

Imported by the tests beside it, which `conftest` makes possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from farcall.service.accounts.local import LocalLogin, local_login
from farcall.service.app import create_app, open_service
from farcall.service.context import Service
from farcall.service.server import RunningService, running_service
from farcall.service.settings import ServiceSettings
from farcall.wire.framing import pack_buffers

CODE = pack_buffers(["st\ntriple:def triple(n):\n    return 3 * n\n"])
PAYLOAD = pack_buffers(["11\n[7]", "11\n{}"])


class Clock:
    """Unix seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Caller:
    """Somebody with a token, asking over the ASGI interface."""

    def __init__(self, client: httpx.AsyncClient, login: LocalLogin) -> None:
        self.client = client
        self.identity = login.identity
        self.token = login.token

    async def ask(self, method: str, path: str, document: Any = None, status: int = 200, **more: Any) -> Any:
        """The decoded answer, whose status must be `status`."""
        headers = {"authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        if document is not None:
            more["content"] = json.dumps(document).encode()
        answer = await self.client.request(method, path, headers=headers, **more)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json()

    async def function(self, **more: Any) -> str:
        document = {"function_name": "triple", "function_code": CODE, **more}
        return str((await self.ask("POST", "/v3/functions", document))["function_uuid"])

    async def endpoint(self, **more: Any) -> str:
        document = {"endpoint_name": "here", "direct": True, "metadata": {}, **more}
        return str((await self.ask("POST", "/v3/endpoints", document))["endpoint_id"])

    async def submit(self, endpoint_id: str, function_id: str, count: int = 1, status: int = 200, **more: Any) -> Any:
        headers = more.pop("headers", {})
        document = {"tasks": {function_id: [PAYLOAD] * count}, **more}
        return await self.ask("POST", f"/v3/endpoints/{endpoint_id}/submit", document, status, headers=headers)

    async def one_task(self, **more: Any) -> str:
        """The id of a task at a new endpoint."""
        function_id = await self.function()
        answer = await self.submit(await self.endpoint(), function_id, **more)
        return str(answer["tasks"][function_id][0])


class Site:
    """A service, its routes, and people."""

    def __init__(self, service: Service, client: httpx.AsyncClient, clock: Clock) -> None:
        self.service = service
        self.client = client
        self.clock = clock

    async def person(self, name: str = "ada@localhost", *, is_admin: bool = False) -> Caller:
        return Caller(self.client, await local_login(self.service, name, is_admin=is_admin))

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.get(path, **more)


@contextlib.asynccontextmanager
async def opened(data_dir: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Site]:
    clock = clock or Clock()
    chosen = ServiceSettings(data_dir=data_dir, port=0, amqp_port=0, **settings)
    async with open_service(chosen, clock=clock) as service:
        transport = httpx.ASGITransport(app=create_app(chosen, service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example:5000") as client:
            yield Site(service, client, clock)


Story = Callable[[Site], Awaitable[None]]
Play = Callable[..., None]


class ServiceThread:
    """A running service with sockets, in a thread with an event loop of its own."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._error: BaseException | None = None
        self.running: RunningService
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def call(self, function: Callable[[Service], Any]) -> Any:
        """Run `function` on the service's loop; awaits what it returns if that can be awaited."""

        async def inside() -> Any:
            answer = function(self.running.service)
            return await answer if asyncio.iscoroutine(answer) else answer

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(30)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with running_service(self._settings) as self.running:
                self._ready.set()
                await self._stop.wait()
        except BaseException as exc:
            self._error = exc
            self._ready.set()


class Rest:
    """A person's blocking client of a running service."""

    def __init__(self, thread: ServiceThread, name: str = "ada@localhost", *, is_admin: bool = False) -> None:
        login: LocalLogin = thread.call(lambda service: local_login(service, name, is_admin=is_admin))
        self.identity = login.identity
        self.http = httpx.Client(
            base_url=thread.running.url.replace("localhost", "127.0.0.1"),
            headers={"authorization": f"Bearer {login.token}"},
            timeout=30,
        )

    def ask(self, method: str, path: str, document: Any = None, status: int = 200, **more: Any) -> Any:
        answer = self.http.request(method, path, json=document, **more)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json()

    def function(self) -> str:
        document = {"function_name": "triple", "function_code": CODE}
        return str(self.ask("POST", "/v3/functions", document)["function_uuid"])

    def endpoint(self) -> Any:
        return self.ask("POST", "/v3/endpoints", {"endpoint_name": "here", "direct": True, "metadata": {}})

    def submit(self, endpoint_id: str, function_id: str, count: int = 1, **more: Any) -> Any:
        document = {"tasks": {function_id: [PAYLOAD] * count}, **more}
        return self.ask("POST", f"/v3/endpoints/{endpoint_id}/submit", document)
