"""The released packages of the other ecosystem as a person's: they print a link, the person logs in with a browser and
copies the code that the last page shows. And again when a policy asks for a login of its own.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from web_person import Browser, add_person, make_logins_old, operate

from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system
from official import FAMILY, OfficialSide, answers_of, official_python, programs, value_of

THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n"
TWELVE = [[2 * n for n in range(12)], 4.5]
_LINK = re.compile(r"^(http\S+/v2/oauth2/authorize\?\S+)", re.MULTILINE)
_QUESTION = "Authorization Code here:"


@dataclass
class Said:
    """What a command wrote to its terminal, and what the links asked for that it showed."""

    text: str = ""
    status: int = -1
    logins: list[dict[str, list[str]]] = field(default_factory=list)

    @property
    def answers(self) -> list[dict[str, Any]]:
        plain = self.text.replace("\r\n", "\n")
        return answers_of(subprocess.CompletedProcess((), self.status, plain, ""))


class Person(OfficialSide):
    """The packages as a person's, who has a terminal and a browser."""

    def __init__(self, root: Path, system: ProcessSystem, name: str) -> None:
        super().__init__(root, system.service.port, None)
        self.browser = Browser(name, proxy=self.env["HTTP_PROXY"])

    def run(self, *command: str) -> Said:
        """Run a command of the packages in a terminal, and log in whenever it wants that."""
        outer, inner = pty.openpty()
        process = subprocess.Popen(
            [str(self.python.parent / command[0]), *command[1:]],
            env=self.env,
            cwd=self.root,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        said, seen = Said(), 0
        while data := _read(outer):
            said.text += data
            if _QUESTION in said.text[seen:]:
                (link,) = _LINK.findall(said.text[seen:].replace("\r", ""))
                seen = len(said.text)
                said.logins.append(parse_qs(urlsplit(link).query))
                os.write(outer, self._code(link).encode() + b"\n")
        os.close(outer)
        said.status = process.wait(60)
        return said

    def run_programs(self, *calls: tuple[str, dict[str, Any]]) -> Said:
        """Run some of `programs.py` in one process."""
        return self.run("python", *programs(FAMILY, calls))

    def _code(self, link: str) -> str:
        return unescape(self.browser.visit(link).partition('id="code">')[2].partition("<")[0])


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # nobody holds the other side any more
        return ""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    """A service whose access tokens count for so short that the packages renew them before every request."""
    official_python()
    with process_system(tmp_path_factory.mktemp("official-login"), {"FARCALL_ACCESS_TOKEN_S": "30"}) as system:
        for name in ("ada", "bob"):
            add_person(system, name)
        yield system


@pytest.fixture
def ada(system: ProcessSystem, tmp_path: Path) -> Person:
    return Person(tmp_path / "ada", system, "ada")


def shared_endpoint(system: ProcessSystem, name: str, *policy: str) -> EndpointProcess:
    """An endpoint of the operator's that ada and bob may use, with a policy of its own if `policy` has options."""
    config = THREADS
    if policy:
        made = json.loads(operate(system, "policy", "create", name, *policy, "--json"))
        config += f"authentication_policy: {made['id']}\n"
    endpoint = system.endpoint(name, config)
    for person in ("ada@local", "bob@local"):
        endpoint.command("share", name, "--with", person)
    return endpoint


@pytest.fixture(scope="module")
def plain(system: ProcessSystem) -> EndpointProcess:
    return shared_endpoint(system, "plain")


@pytest.fixture(scope="module")
def fresh(system: ProcessSystem) -> EndpointProcess:
    """It wants a login of the last ten minutes."""
    return shared_endpoint(system, "fresh", "--auth-timeout", "600")


@pytest.fixture(scope="module")
def twofold(system: ProcessSystem) -> EndpointProcess:
    """It wants a second factor."""
    return shared_endpoint(system, "twofold", "--mfa-required")


def test_an_sdk_asks_for_a_login_once_and_runs_tasks(ada: Person, plain: EndpointProcess) -> None:
    said = ada.run_programs(("submit", {"endpoint": plain.id}))
    (answer,) = said.answers
    assert value_of(answer) == TWELVE
    assert (len(said.logins), ada.browser.logins) == (1, 1)
    (link,) = said.logins
    assert link["redirect_uri"] == ["http://localhost:5000/v2/web/auth-code"]
    again = ada.run_programs(("submit", {"endpoint": plain.id}))
    assert value_of(again.answers[0]) == TWELVE
    assert again.logins == []


def test_the_commands_of_the_released_endpoint_log_in_and_out(ada: Person) -> None:
    program = "globus-compute-endpoint"
    said = ada.run(program, "login")
    assert (said.status, len(said.logins)) == (0, 1), said.text
    assert "ada@local" in ada.run(program, "whoami").text
    assert "Already logged in" in ada.run(program, "login").text
    assert len(ada.run(program, "login", "--force").logins) == 1
    assert "Logout succeeded" in ada.run(program, "logout").text
    said = ada.run(program, "whoami")
    assert said.status != 0
    assert "log in again" in said.text


@pytest.mark.parametrize("name", ["submit", "client_calls"])
def test_a_login_that_is_too_old_for_a_policy_is_made_anew_and_the_call_goes_on(
    system: ProcessSystem, ada: Person, fresh: EndpointProcess, name: str
) -> None:
    call = (name, {"endpoint": fresh.id})
    before = value_of(ada.run_programs(call).answers[0])
    make_logins_old(system, 3600)
    logins = ada.browser.logins
    said = ada.run_programs(call)
    assert value_of(said.answers[0]) == before, said.text
    (link,) = said.logins
    assert link["prompt"] == ["login"]
    assert len(link["session_required_policies"]) == 1
    assert ada.browser.logins == logins + 1
    assert any("policy 'fresh'" in unescape(page) for page in ada.browser.pages), "the page says what the SDK does not"


def test_a_policy_that_wants_a_second_factor_is_satisfied_on_the_way(
    system: ProcessSystem, twofold: EndpointProcess, tmp_path: Path
) -> None:
    bob = Person(tmp_path / "bob", system, "bob")
    bob.run("globus-compute-endpoint", "login")
    bob.browser.add_second_factor(system.service.url)
    said = bob.run_programs(("submit", {"endpoint": twofold.id}))
    assert value_of(said.answers[0]) == TWELVE, said.text
    (link,) = said.logins
    assert link["session_required_mfa"] == ["True"]
