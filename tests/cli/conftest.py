"""The commands against a small OAuth2 server (see tests/client/oauth_server.py), in a user directory of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click import Command
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))  # pytest's importlib mode leaves it out

from oauth_server import OAuthServer, oauth_server

from farcall.cli.endpoint import main as endpoint_main
from farcall.cli.user import main as user_main
from farcall.client.tokens import TokenStore


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OAuthServer]:
    for name in [name for name in os.environ if name.startswith("FARCALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    with oauth_server() as server:
        yield server


@pytest.fixture
def store(auth: OAuthServer) -> TokenStore:
    return TokenStore()


def _runner(command: Command) -> Callable[..., Result]:
    def run(*args: str, text: str = "", status: int = 0) -> Result:
        done = CliRunner().invoke(command, args, input=text)
        assert done.exit_code == status, f"{done.exit_code}, not {status}: {done.output}"
        return done

    return run


@pytest.fixture
def farcall() -> Callable[..., Result]:
    return _runner(user_main)


@pytest.fixture
def farcall_endpoint() -> Callable[..., Result]:
    return _runner(endpoint_main)
