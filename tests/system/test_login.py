"""Logins with real processes: the official library as a user and as a program, revocation by a command beside the
service, and what may be found in the log afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pika
import pytest

from farcall.testing.processes import ProcessSystem, process_system
from farcall.wire.auth import COMPUTE_SCOPE, OFFICIAL_CLIENT_ID
from web_browser import Program, WebBrowser, parameters

PASSWORD = "correct horse battery"
GLOBUS_SDK = "globus-sdk>=4.9,<5"
CUT_S = 5
"""What an operator takes away is void everywhere within this."""

OFFICIAL = f"""
import json, os
import globus_sdk

config = globus_sdk.GlobusAppConfig(token_storage="memory", request_refresh_tokens=True)
wanted = {{"funcx_service": ["{COMPUTE_SCOPE}"]}}
secret = os.environ.get("CLIENT_SECRET")
if secret:
    app = globus_sdk.ClientApp(
        "test", client_id=os.environ["CLIENT_ID"], client_secret=secret, scope_requirements=wanted, config=config
    )
else:
    app = globus_sdk.UserApp("test", client_id="{OFFICIAL_CLIENT_ID}", scope_requirements=wanted, config=config)
auth = globus_sdk.AuthClient(app=app)  # asks for scopes of its own
app.login()
info = auth.userinfo().data
authorizer = app.get_authorizer("funcx_service")
header = authorizer.get_authorization_header()
if not secret:
    authorizer.handle_missing_authorization()  # as after a 401: renews by the refresh token
    assert authorizer.get_authorization_header() != header
    header = authorizer.get_authorization_header()
print(json.dumps({{"info": info, "header": header}}), flush=True)
input()
app.logout()
print("logged out", flush=True)
"""


@pytest.fixture(scope="session")
def official_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with the official library, apart from ours."""
    home = tmp_path_factory.mktemp("official")
    python = home / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        commands = [[uv, "venv", "--quiet", home], [uv, "pip", "install", "--quiet", "--python", python, GLOBUS_SDK]]
    else:
        commands = [[sys.executable, "-m", "venv", home], [python, "-m", "pip", "install", "--quiet", GLOBUS_SDK]]
    for command in commands:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            if os.environ.get("CI"):
                pytest.fail(f"globus-sdk cannot be installed: {done.stderr[-500:]}")
            pytest.skip("globus-sdk cannot be installed (no network?)")
    return str(python)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    """A service that logs everything that it ever logs."""
    with process_system(tmp_path_factory.mktemp("login"), {"FARCALL_LOG_LEVEL": "debug"}) as system:
        run_with_input(system, PASSWORD, "user", "add", "ada", "--password-stdin")
        yield system


def run_with_input(system: ProcessSystem, text: str, *args: str) -> str:
    command = [str(Path(sys.executable).parent / "farcall-service"), *args, "--data-dir", str(system.service.data_dir)]
    done = subprocess.run(command, input=text + "\n", env=system.commands.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def operate(system: ProcessSystem, *args: str) -> Any:
    return json.loads(system.service.command(*args, "--json").stdout)


def official(system: ProcessSystem, python: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", OFFICIAL],
        env={**os.environ, "GLOBUS_SDK_SERVICE_URL_AUTH": f"{system.service.url}/", **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def whoami(system: ProcessSystem, authorization: str) -> httpx.Response:
    return httpx.get(f"{system.service.url}/v3/whoami", headers={"authorization": authorization}, trust_env=False)


def last_line(process: subprocess.Popen[str]) -> str:
    text = process.communicate("\n", timeout=60)[0]
    assert process.returncode == 0, text
    return text.strip().splitlines()[-1]


def user_token(system: ProcessSystem) -> dict[str, Any]:
    browser, program = WebBrowser(system.service.url), Program()
    browser.log_in("ada", PASSWORD)
    browser.get(program.link())
    browser.send("/v2/oauth2/authorize", decision="allow")
    form = program.form(parameters(browser.left_to)["code"])
    answer = browser.http.post("/v2/oauth2/token", data=form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_official_library_logs_in_as_a_program(system: ProcessSystem, official_python: str) -> None:
    made = operate(system, "client", "create", "nightly")
    process = official(system, official_python, CLIENT_ID=made["client_id"], CLIENT_SECRET=made["client_secret"])
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert [each["sub"] for each in told["info"]["identity_set"]] == [made["client_id"]]
    assert whoami(system, told["header"]).json()["identity_id"] == made["client_id"]
    assert last_line(process) == "logged out"


def test_the_official_library_logs_a_person_in_by_a_code_that_they_copy(
    system: ProcessSystem, official_python: str
) -> None:
    process = official(system, official_python)
    assert process.stdout is not None
    assert process.stdin is not None
    link = next(line.strip() for line in process.stdout if "/v2/oauth2/authorize?" in line)
    browser = WebBrowser(system.service.url)
    browser.get(link)
    browser.send("/login", username="ada", password=PASSWORD)
    answer = browser.send("/v2/oauth2/authorize", decision="allow")
    process.stdin.write(answer.text.partition('id="code">')[2].partition("<")[0] + "\n")
    process.stdin.flush()
    line = next(line for line in process.stdout if '"info"' in line)
    told = json.loads(line[line.index('{"info"') :])
    assert told["info"]["preferred_username"] == "ada@local"
    assert whoami(system, told["header"]).json()["username"] == "ada@local"
    assert last_line(process) == "logged out"
    assert whoami(system, told["header"]).status_code == 401


@pytest.mark.parametrize(
    "command", [("user", "disable", "ada"), ("user", "reset-password", "ada")], ids=lambda words: words[1]
)
def test_a_command_beside_the_service_cuts_an_open_stream(system: ProcessSystem, command: tuple[str, ...]) -> None:
    bearer = f"Bearer {user_token(system)['access_token']}"
    found = httpx.get(
        f"{system.service.url}/v2/get_amqp_result_connection_url",
        headers={"authorization": bearer},
        trust_env=False,
    ).json()
    connection = pika.BlockingConnection(pika.URLParameters(found["connection_url"]))
    ended = threading.Event()

    def stay() -> None:
        try:
            connection.process_data_events(time_limit=None)  # type: ignore[arg-type]  # None: until it ends
        except pika.exceptions.AMQPError:
            ended.set()

    threading.Thread(target=stay, daemon=True).start()
    system.service.command(*command)
    assert ended.wait(CUT_S)
    assert whoami(system, bearer).status_code == 401
    system.service.command("user", "enable", "ada")
    run_with_input(system, PASSWORD, "user", "reset-password", "ada", "--password-stdin")


def test_nothing_secret_is_in_the_log(system: ProcessSystem) -> None:
    made = operate(system, "client", "create", "secretive")
    given = user_token(system)
    http = httpx.Client(base_url=system.service.url, trust_env=False)
    again = http.post(
        "/v2/oauth2/token",
        data={"grant_type": "refresh_token", "refresh_token": given["refresh_token"], "client_id": Program().client_id},
    ).json()
    auth = (made["client_id"], made["client_secret"])
    own = http.post(
        "/v2/oauth2/token", data={"grant_type": "client_credentials", "scope": COMPUTE_SCOPE}, auth=auth
    ).json()
    http.post("/v2/oauth2/token/introspect", data={"token": again["access_token"]}, auth=auth)
    http.post("/v2/oauth2/token/revoke", data={"token": again["refresh_token"], "client_id": Program().client_id})
    secrets = [PASSWORD, made["client_secret"], own["access_token"]]
    secrets += [document[name] for document in (given, again) for name in ("access_token", "refresh_token")]
    log = system.service.log.read_text()
    assert log
    assert [secret for secret in secrets if secret in log] == []
    told = system.service.command("audit", "export").stdout
    assert "oauth.grant" in told
    assert [secret for secret in secrets if secret in told] == []
