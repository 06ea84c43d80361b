"""A browser for tests: keeps cookies, reads the forms of a page, follows redirects of the service and stops at those
that lead elsewhere; and the other side, a program that wants to act for its person.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlsplit

import httpx

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


def forms_of(text: str) -> list[Form]:
    """The forms of a page."""
    reader = _Reader()
    reader.feed(text)
    return reader.forms


class WebBrowser:
    """One person's browser at a running service. `answer` is the last page, `left_to` where it was sent outside."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self.answer: httpx.Response
        self.left_to: str | None = None

    def get(self, path: str) -> httpx.Response:
        return self._go("GET", path)

    def send(self, action: str, /, **values: str) -> httpx.Response:
        """Fill in the form of the page that posts to `action`, and send it."""
        form = next(each for each in forms_of(self.answer.text) if each.action == action)
        return self._go(form.method.upper(), form.action, {**form.fields, **values})

    def log_in(self, username: str, password: str) -> httpx.Response:
        self.get("/login")
        return self.send("/login", username=username, password=password)

    def _go(self, method: str, path: str, form: dict[str, str] | None = None) -> httpx.Response:
        self.left_to = None
        answer = self.http.request(method, path, data=form)
        while answer.status_code == 303:
            location = answer.headers["location"]
            if urlsplit(location).netloc not in ("", self.host):
                self.left_to = location
                break
            answer = self.http.get(location)
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
