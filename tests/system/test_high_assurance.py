"""High assurance with real processes: from the commands that make policy and subscription to the result."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certificates import Authority
from farcall import Client, Executor
from farcall.service.accounts.rules import new_token, token_hash
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, process_system
from farcall.wire.errors import LoginRequired

ENGINE = "engine:\n  type: ProcessPoolEngine\n  max_workers: 1\n"
WAIT_S = 60


@by_value
def square(number: int) -> int:
    return number * number


@contextmanager
def protected_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessSystem]:
    """A service with TLS, whose authority everybody here trusts."""
    authority = Authority(tmp_path / "ca")
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    cert, key = authority.server()
    env = {"FARCALL_TLS_CERT": str(cert), "FARCALL_TLS_KEY": str(key)}
    with process_system(tmp_path / "system", env) as system:
        monkeypatch.setenv("FARCALL_CA_FILE", str(authority.ca_file))
        system.commands.env["FARCALL_CA_FILE"] = str(authority.ca_file)
        yield system


@contextmanager
def store(system: ProcessSystem) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(system.service.data_dir / "farcall.db", timeout=30)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def logged_in(system: ProcessSystem, age_s: float = 0.0) -> str:
    """A token of the administrator that rests on a login so long ago, as the login pages make them."""
    token, now = new_token(), time.time()
    session = token_hash(token)[:36]
    with store(system) as db:
        (identity,) = db.execute("SELECT id FROM identities WHERE is_admin").fetchone()
        db.execute(
            "INSERT INTO auth_sessions (id, cookie_hash, person_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
            (session, session, identity, now, now + 3600),
        )
        db.execute(
            "INSERT INTO session_authentications (session_id, identity_id, mfa, at) VALUES (?, ?, 0, ?)",
            (session, identity, now - age_s),
        )
        db.execute(
            "INSERT INTO tokens (hash, identity_id, label, created_at, session_id) VALUES (?, ?, 'test', ?, ?)",
            (token_hash(token), identity, now, session),
        )
    return token


def test_a_task_for_high_assurance_from_the_policy_to_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with protected_system(tmp_path, monkeypatch) as system:
        made = system.service.command("subscription", "create", "Hospital", "--high-assurance", "--json").stdout
        subscription = json.loads(made)["id"]
        endpoint = system.endpoint("vault", start=False)
        (endpoint.directory / "config.yaml").unlink()
        said = endpoint.command(
            *("configure", "vault", "--high-assurance", "--auth-timeout", "3600"),
            *("--auth-policy-display-name", "Fresh logins", "--subscription-id", subscription),
        ).stdout
        assert "Authentication policy: " in said
        config = endpoint.directory / "config.yaml"
        text = config.read_text()
        assert "high_assurance: true" in text
        config.write_text(text.split("engine:")[0] + ENGINE)
        endpoint.start()

        plain = Executor(endpoint.id)  # the local login rests on nothing that a policy could look at
        with pytest.raises(LoginRequired, match=r"'Fresh logins'.*log in as"):
            plain.submit(square, 2).result(WAIT_S)
        plain.shutdown(wait=False)

        token = logged_in(system)
        client = Client(token=token)
        with pytest.warns(UserWarning, match="90 days after its last task"):
            function_id = client.register_function(square, ha_endpoint_id=endpoint.id)
        executor = Executor(endpoint.id, client=client)
        future = executor.submit_to_registered_function(function_id, (7,))
        assert future.result(WAIT_S) == 49
        lines = (endpoint.directory / "audit.log").read_text().splitlines()
        states = [line.rsplit(" ", 1)[1] for line in lines if f"tid={future.task_id}" in line]
        assert states == ["RECEIVED", "EXEC_START", "EXEC_END"]
        assert all(f"fid={function_id}" in line for line in lines if "tid=" in line)
        group_id = executor.task_group_id
        executor.shutdown()

        stale = Executor(endpoint.id, client=Client(token=logged_in(system, 7200.0)), task_group_id=group_id)
        (again,) = stale.reload_tasks()
        with pytest.raises(LoginRequired, match=r"Reading results .* 2 hours ago") as caught:
            again.result(WAIT_S)
        assert caught.value.authorization_parameters["prompt"] == "login"
        stale.shutdown(wait=False)

        audit = [json.loads(line) for line in system.service.command("audit", "tail", "--json").stdout.splitlines()]
        told = [(each["action"], each["outcome"]) for each in audit]
        for expected in (
            ("subscription.create", "done"),
            ("policy.create", "done"),
            ("endpoint.register", "done"),
            ("function.register", "done"),
            ("task.submit", "refused"),
            ("task.submit", "done"),
            ("task.read", "refused"),
        ):
            assert expected in told
