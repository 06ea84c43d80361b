"""Recorded conversations of the official clients with the service: how they are recorded, written down, compared.

Ids that the service gave out are named `{id 1}`, `{id 2}` … in the order in which they first came up, logins and local
names are blotted out; what is left of a request can be sent again, and what is left of an answer compared by its shape.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

CONVERSATIONS: Final = Path(__file__).parents[1] / "conformance" / "conversations"
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME: Final = re.compile(r"\{id \d+\}")
_LOGIN: Final = re.compile(r"(amqps?)://[^@\s]+@[^/\s?]+")
_LOCAL: Final = ("hostname", "node", "local_user", "platform", "processor", "release", "compiler", "ip_address")


@dataclass
class Names:
    """Ids by name, or names by id."""

    of: dict[str, str] = field(default_factory=dict)

    def hide(self, text: str, *, is_new: bool) -> str:
        """`text` with names for ids; those that were not seen before only if they are the service's (`is_new`)."""

        def name(match: re.Match[str]) -> str:
            if is_new:
                self.of.setdefault(match[0], f"{{id {len(self.of) + 1}}}")
            return self.of.get(match[0], match[0])

        return _UUID.sub(name, text)

    def show(self, text: str) -> str:
        """`text` with ids for names."""
        return _NAME.sub(lambda match: self.of[match[0]], text)

    def learn(self, recorded: Any, live: Any) -> None:
        """The ids in an answer whose recording has names for them."""
        if isinstance(recorded, dict) and isinstance(live, dict):
            for key, other in zip(sorted(recorded), sorted(live), strict=False):
                self.learn(key, other)
                self.learn(recorded[key], live[other])
        elif isinstance(recorded, list) and isinstance(live, list):
            for one, other in zip(recorded, live, strict=False):
                self.learn(one, other)
        elif isinstance(recorded, str) and isinstance(live, str) and _NAME.search(recorded):
            ids = _UUID.findall(live)
            if len(ids) == len(_NAME.findall(recorded)):
                self.of.update(zip(_NAME.findall(recorded), ids, strict=True))


def without_secrets(value: Any) -> Any:
    """`value` with logins and what is the recording machine's own blotted out."""
    if isinstance(value, dict):
        return {
            key: "…" if key in _LOCAL and isinstance(each, str) else without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    return _LOGIN.sub(r"\1://…", value) if isinstance(value, str) else value


def shape(value: Any) -> Any:
    """What kind of thing each part is; keys that are ids are all alike."""
    if isinstance(value, Mapping):
        return {
            "id" if _UUID.fullmatch(key) or _NAME.fullmatch(key) else key: shape(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    if isinstance(value, (int, float)):
        return "number"
    if _is_id(value):
        return "id"
    return "broker" if value.startswith(("amqp://", "amqps://")) else "text"


def told(exchanges: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A conversation without what differs each time."""
    found = []
    for each in exchanges:
        path = _UUID.sub("{id}", _NAME.sub("{id}", each["path"]))
        found.append([each["method"], path, shape(each["request"]), each["status"], shape(each["answer"])])
    return found


def _is_id(text: str) -> bool:
    return bool(_UUID.fullmatch(text) or _NAME.fullmatch(text))


class Recorder:
    """A proxy on this machine in front of a service; it remembers what went through it, but for logins."""

    def __init__(self, service_port: int) -> None:
        self.exchanges: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = re.sub("^http://[^/]+", "", self.path)
                upstream = http.client.HTTPConnection("127.0.0.1", service_port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "proxy-connection")}
                upstream.request(self.command, path, body, {**headers, "Accept-Encoding": "identity"})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                recorder.note(self.command, path, body, answer.status, content)
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers.get("content-type", "application/json"))
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def note(self, method: str, path: str, body: bytes, status: int, content: bytes) -> None:
        if "/oauth2/" in path or "/.well-known/" in path:
            return
        request = json.loads(body) if body else None
        with self._lock:
            self.exchanges.append(
                {"method": method, "path": path, "request": request, "status": status, "answer": json.loads(content)}
            )

    def recording(self) -> list[dict[str, Any]]:
        """What went through, with names for the service's ids."""
        names, found = Names(), []
        for each in self.exchanges:
            asked = json.dumps(without_secrets([each["method"], each["path"], each["request"]]))
            answered = json.dumps(without_secrets(each["answer"]))
            method, path, request = json.loads(names.hide(asked, is_new=False))
            answer = json.loads(names.hide(answered, is_new=True))
            found.append(
                {"method": method, "path": path, "request": request, "status": each["status"], "answer": answer}
            )
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
