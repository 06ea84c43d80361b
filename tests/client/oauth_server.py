"""A small, strict OAuth2 server whose moments a test can hold: rotation, theft alarm, expiry by the test's own clock.

Stands in for the service where a test must see what happens between two steps of it; the same flows run against the
real service in tests/system.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

COMPUTE, AUTH = "funcx_service", "auth.globus.org"


@dataclass
class Family:
    """One login at one resource server."""

    username: str
    server: str
    refresh_token: str = ""
    used: set[str] = field(default_factory=set)
    access_tokens: set[str] = field(default_factory=set)


@dataclass
class OAuthServer:
    """What it knows, and what a test may set.

    Attributes:
        username: who logs in when somebody is sent to the login page.
        linked: further identities of that person.
        lifetime_s: `expires_in` of access tokens.
        refuses: for a path of the service, the error document that it answers with (status 403), or None.
        on_token: called with the form before an answer of the token endpoint leaves.
        thefts: how often a refresh token came back that had been replaced.
    """

    url: str = ""
    username: str = "ada@here"
    linked: tuple[str, ...] = ()
    lifetime_s: float = 3600
    refuses: Callable[[str, str], dict[str, Any] | None] = lambda path, username: None
    on_token: Callable[[dict[str, str]], None] = lambda form: None
    has_oauth: bool = True
    device_answers: list[str] = field(default_factory=list)
    clients: dict[str, str] = field(default_factory=dict)
    thefts: int = 0
    refreshes: int = 0
    revoked: list[str] = field(default_factory=list)
    authorizations: list[dict[str, str]] = field(default_factory=list)
    device_requests: list[dict[str, str]] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def log_in(self, username: str | None = None) -> dict[str, Any]:
        """A token document, as after a login."""
        documents = []
        for server in (COMPUTE, AUTH):
            family = Family(username=username or self.username, server=server)
            self.families.append(family)
            documents.append(self._issue(family))
        return {**documents[0], "other_tokens": documents[1:]}

    def expire(self) -> None:
        """No access token that was given counts any more."""
        with self.lock:
            for family in self.families:
                family.access_tokens.clear()

    def _issue(self, family: Family) -> dict[str, Any]:
        if family.refresh_token:
            family.used.add(family.refresh_token)
        family.refresh_token = secrets.token_hex(8)
        access = secrets.token_hex(8)
        family.access_tokens.add(access)
        return {
            "access_token": access,
            "refresh_token": family.refresh_token,
            "resource_server": family.server,
            "scope": "all",
            "expires_in": self.lifetime_s,
            "token_type": "Bearer",
            "other_tokens": [],
        }

    # --- routes

    def handle(self, method: str, target: str, form: dict[str, str], headers: Any) -> tuple[int, dict[str, str], Any]:
        parts = urlsplit(target)
        token = (headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.requests.append((method, parts.path, token))
        route = {
            "/.well-known/openid-configuration": self._discovery,
            "/v2/oauth2/token": lambda: self._token(form, headers.get("authorization") or ""),
            "/v2/oauth2/token/revoke": lambda: self._revoke(form),
            "/v2/oauth2/device": lambda: self._device(form),
        }.get(parts.path)
        if route is not None and self.has_oauth:
            with self.lock:
                answer: tuple[int, Any] = route()
            if parts.path.endswith("/token"):
                self.on_token(form)
            return answer[0], {}, answer[1]
        if parts.path == "/v2/oauth2/authorize":
            return self._authorize({name: values[0] for name, values in parse_qs(parts.query).items()})
        return self._resource(parts.path, token)

    def _discovery(self) -> tuple[int, Any]:
        at = f"{self.url}/v2/oauth2"
        return 200, {
            "issuer": self.url,
            "authorization_endpoint": f"{at}/authorize",
            "token_endpoint": f"{at}/token",
            "revocation_endpoint": f"{at}/token/revoke",
            "device_authorization_endpoint": f"{at}/device",
        }

    def _authorize(self, query: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        self.authorizations.append(query)
        code = secrets.token_hex(8)
        self._codes[code] = query
        back = urlencode({"code": code, "state": query["state"]})
        return 302, {"location": f"{query['redirect_uri']}?{back}"}, {}

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        grant = form.get("grant_type", "")
        if grant == "authorization_code":
            return self._redeem(form)
        if grant == "refresh_token":
            return self._refresh(form)
        if grant == "client_credentials":
            return self._client(form, authorization)
        if grant.endswith("device_code"):
            word = self.device_answers.pop(0) if self.device_answers else "ok"
            return (200, self.log_in()) if word == "ok" else (400, {"error": word})
        return 400, {"error": "unsupported_grant_type"}

    def _redeem(self, form: dict[str, str]) -> tuple[int, Any]:
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, self.log_in()

    def _refresh(self, form: dict[str, str]) -> tuple[int, Any]:
        self.refreshes += 1
        shown = form["refresh_token"]
        for family in self.families:
            if shown == family.refresh_token:
                return 200, self._issue(family)
            if shown in family.used:
                self.thefts += 1
                family.refresh_token = ""
                family.access_tokens.clear()
        return 400, {"error": "invalid_grant"}

    def _client(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        client_id, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if self.clients.get(unquote(client_id)) != unquote(secret):
            return 401, {"error": "invalid_client"}
        family = Family(username=unquote(client_id), server=AUTH if "openid" in form["scope"] else COMPUTE)
        self.families.append(family)
        return 200, {**self._issue(family), "refresh_token": None}

    def _revoke(self, form: dict[str, str]) -> tuple[int, Any]:
        self.revoked.append(form["token"])
        for family in self.families:
            if form["token"] in (family.refresh_token, *family.access_tokens):
                family.access_tokens.discard(form["token"])
                family.refresh_token = "" if form["token"] == family.refresh_token else family.refresh_token
        return 200, {"active": False}

    def _device(self, form: dict[str, str]) -> tuple[int, Any]:
        self.device_requests.append(form)
        return 200, {
            "device_code": "d",
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.url}/device",
            "verification_uri_complete": f"{self.url}/device?user_code=WDJB-MJHT",
            "expires_in": 900,
            "interval": 0.01,
        }

    def _resource(self, path: str, token: str | None) -> tuple[int, dict[str, str], Any]:
        wanted = AUTH if path.startswith("/v2/oauth2/") else COMPUTE
        with self.lock:
            family = next((each for each in self.families if token in each.access_tokens), None)
        if family is None or family.server != wanted:
            return 401, {}, {"code": "UNAUTHENTICATED", "message": "The token is not known."}
        refusal = self.refuses(path, family.username)
        if refusal is not None:
            return 403, {}, refusal
        if path == "/v2/oauth2/userinfo":
            identities = [{"sub": f"id-of-{name}", "username": name} for name in (family.username, *self.linked)]
            return 200, {}, {"sub": f"id-of-{family.username}", "identity_set": identities}
        return 200, {}, {"identity_id": f"id-of-{family.username}", "username": family.username, "results": {}}


@contextmanager
def oauth_server() -> Iterator[OAuthServer]:
    """Running on a free port of this machine."""
    server = OAuthServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            form = {}
            if "form" in (self.headers.get("content-type") or ""):
                form = {name: values[0] for name, values in parse_qs(body).items()}
            status, extra, document = server.handle(self.command, self.path, form, self.headers)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed is part of some tests."""

    http = Server(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
