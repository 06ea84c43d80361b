"""A browser for tests: keeps cookies, reads the forms of a page, follows redirects of the service and stops at those
that lead elsewhere. Imported by the tests beside it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from service_world import Site

from farcall.service.app import create_app
from farcall.wire.auth import CLIENT_ID, COMPUTE_SCOPE

LOOPBACK = "http://127.0.0.1:43210/callback"


@dataclass
class Form:
    action: str = ""
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append(Form(action=given.get("action") or "", method=(given.get("method") or "get").lower()))
        elif tag == "input" and self.forms and given.get("name"):
            self.forms[-1].fields[str(given["name"])] = given.get("value") or ""


class Browser:
    """One person's browser. `answer` is the last page, `left_to` the address outside that it was sent to."""

    def __init__(self, site: Site, address: str = "192.0.2.1") -> None:
        app = create_app(site.service.settings, site.service)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(address, 4711))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://service.example:5000")
        self.answer: httpx.Response
        self.left_to: str | None = None

    async def get(self, path: str) -> httpx.Response:
        return await self._go("GET", path)

    async def send(self, action: str, /, **values: str) -> httpx.Response:
        """Fill in the form of the page that posts to `action`, and send it."""
        form = next(each for each in self.forms if each.action == action)
        return await self._go(form.method.upper(), form.action, {**form.fields, **values})

    @property
    def forms(self) -> list[Form]:
        reader = _Reader()
        reader.feed(self.answer.text)
        return reader.forms

    async def log_in(self, username: str, password: str, next: str = "/account") -> httpx.Response:
        await self.get(f"/login?next={next}")
        return await self.send("/login", username=username, password=password)

    async def _go(self, method: str, path: str, form: dict[str, str] | None = None) -> httpx.Response:
        self.left_to = None
        if method == "GET" and form is not None:
            path, form = str(httpx.URL(path, params=form)), None
        answer = await self.http.request(method, path, data=form)
        while answer.status_code == 303:
            location = answer.headers["location"]
            parts = urlsplit(location)
            if parts.netloc not in ("", "service.example:5000"):
                self.left_to = location
                break
            answer = await self.http.get(location)
        self.answer = answer
        return answer


@dataclass
class Program:
    """A program without a secret, with PKCE."""

    client_id: str = CLIENT_ID
    redirect_uri: str = LOOPBACK
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    def link(self, scope: str = f"{COMPUTE_SCOPE} openid", **more: str) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": scope,
            "state": "my-state",
            "response_type": "code",
            "access_type": "offline",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **more,
        }
        return str(httpx.URL("/v2/oauth2/authorize", params={k: v for k, v in asked.items() if v}))

    def form(self, code: str, **more: str) -> dict[str, str]:
        return {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "code": code,
            "code_verifier": self.verifier,
            "redirect_uri": self.redirect_uri,
            **more,
        }


def parameters(location: str | None) -> dict[str, str]:
    """The query of an address that a browser was sent to."""
    assert location is not None
    return dict(parse_qsl(urlsplit(location).query))


async def ask_token(site: Site, status: int = 200, auth: Any = None, **form: str) -> Any:
    """The token endpoint's answer."""
    answer = await site.client.post("/v2/oauth2/token", data=form, auth=auth)
    assert answer.status_code == status, (answer.status_code, answer.text)
    return answer.json()


async def let_in(browser: Browser, program: Program, **more: str) -> str:
    """The code that a logged-in person gives to a program."""
    await browser.get(program.link(**more))
    await browser.send("/v2/oauth2/authorize", decision="allow")
    return parameters(browser.left_to)["code"]
