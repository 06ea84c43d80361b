"""People and programs with accounts at a running service, and a browser for the people. For the tests beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
from sqlalchemy import Connection

from farcall.service.accounts.passwords import hash_password
from farcall.service.audit.rules import operator
from farcall.service.clients.rules import Client, new_secret, secret_hash
from farcall.service.clients.store import add_client
from farcall.service.db.engine import make_engine
from farcall.service.ids import new_id
from farcall.service.users.store import add_user
from farcall.testing.processes import ProcessSystem

PASSWORD = "correct horse battery"
_HASH = hash_password(PASSWORD)
_ME = operator("test")


@contextmanager
def database(system: ProcessSystem) -> Iterator[Connection]:
    """The service's own, beside it, as its operator's commands use it."""
    engine = make_engine(f"sqlite:///{system.service.data_dir / 'farcall.db'}")
    try:
        with engine.begin() as conn:
            yield conn
    finally:
        engine.dispose()


def add_person(system: ProcessSystem, name: str) -> None:
    """Somebody who can log in as `name` with PASSWORD."""
    with database(system) as conn:
        add_user(
            conn,
            f"{name}@local",
            _HASH,
            must_change=False,
            display_name=name.title(),
            email=None,
            organization=None,
            actor=_ME,
            now=time.time(),
        )


def add_program(system: ProcessSystem) -> tuple[str, str]:
    """Id and secret of a program."""
    secret = new_secret()
    client = Client(
        id=new_id(),
        name="a gateway",
        is_confidential=True,
        redirect_uris=(),
        secret_hash=secret_hash(secret),
        created_at=time.time(),
    )
    with database(system) as conn:
        add_client(conn, client, "local", _ME)
    return client.id, secret


@dataclass
class _Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(_Form(given.get("action", ""), given.get("method", "get").upper()))
        elif tag == "input" and self.forms and given.get("name"):
            self.forms[-1].fields[given["name"]] = given.get("value", "")


class Browser:
    """One person's browser: keeps cookies, and does on each page what the person would."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.logins = 0
        self._http = httpx.Client(follow_redirects=True, timeout=60)

    def visit(self, url: str, *, decision: str = "allow") -> str:
        """Open a link, log in if that is asked for, say whether the program may, and return the last page.

        Raises:
            AssertionError: a page asks for something else, or the password did not do.
        """
        page = self._http.get(url)
        for _ in range(6):
            assert page.status_code < 400, page.text
            reader = _Reader()
            reader.feed(page.text)
            form, values = next(((f, v) for f in reader.forms if (v := self._values(f, decision))), (None, {}))
            if form is None:
                return page.text
            self.logins += "password" in values
            values = {**form.fields, **values}
            page = self._http.request(form.method, urljoin(str(page.url), form.action), data=values)
        raise AssertionError(f"{self.name} goes round in circles: {page.url}")

    def _values(self, form: _Form, decision: str) -> dict[str, str]:
        if "password" in form.fields:
            return {"username": self.name, "password": PASSWORD}
        return {"decision": decision} if "/oauth2/authorize" in form.action or "/device" in form.action else {}
