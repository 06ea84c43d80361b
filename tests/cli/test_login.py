"""farcall login, logout, whoami, accounts, switch; and the same of farcall-endpoint."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from oauth_server import OAuthServer

from farcall.cli.login import qr_code

BIN = Path(sys.executable).parent
WAIT_S = 60
DEMAND = {
    "code": "FORBIDDEN",
    "message": "Policy 'fresh' wants a login of the last minute.",
    "authorization_parameters": {"session_required_policies": ["p-1"], "prompt": "login"},
}


def test_a_login_with_a_code_is_kept_for_its_user_alone(auth, store, farcall) -> None:
    done = farcall("login", auth.url, "--device")
    assert f"{auth.url}/device?user_code=WDJB-MJHT" in done.output
    assert f"Logged in as ada@here at {auth.url}, which is the default" in done.output
    login = store.get(auth.url)
    assert login.refresh_token
    assert login.access_token not in done.output
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert "ada@here (id-of-ada@here) at" in farcall("whoami").output
    assert "Already logged in as ada@here" in farcall("login", auth.url).output


def test_where_nobody_is_there_is_no_login_to_wait_for(auth, farcall) -> None:
    done = farcall("login", auth.url, status=77)
    assert "No token was given, and nobody is here to log in" in done.output
    assert "--device" in done.output
    auth.has_oauth = False
    assert "No token was given: paste one" in farcall("login", auth.url, status=77).output
    assert "offers no login" in farcall("login", auth.url, "--device", status=69).output


def test_a_token_is_still_taken_from_a_pipe_and_the_environment(auth, store, farcall, monkeypatch) -> None:
    token = auth.log_in("eve@here")["access_token"]
    farcall("login", auth.url, text=token + "\n")
    assert store.get(auth.url).username == "eve@here"
    farcall("login", auth.url, "--token", text="wrong\n", status=77)
    monkeypatch.setenv("FARCALL_TOKEN", auth.log_in("bob@here")["access_token"])
    farcall("login", auth.url, "--token")
    assert store.get(auth.url).username == "bob@here"


def test_several_people_and_services_are_kept_side_by_side(auth, store, farcall, monkeypatch) -> None:
    farcall("login", auth.url, "--device")
    auth.username = "bob@here"
    done = farcall("login", auth.url, "--device", "--force")
    assert "Also kept: ada@here" in done.output
    assert auth.device_requests[-1]["prompt"] == "login"
    assert farcall("whoami").output.startswith("bob@here")
    rows = json.loads(farcall("accounts", "--json").output)
    assert [(row["username"], row["is_used"]) for row in rows] == [("bob@here", True), ("ada@here", False)]
    assert not any("token" in name for row in rows for name in row)
    assert "ada@here" in farcall("accounts").output
    assert "as ada@here" in farcall("switch", "ada").output
    assert farcall("whoami").output.startswith("ada@here")
    monkeypatch.setenv("FARCALL_ACCOUNT", "bob@here")
    assert farcall("whoami").output.startswith("bob@here")
    assert "FARCALL_ACCOUNT is set" in farcall("switch", "ada@here").stderr
    monkeypatch.delenv("FARCALL_ACCOUNT")
    assert "no login is kept of 'eve'; there are: ada@here, bob@here" in farcall("switch", "eve", status=65).output
    farcall("switch", "http://localhost:1")
    assert store.default_url == "http://localhost:1"
    farcall("switch", auth.url, "bob@here")
    assert (store.default_url, store.get(auth.url).username) == (auth.url, "bob@here")


def test_logout_revokes_and_forgets_one_login_and_keeps_the_others(auth, store, farcall) -> None:
    farcall("login", auth.url, "--device")
    auth.username = "bob@here"
    farcall("login", auth.url, "--device", "--force")
    login = store.get(auth.url)
    done = farcall("logout")
    assert "Still kept: ada@here" in done.output
    assert {login.access_token, login.refresh_token} < set(auth.revoked)
    assert len(auth.revoked) == 4
    assert "There is no token for the service" in farcall("whoami", status=77).output, "nobody slips in"
    farcall("switch", "ada@here")
    assert farcall("whoami").output.startswith("ada@here")
    assert "Logged out ada@here" in farcall("logout", "--account", "ada").output
    assert store.accounts() == []
    assert "No token" in farcall("logout", auth.url).output


def test_a_logout_that_cannot_revoke_says_so_and_forgets(auth, store, farcall, monkeypatch) -> None:
    farcall("login", auth.url, "--device")
    auth.has_oauth = False
    done = farcall("logout", status=69)
    assert "forgotten here, but could not be revoked" in done.output
    assert store.accounts() == []


def test_linked_identities_are_shown(auth, farcall) -> None:
    auth.linked = ("ada@uni.example",)
    farcall("login", auth.url, "--device")
    assert "ada@uni.example" in farcall("whoami", "--linked-identities").output
    document = json.loads(farcall("whoami", "--linked-identities", "--json").output)
    assert [each["username"] for each in document["linked_identities"]] == ["ada@here", "ada@uni.example"]
    assert "linked_identities" not in json.loads(farcall("whoami", "--json").output)


def test_half_a_client_in_the_environment_is_said(auth, farcall, monkeypatch) -> None:
    monkeypatch.setenv("FARCALL_SERVICE_URL", auth.url)
    monkeypatch.setenv("FARCALL_CLIENT_SECRET", "hush")
    done = farcall("whoami", status=65)
    assert "FARCALL_CLIENT_ID is not" in done.output
    assert "hush" not in done.output
    monkeypatch.setenv("FARCALL_CLIENT_ID", "robot")
    auth.clients["robot"] = "hush"
    assert farcall("whoami").output.startswith("robot (")
    monkeypatch.setenv("FARCALL_CLIENT_ID", "other")
    assert "does not accept the client other" in farcall("whoami", status=77).output


def test_a_demand_is_told_with_the_command_that_meets_it(auth, farcall) -> None:
    farcall("login", auth.url, "--device")
    auth.refuses = lambda path, username: (
        None if any(each.get("session_required_policies") for each in auth.device_requests) else DEMAND
    )
    done = farcall("whoami", status=77)
    (line,) = re.findall(r"farcall login .*", done.output)
    assert line == f"farcall login --session-policy p-1 --force {auth.url}"
    farcall(*line.split()[1:], "--device")
    assert auth.device_requests[-1]["session_required_policies"] == "p-1"
    assert farcall("whoami").output.startswith("ada@here")


def test_an_endpoint_has_the_same_login(auth, store, farcall_endpoint, monkeypatch) -> None:
    assert "Logged in as ada@here" in farcall_endpoint("login", auth.url, "--device").output
    assert farcall_endpoint("whoami").output.startswith("ada@here (id-of-ada@here) at")
    document = json.loads(farcall_endpoint("whoami", "--linked-identities", "--json").output)
    assert [each["id"] for each in document["linked_identities"]] == ["id-of-ada@here"]
    assert "Logged out" in farcall_endpoint("logout").output
    assert len(auth.revoked) == 4
    monkeypatch.setenv("FARCALL_SERVICE_URL", auth.url)
    assert "farcall login" in farcall_endpoint("whoami", status=77).output


def test_a_link_is_also_a_picture_where_the_library_is(monkeypatch) -> None:
    pytest.importorskip("segno")
    assert qr_code("https://farcall.example.org/device?user_code=WDJB-MJHT").count("\n") > 10
    monkeypatch.setitem(sys.modules, "segno", None)
    assert qr_code("https://farcall.example.org") == ""


# --- real processes


def started(*args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / args[0]), *args[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        **options,
    )


def shown_link(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return next(line.strip() for line in process.stdout if line.strip().startswith("http"))


def test_the_browser_of_this_machine_comes_back_to_the_waiting_command(auth: OAuthServer, store) -> None:
    process = started("farcall", "login", auth.url, "--no-browser")
    page = httpx.get(shown_link(process), follow_redirects=True)
    assert "You are logged in" in page.text
    assert process.wait(WAIT_S) == 0
    assert store.get(auth.url).username == "ada@here"


@pytest.mark.parametrize("how", ["--no-browser", "--device"])
def test_ctrl_c_ends_a_login_without_a_fuss(auth: OAuthServer, store, how: str) -> None:
    auth.device_answers = ["authorization_pending"] * 10_000
    process = started("farcall", "login", auth.url, how)
    shown_link(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "Interrupted." in output
    assert "Traceback" not in output
    assert store.accounts() == []


def test_at_a_terminal_a_demand_leads_to_a_login_and_the_command_goes_on(auth: OAuthServer, farcall) -> None:
    farcall("login", auth.url, "--device")
    auth.refuses = lambda path, username: (
        None if any(each.get("session_required_policies") for each in auth.device_requests) else DEMAND
    )
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [str(BIN / "farcall"), "whoami"],
        stdin=inner,
        stderr=inner,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SSH_CONNECTION": "far away"},
    )
    os.close(inner)
    output, _ = process.communicate(timeout=WAIT_S)
    said = os.read(outer, 65536).decode()
    os.close(outer)
    assert process.returncode == 0
    assert output.startswith("ada@here")
    assert "wants a login of the last minute" in said
    assert "WDJB-MJHT" in said
