"""A tiny real HTTP server whose answers a test scripts, so that sockets, keep-alive and time-outs are real."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out

from oauth_server import OAuthServer, oauth_server


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: tuple[str, int]

    @property
    def document(self) -> Any:
        return json.loads(self.body)


Answer = tuple[int, dict[str, str], Any]
"""Status (0: hang up without an answer), headers, JSON document (or bytes as they are)."""


@dataclass
class ScriptedService:
    """Answers with what `script` returns for a request; remembers the requests."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    script: Callable[[Request], Answer] = lambda request: (200, {}, {})

    def answers(self, *answers: Answer) -> None:
        """Give these answers in turn; the last one for ever."""
        queue = list(answers)
        self.script = lambda request: queue.pop(0) if len(queue) > 1 else queue[0]


@pytest.fixture
def scripted_service() -> Iterator[ScriptedService]:
    service = ScriptedService()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body, self.client_address)
            service.requests.append(request)
            status, extra, document = service.script(request)
            if status == 0:
                self.close_connection = True
                return
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = answer

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is part of some tests."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch) -> Iterator[OAuthServer]:
    """An OAuth2 server, and no credential in the environment."""
    for name in ("FARCALL_TOKEN", "FARCALL_CLIENT_ID", "FARCALL_CLIENT_SECRET", "FARCALL_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with oauth_server() as server:
        yield server
