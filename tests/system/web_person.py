"""People and programs with accounts at a running service, and a browser for the people. For the tests beside it."""

from __future__ import annotations

import json
import sqlite3
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pyotp

from farcall.testing.processes import ProcessSystem
from web_browser import Form, forms_of

BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery"


def add_person(system: ProcessSystem, name: str) -> None:
    """Somebody who can log in as `name` with PASSWORD."""
    operate(system, "user", "add", name, "--password-stdin", text=PASSWORD + "\n")


def add_program(system: ProcessSystem) -> tuple[str, str]:
    """Id and secret of a program."""
    made = json.loads(operate(system, "client", "create", "a gateway", "--json"))
    return made["client_id"], made["client_secret"]


def operate(system: ProcessSystem, *args: str, text: str = "") -> str:
    """What one of the operator's commands printed, beside the running service."""
    done = subprocess.run(
        [str(BIN / "farcall-service"), *args, "--data-dir", str(system.service.data_dir)],
        env=system.commands.env,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_logins_old(system: ProcessSystem, by_s: float) -> None:
    """Everybody proved himself so much longer ago. Tokens that the service remembers are not looked at again."""
    conn = sqlite3.connect(system.service.data_dir / "farcall.db", timeout=30)
    with conn:
        conn.execute("UPDATE session_authentications SET at = at - ?", (by_s,))
    conn.close()


class Browser:
    """One person's browser: keeps cookies, and does on each page what the person would. `logins` counts the passwords
    that it typed, `pages` holds what it was shown.

    Args:
        name: of the person, who has PASSWORD.
        ca_file: of the authority that it trusts; None: those of this machine.
        proxy: the address through which it goes; None: directly.
    """

    def __init__(self, name: str, ca_file: Path | None = None, proxy: str | None = None) -> None:
        self.name = name
        self.logins = 0
        self.pages: list[str] = []
        self._app: pyotp.TOTP | None = None
        trust = True if ca_file is None else ssl.create_default_context(cafile=ca_file)
        self._http = httpx.Client(follow_redirects=True, timeout=60, verify=trust, proxy=proxy)

    def visit(self, url: str, *, decision: str = "allow") -> str:
        """Open a link, log in if that is asked for, say whether the program may, and return the last page.

        Raises:
            AssertionError: a page asks for something else, or the password did not do.
        """
        page = self._http.get(url)
        for _ in range(6):
            self.pages.append(page.text)
            assert page.status_code < 400, page.text
            found = ((form, values) for form in forms_of(page.text) if (values := self._values(form, decision)))
            form, values = next(found, (None, {}))
            if form is None:
                return page.text
            self.logins += "password" in values
            values = {**form.fields, **values}
            page = self._http.request(form.method.upper(), urljoin(str(page.url), form.action), data=values)
        raise AssertionError(f"{self.name} goes round in circles: {page.url}")

    def add_second_factor(self, url: str) -> None:
        """Set up an app that shows digits, at the service's own pages. The person has to be logged in, and lately."""
        page = self._http.get(f"{url}/account/totp")
        secret = page.text.partition('id="secret">')[2].partition("<")[0]
        app = pyotp.TOTP(secret.replace(" ", ""))
        form = next(each for each in forms_of(page.text) if each.action == "/account/totp/confirm")
        answers = {"password": PASSWORD, "code": app.now()}
        page = self._http.post(f"{url}{form.action}", data={**form.fields, **answers})
        assert "recovery" in page.text, page.text
        self._app = app

    def _values(self, form: Form, decision: str) -> dict[str, str]:
        if form.action == "/login/totp" and self._app is not None:
            return {
                "code": self._app.at(int(time.time()) + self._app.interval)
            }  # each counts once: not that of the set-up
        if "password" in form.fields:
            return {"username": self.name, "password": PASSWORD}
        return {"decision": decision} if "/oauth2/authorize" in form.action or "/device" in form.action else {}
