"""An OpenID Connect provider of the tests' own, on loopback: npm's `oidc-provider`, a certified implementation.

Needs Node.js 20 and npm, whose package is installed once into the user's cache directory. Imported by the
`conftest.py` of the directories beside this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

VERSION = "9.13.3"
OLDEST_NODE = 20
CLIENT = {"client_id": "farcall", "client_secret": "not:so+secret %", "redirect_uris": ["http://127.0.0.1/unused"]}
PEOPLE = (
    {"sub": "u-ada", "password": "ada's", "preferred_username": "ada", "name": "Ada Lovelace",
     "email": "ada@site-a.example", "email_verified": True, "organization": "Site A"},
    {"sub": "u-bob", "password": "bob's", "preferred_username": "bob@site-b.example", "name": "Bob Byte",
     "email": "bob@site-b.example", "email_verified": False, "organization": "Site B"},
    {"sub": "u-nameless", "password": "none", "name": "No Name"},
)  # fmt: skip
"""`sub` is what is typed as the user."""


class OidcServer:
    """One provider with `PEOPLE` and one client, `CLIENT`.

    Args:
        people, client: in place of these.
        claims_at_userinfo_only: the ID token says no more than who.
    """

    def __init__(
        self,
        *,
        people: Sequence[dict[str, Any]] = PEOPLE,
        client: dict[str, Any] = CLIENT,
        claims_at_userinfo_only: bool = False,
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="farcall-oidc-"))
        config = {"people": people, "clients": [client], "claims_at_userinfo_only": claims_at_userinfo_only}
        (self._home / "config.json").write_text(json.dumps(config))
        self.client = client
        self._log = (self._home / "log").open("w+")
        self._process = subprocess.Popen(
            ["node", str(_installed() / "provider.mjs"), str(self._home / "config.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.issuer: str = self._line()["issuer"]

    def tell(self, **command: Any) -> None:
        """`rotate=True`: sign with a new key from now on. `amr`, `acr`: what the next logins claim. `clients`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        self._line()

    def redirect_to(self, *uris: str) -> None:
        """What the client may be redirected to; known to the provider once it runs."""
        self.client = {**self.client, "redirect_uris": list(uris)}
        self.tell(clients=[self.client])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise AssertionError(f"the OpenID Connect provider has ended: {self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Visitor:
    """A browser without a screen: keeps the provider's cookies, fills in its forms, and stops where they lead away."""

    def __init__(self, server: OidcServer) -> None:
        self._server = server
        self._http = httpx.Client(follow_redirects=False)

    def visit(self, url: str, user: str | None = None, *, consent: bool = True) -> str:
        """Go through the login that begins at `url`.

        Args:
            user: who types in a password if asked; None: nobody, which then fails.

        Returns:
            The URL that the provider redirects to in the end.
        """
        answer = self._http.get(url)
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["location"])
                if not target.startswith(self._server.issuer):
                    return target
                answer = self._http.get(target)
                continue
            form = re.search(r'action="([^"]+)"', answer.text)
            assert form, (answer.status_code, answer.text)
            if 'name="login"' in answer.text:
                assert user is not None, "the provider asks for a password"
                password = next(each["password"] for each in PEOPLE if each["sub"] == user)
                fields = {"login": user, "password": password}
            else:
                fields = {"ok": "yes" if consent else "no"}
            answer = self._http.post(urljoin(self._server.issuer, form[1]), data=fields)
        raise AssertionError("the provider asks for ever")

    def close(self) -> None:
        self._http.close()


@contextlib.contextmanager
def oidc_server(**options: Any) -> Iterator[OidcServer]:
    """A provider that runs. Without Node.js and npm the test is skipped; in CI (`CI=true`) it fails."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    server = OidcServer(**options)
    try:
        yield server
    finally:
        server.close()


def why_not() -> str | None:
    """Why no provider can run here; None if one can."""
    if shutil.which("node") is None or (shutil.which("npm") is None and not _package().exists()):
        return "no Node.js with npm here (Debian: apt-get install nodejs npm; as root: scripts/ci-services.sh)"
    major = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.lstrip("v").partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_NODE:
        return f"Node.js {major} is too old; oidc-provider needs {OLDEST_NODE}"
    try:
        _installed()
    except subprocess.CalledProcessError as exc:
        return f"npm cannot install oidc-provider: {exc.stderr[-300:]}"
    return None


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "farcall-tests" / f"oidc-provider-{VERSION}"


def _package() -> Path:
    return _cache() / "node_modules" / "oidc-provider"


def _installed() -> Path:
    """The directory with the package and our program, made if need be; complete or not there at all."""
    cache = _cache()
    if not _package().exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="new-", dir=cache.parent))
        (made / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"oidc-provider@{VERSION}"]
        subprocess.run(command, cwd=made, check=True, capture_output=True, text=True)
        try:
            made.rename(cache)
        except OSError:  # somebody else was quicker
            shutil.rmtree(made)
    program = Path(__file__).with_name("oidc_provider.mjs").read_text()
    if not (cache / "provider.mjs").exists() or (cache / "provider.mjs").read_text() != program:
        fresh = cache / f"provider.{os.getpid()}"
        fresh.write_text(program)
        fresh.replace(cache / "provider.mjs")
    return cache
