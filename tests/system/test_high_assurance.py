"""High assurance with real processes: from the commands that make policy and subscription to the result.

An endpoint that runs tasks itself, and a manager whose user endpoints do; both over TLS, with an authority of the
site's own that no machine knows.
"""

from __future__ import annotations

import json
import os
import re
import select
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest
from one_account import Account, Manager, account_for

from certificates import Authority
from farcall import Client, Executor
from farcall.service.accounts.rules import new_token, token_hash
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, process_system
from farcall.wire.errors import LoginRequired

pytestmark = [pytest.mark.xdist_group("multi-user"), pytest.mark.timeout(180)]

ENGINE = "engine:\n  type: ProcessPoolEngine\n  max_workers: 1\n"
WAIT_S = 60


@by_value
def square(number: int) -> int:
    return number * number


@by_value
def secret() -> str:
    return "-".join(["top", "secret"])  # not to be found in the function itself


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


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_for(tmp_path_factory.mktemp("home")) as found:
        yield found


def protected_manager(system: ProcessSystem, account: Account) -> Manager:
    """Configured, not started. Nothing but its own config.yaml names the authority."""
    manager = Manager(system, account, "vault", {"FARCALL_CA_FILE": str(account.home / "site-ca.pem")})
    ca_file = account.home / "site-ca.pem"
    ca_file.write_bytes(Path(system.commands.env["FARCALL_CA_FILE"]).read_bytes())
    ca_file.chmod(0o644)
    made = system.service.command("subscription", "create", "Hospital", "--high-assurance", "--json").stdout
    manager.command(
        *("configure", "vault", "--multi-user", "--high-assurance", "--auth-timeout", "3600"),
        *("--auth-policy-display-name", "Fresh logins", "--subscription-id", json.loads(made)["id"]),
    )
    del manager.env["FARCALL_CA_FILE"]
    config = (manager.directory / "config.yaml").read_text()
    assert "high_assurance: true" in config
    (manager.directory / "user_config_schema.json").unlink()
    manager.write(
        config__yaml=f"{config}\nca_file: {ca_file}\n",
        user_config_template__yaml__j2=ENGINE,
        user_environment__yaml="PARSL_WORKER_BLOCK_ID: 3\nSLURM_JOB_ID: 4711\n",  # as workers in a batch job have
    )
    return manager


def on_the_stream(client: Client, group_id: str, ca_file: str) -> bytes:
    """What a reader of the group's stream gets first."""
    stream = client.get_result_amqp_url()
    parameters = pika.URLParameters(stream["connection_url"])
    assert parameters.ssl_options is not None, "the stream is not protected"
    parameters.ssl_options = pika.SSLOptions(ssl.create_default_context(cafile=ca_file), "localhost")
    connection = pika.BlockingConnection(parameters)
    try:
        queue = f"{stream['queue_prefix']}{group_id}"
        for method, _, body in connection.channel().consume(queue, inactivity_timeout=WAIT_S):
            assert method is not None, "nothing came"
            return bytes(body)
    finally:
        connection.close()
    raise AssertionError("the stream has ended")


def test_a_task_for_a_user_endpoint_of_high_assurance_is_recorded_by_the_manager_or_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account
) -> None:
    with protected_system(tmp_path, monkeypatch) as system:
        manager = protected_manager(system, account)
        audit_log = manager.directory / "audit.log"
        manager.start()
        try:
            client = Client(token=logged_in(system))
            with pytest.warns(UserWarning, match="90 days after its last task"):
                function_id = client.register_function(secret, ha_endpoint_id=manager.id)
            batch = client.create_batch(user_endpoint_config={}, request_queue=True)
            batch.add(function_id)
            answer = client.batch_run(manager.id, batch)
            (task_id,) = answer["tasks"][function_id]
            announced = on_the_stream(client, answer["task_group_id"], system.commands.env["FARCALL_CA_FILE"])
            assert task_id.encode() in announced
            assert b"top-secret" not in announced
            assert client.get_result(task_id) == "top-secret"
            (row,) = manager.user_endpoints()
            begin, *lines = audit_log.read_text().splitlines()
            when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d\d:\d\d"
            uid = account.uid if account.uid is not None else os.getuid()
            assert re.fullmatch(f"{when} uid={uid} pid={manager.pid} eid={manager.id} SESSION_BEGIN", begin)
            of_task = f"{when} uid={uid} pid={row['pid']} uep={row['id']} fid={function_id} tid={task_id} "
            ways = ["bid= jid= RECEIVED", "bid= jid= EXEC_START", "bid=3 jid=4711 EXEC_END"]
            for line, way in zip(lines, ways, strict=True):
                assert re.fullmatch(of_task + way, line), line

            left = [os.pidfd_open(pid) for pid in (manager.pid, row["pid"])]
            audit_log.rename(manager.directory / "moved.log")
            audit_log.mkdir()
            with Executor(manager.id, client=client, user_endpoint_config={}) as executor:
                unrecorded = executor.submit_to_registered_function(function_id)
                for fd in left:
                    assert select.select([fd], [], [], WAIT_S)[0], "it goes on unrecorded"
                    os.close(fd)
                why = f"The audit log {audit_log} cannot be written (Is a directory), so the endpoint stops"
                assert why in (manager.directory / "endpoint.log").read_text()
                assert why in manager.command("start", "vault", "--detach", status=74).stderr
                waiting = executor.submit_to_registered_function(function_id)
                audit_log.rmdir()
                manager.start()
                assert waiting.result(WAIT_S) == "top-secret"
                unrecorded.exception(WAIT_S)  # it has begun or has not, and ends
        finally:
            manager.stop()
        assert audit_log.read_text().splitlines()[-1].endswith(f"eid={manager.id} SESSION_END")
