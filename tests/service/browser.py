"""`web_browser` on a service in the test's own event loop. Imported by the tests beside it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
from service_world import Site

from farcall.service.app import create_app
from web_browser import LOOPBACK, Form, Program, forms_of, parameters

__all__ = ["LOOPBACK", "Browser", "Program", "ask_token", "let_in", "parameters"]


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
        return forms_of(self.answer.text)

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
