"""A whole system in this process, for tests of programs that use Farcall: service, broker, endpoint with threads.

    from farcall.testing import local_system

    with local_system() as system, system.executor() as executor:
        assert executor.submit(pow, 2, 10).result(timeout=30) == 1024

Nothing is faked: the same service, the same agent, real sockets on free ports of loopback, files in a temporary
directory that goes away. Calls run in threads of this process, so they can be debugged and covered by coverage
tools. Needs the extras of all parts (`pip install farcall[all]`). For real processes see `farcall.testing.processes`.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from farcall.client.rest import ApiClient
from farcall.client.tokens import TokenStore
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.process import EndpointRun, Quiet
from farcall.endpoint.registered import Registered
from farcall.sdk import Client, Executor
from farcall.sdk.stream import close_streams
from farcall.service.accounts.local import local_login
from farcall.service.server import running_service
from farcall.service.settings import ServiceSettings

__all__ = ["LocalSystem", "local_system"]

_START_S = 60.0
_USERNAME = "tester@localhost"

_CONFIG = """\
display_name: Endpoint of a test
engine:
  type: ThreadPoolEngine
  max_workers: {workers}
"""


class LocalSystem:
    """A running system; made by `local_system`.

    Attributes:
        url: of the service.
        token: of a user who is its administrator.
        endpoint_id: of an endpoint that is online.
        directory: holds all its files.
    """

    def __init__(self, url: str, token: str, endpoint_id: str, directory: Path) -> None:
        self.url = url
        self.token = token
        self.endpoint_id = endpoint_id
        self.directory = directory

    def client(self, **options: Any) -> Client:
        """A client that is logged in; options as for `Client`."""
        return Client(url=self.url, token=self.token, **options)

    def executor(self, **options: Any) -> Executor:
        """An Executor on the endpoint; options as for `Executor`."""
        return Executor(**{"endpoint_id": self.endpoint_id, "client": self.client(), **options})

    def environment(self) -> dict[str, str]:
        """Environment variables with which programs and commands use this system."""
        return {
            "FARCALL_SERVICE_URL": self.url,
            "FARCALL_TOKEN": self.token,
            "FARCALL_USER_DIR": str(self.directory / "user"),
            "FARCALL_ENDPOINT_ID": self.endpoint_id,
        }


@contextmanager
def local_system(*, workers: int = 4, directory: Path | None = None) -> Iterator[LocalSystem]:
    """A service and an endpoint, running until the end of the `with` statement.

    Args:
        workers: threads in which calls run.
        directory: keeps the files (pytest's `tmp_path`, to look at logs); a temporary one if None.

    Raises:
        RuntimeError: it does not come up; says why.
    """
    with ExitStack() as closing:
        if directory is None:
            directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="farcall-test-")))
        service = _ServiceThread(directory / "service")
        closing.callback(service.stop)
        service.start()
        closing.callback(close_streams, 2.0, service.url)
        endpoint = _EndpointThread(directory, service.url, service.token, workers)
        closing.callback(endpoint.stop)
        endpoint.start()
        yield LocalSystem(service.url, service.token, endpoint.endpoint_id, directory)


class _ServiceThread:
    """A service on an event loop of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.url = self.token = ""
        self._settings = ServiceSettings(data_dir=data_dir, port=0, amqp_port=0)
        self._is_settled = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_wish: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="farcall-test-service", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._is_settled.wait(_START_S):
            raise RuntimeError(f"the test service did not start within {_START_S:.0f} s")
        if self._error is not None:
            raise RuntimeError(f"the test service did not start: {self._error}") from self._error

    def stop(self) -> None:
        loop, wish = self._loop, self._stop_wish
        if loop is not None and wish is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(wish.set)
            self._thread.join(_START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            self._error = exc
        finally:
            self._is_settled.set()

    async def _serve(self) -> None:
        self._loop, self._stop_wish = asyncio.get_running_loop(), asyncio.Event()
        async with running_service(self._settings) as running:
            login = await local_login(running.service, _USERNAME)
            self.url, self.token = running.url, login.token
            self._is_settled.set()
            await self._stop_wish.wait()


class _EndpointThread(Quiet):
    """An endpoint's agent, and what it announces."""

    def __init__(self, directory: Path, url: str, token: str, workers: int) -> None:
        self.endpoint_id = ""
        self._reason = "it ended"
        self._is_settled = threading.Event()
        self._is_online = False
        path = directory / "endpoints" / "test"
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(_CONFIG.format(workers=workers))
        self._client = ApiClient(url, token, store=TokenStore(directory / "user" / "tokens.json"))
        place = EndpointDirectory(path)
        self._run = EndpointRun(place, Registered(place, self._client), announcer=self)
        self._thread = threading.Thread(target=self._work, name="farcall-test-endpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._is_settled.wait(_START_S):
            raise RuntimeError(f"the test endpoint did not come online within {_START_S:.0f} s")
        if not self._is_online:
            raise RuntimeError(f"the test endpoint did not start: {self._reason}")

    def stop(self) -> None:
        if self._thread.is_alive():
            self._run.stop(at_once=True)
            self._thread.join(_START_S)
        self._client.close()

    def registered(self, endpoint_id: str) -> None:
        self.endpoint_id = endpoint_id

    def online(self) -> None:
        self._is_online = True
        self._is_settled.set()

    def failed(self, text: str) -> None:
        self._reason = text

    def _work(self) -> None:
        try:
            self._run.run()
        finally:
            self._is_settled.set()
