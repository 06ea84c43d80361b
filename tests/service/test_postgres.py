"""What only PostgreSQL can do to us: going away, coming back, refusing, and being used by two services."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_world import CODE, PAYLOAD, Rest, ServiceThread
from sqlalchemy import Connection

from farcall.service.db.engine import Database, make_engine
from farcall.service.db.errors import StoreBusy, StoreMisnamed, StoreReadOnly, StoreUnreachable
from farcall.service.db.tables import settings
from farcall.service.db.upkeep import check_store, shown_url, upgrade_sql, upgrade_store
from farcall.wire.errors import InvalidRequest, ServiceUnavailable
from postgres_server import PostgresServer


def with_database(url: str, story: Callable[[Database], Awaitable[None]]) -> None:
    async def whole() -> None:
        db = Database(url)
        try:
            await story(db)
        finally:
            await db.close()

    asyncio.run(whole())


def put(conn: Connection, key: str, value: str = "x") -> str:
    conn.execute(settings.insert().values(key=key, value=value))
    return key


def keys(conn: Connection) -> list[str]:
    return sorted(conn.execute(settings.select().where(settings.c.key != "oldest_code")).scalars().all())


class Proxy:
    """Between a service and its server; can lose the connection at the worst moment.

    Attributes:
        lose_at_commit: "before" loses the next COMMIT itself, "after" the answer to it.
        lost: set when that has happened.
    """

    def __init__(self, port: int) -> None:
        self.lose_at_commit: str | None = None
        self.lost = threading.Event()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.lose_at_commit and b"COMMIT\0" in data:
                    when, self.lose_at_commit = self.lose_at_commit, None
                    if when == "after":
                        self.swallow = True
                        server.sendall(data)
                        assert self.answered.wait(30)
                        self.swallow = False
                    _cut(client)
                    self.lost.set()
                    if when == "before":
                        return  # the server's session stays open: nobody has told it
                else:
                    server.sendall(data)
        _cut(client)
        _cut(server)

    swallow = False
    answered = threading.Event()

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.swallow:
                    self.answered.set()
                else:
                    client.sendall(data)


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    made = postgres.database()
    upgrade_store(made)
    return made


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    made = Proxy(postgres.port)
    made.answered = threading.Event()
    yield made
    made.close()


def through(proxy: Proxy, postgres: PostgresServer, url: str) -> str:
    return url.replace(f":{postgres.port}/", f":{proxy.port}/") + "?sslmode=disable"


# --- Lost sessions


def test_a_restart_of_the_server_is_a_503_while_it_lasts_and_nothing_afterwards(own_postgres: PostgresServer) -> None:
    url = own_postgres.database()
    upgrade_store(url)

    async def story(db: Database) -> None:
        await db.write(put, "a")
        assert await db.read(keys) == ["a"]
        own_postgres.stop("immediate")
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await db.write(put, "lost")
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await db.read(keys)
        own_postgres.start()
        assert await db.read(keys) == ["a"]
        await db.write(put, "b")
        own_postgres.stop("fast")
        own_postgres.start()
        # Nobody was there while it was away, so nobody notices.
        await db.write(put, "c")
        assert await db.read(keys) == ["a", "b", "c"]

    with_database(url, story)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_without_an_answer_is_followed_up_if_it_was_carried_out(
    when: str, proxy: Proxy, postgres: PostgresServer, url: str
) -> None:
    told: list[str] = []

    async def story(db: Database) -> None:
        await db.write(put, "a", then=told.append)
        proxy.lose_at_commit = when
        with pytest.raises(ServiceUnavailable):
            await db.write(put, "b", then=told.append)
        assert proxy.lost.wait(30)
        await db.write(put, "c", then=told.append)
        stored = await db.read(keys)
        assert stored == (["a", "b", "c"] if when == "after" else ["a", "c"])
        assert told == stored, "what follows a commit must be done exactly if it was carried out, and in order"

    with_database(through(proxy, postgres, url), story)


def test_a_commit_without_an_answer_is_followed_up_even_if_nobody_writes_again(
    proxy: Proxy, postgres: PostgresServer, url: str
) -> None:
    async def story(db: Database) -> None:
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await db.write(put, "a")
        proxy.lose_at_commit = "after"
        with pytest.raises(ServiceUnavailable):
            await db.write(put, "b", then=told.set_result)
        assert await asyncio.wait_for(told, 30) == "b"

    with_database(through(proxy, postgres, url), story)


def test_a_session_that_ends_before_the_commit_costs_nobody_anything(postgres: PostgresServer, url: str) -> None:
    import psycopg

    runs: list[int] = []

    def cut_at_first(conn: Connection) -> None:
        put(conn, "a")
        pid = conn.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        runs.append(1)
        if len(runs) == 1:
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
        put(conn, "b")

    async def story(db: Database) -> None:
        await db.write(cut_at_first)
        assert await db.read(keys) == ["a", "b"]

    with_database(url, story)
    assert len(runs) == 2


def test_the_service_answers_503_while_the_server_is_away_and_recovers_by_itself(
    own_postgres: PostgresServer, service_thread: Callable[..., ServiceThread]
) -> None:
    rest = Rest(service_thread(store=own_postgres.database(), token_cache_s=0.0))
    function_id, endpoint_id = rest.function(), rest.endpoint()["endpoint_id"]
    path, document = f"/v3/endpoints/{endpoint_id}/submit", {"tasks": {function_id: [PAYLOAD]}}
    first = rest.ask("POST", path, document)
    own_postgres.stop("immediate")
    for method, where, body in (("POST", path, document), ("GET", f"/v2/tasks/{first['task_group_id']}", None)):
        answer = rest.http.request(method, where, json=body)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert own_postgres.password not in answer.text
    assert rest.http.get("/healthz").status_code == 503
    own_postgres.start()
    rest.ask("POST", path, document)
    task_id = first["tasks"][function_id][0]
    assert rest.ask("GET", f"/v2/tasks/{task_id}")["status"]
    assert rest.http.get("/healthz").status_code == 200


# --- Refusals


def test_two_services_cannot_use_one_database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from farcall.service.db import postgres

    monkeypatch.setattr(postgres, "_LOCK_TIMEOUT", "10ms")

    async def story(db: Database) -> None:
        await db.write(put, "a")
        with pytest.raises(StoreBusy, match="from 127.0.0.1"):
            upgrade_store(url)
        findings = {finding.what: finding for finding in check_store(url)}
        assert "A service uses it" in findings["writer"].text

    with_database(url, story)
    assert upgrade_store(url) is False


def test_a_text_that_the_store_cannot_keep_is_refused_and_harms_nobody_else(url: str) -> None:
    async def story(db: Database) -> None:
        good, nul, long = await asyncio.gather(
            db.write(put, "good"),
            db.write(put, "nul", "a\0b"),
            db.write(put, "long" * 100),
            return_exceptions=True,
        )
        assert good == "good"
        assert isinstance(nul, InvalidRequest)
        assert isinstance(long, InvalidRequest)
        assert await db.read(keys) == ["good"]

    with_database(url, story)


def test_a_nul_in_a_function_is_a_422_on_postgresql(
    postgres: PostgresServer, service_thread: Callable[..., ServiceThread]
) -> None:
    rest = Rest(service_thread(store=postgres.database()))
    rest.ask("POST", "/v3/functions", {"function_name": "f\0", "function_code": CODE}, status=422)


def test_a_commit_is_durable_even_if_the_role_is_set_to_speed(postgres: PostgresServer, url: str) -> None:
    engine = make_engine(f"{url}?options=-csynchronous_commit%3Doff")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


# --- URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:s3cret@db.example:5433/calls", "postgresql://ada@db.example:5433/calls"),
        ("postgres://ada:s3cret@db.example/calls?sslmode=require", "postgresql://ada@db.example/calls"),
        ("postgresql://a,b:1/calls?user=ada&password=s3cret", "postgresql://ada@a,b:1/calls"),
        ("postgresql://ada:s3cret@[::1]:1/calls", "postgresql://ada@[::1]:1/calls"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3cret/x@db.example/calls",
        "postgresql://ada:12/s3cret@db.example/calls",
        "postgresql://ada:s3cret@db.example/calls?nonsense=s3cret",
        "mysql://ada:s3cret@db.example/calls",
    ],
)
def test_a_url_that_cannot_be_understood_is_not_repeated(url: str) -> None:
    with pytest.raises(StoreMisnamed) as caught:
        make_engine(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(check_store(url))


# --- Commands


def command(root: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    whole = {k: v for k, v in os.environ.items() if not k.startswith(("FARCALL_", "PG"))}
    whole |= {"FARCALL_USER_DIR": str(root / "user"), "FARCALL_DATA_DIR": str(root / "data"), "COLUMNS": "200", **env}
    line = [sys.executable, "-m", "farcall.cli.service", *args]
    return subprocess.run(line, env=whole, capture_output=True, text=True, timeout=60)


def findings_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_check_migrate_and_start_lead_an_operator_to_a_running_service(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    store = postgres.database()
    bare, _, _ = store.replace(f":{postgres.password}", "").partition("?")

    refused = command(tmp_path, "check", "--json", "--store", bare)
    assert refused.returncode == 69
    assert "PGPASSFILE" in findings_of(refused)["store"]["remedy"]

    fine = command(tmp_path, "check", "--json", "--store", bare, PGPASSWORD=postgres.password)
    assert fine.returncode == 0, (fine.stdout, fine.stderr)
    assert findings_of(fine)["schema"]["text"] == "There are no tables of Farcall in it yet."

    printed = command(tmp_path, "migrate", "--sql", FARCALL_STORE=store)
    assert "CREATE TABLE tasks" in printed.stdout
    assert upgrade_sql(store) == printed.stdout, "printing must change nothing"
    migrated = command(tmp_path, "migrate", FARCALL_STORE=store)
    assert migrated.stdout == f"{bare} was brought up to date.\n"
    assert command(tmp_path, "migrate", FARCALL_STORE=store).stdout == f"{bare} is up to date.\n"
    assert command(tmp_path, "migrate", "--sql", FARCALL_STORE=store).stdout == ""
    checked = findings_of(command(tmp_path, "check", "--json", FARCALL_STORE=store))
    assert (checked["schema"]["status"], checked["write"]["status"]) == ("ok", "ok")

    started = command(tmp_path, "start", "--detach", "--port", "0", "--amqp-port", "0", FARCALL_STORE=store)
    try:
        assert started.returncode == 0, (started.stdout, started.stderr)
        status = command(tmp_path, "status", "--json")
        shown = json.loads(status.stdout)
        assert shown["store"] == bare
        assert shown["tasks"] == {}
        arguments = Path(f"/proc/{shown['pid']}/cmdline").read_text()
    finally:
        stopped = command(tmp_path, "stop")
    assert stopped.returncode == 0
    kept = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert postgres.password not in started.stdout + started.stderr + status.stdout + arguments + kept
    assert not (tmp_path / "data" / "farcall.db").exists()


def test_what_migrate_prints_makes_the_store(tmp_path: Path, postgres: PostgresServer) -> None:
    import psycopg

    store = postgres.database()
    with psycopg.connect(store) as connection:
        connection.execute(upgrade_sql(store))  # type: ignore[arg-type]
    assert upgrade_store(store) is False


def test_a_password_on_the_command_line_is_refused(tmp_path: Path) -> None:
    for store in ("postgresql://ada:s3cret@db.example/calls", "postgresql://db.example/calls?password=s3cret"):
        done = command(tmp_path, "start", "--store", store)
        assert done.returncode == 64
        assert "FARCALL_STORE" in done.stderr
        assert "s3cret" not in done.stdout + done.stderr


def test_a_store_that_is_not_there_is_one_line_and_an_exit_status(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    store = f"postgresql://ada:s3cret@127.0.0.1:{port}/calls"
    done = command(tmp_path, "start", "--port", "0", "--amqp-port", "0", FARCALL_STORE=store)
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
    assert f"postgresql://ada@127.0.0.1:{port}/calls cannot be used" in done.stderr
    checked = command(tmp_path, "check", FARCALL_STORE=store)
    assert checked.returncode == 69
    assert "Start the server" in checked.stdout
    assert "s3cret" not in done.stderr + checked.stdout + checked.stderr
    with pytest.raises(StoreUnreachable):
        upgrade_store(store)


def test_a_role_that_may_not_write_is_told_what_to_do(postgres: PostgresServer, url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'r'")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    findings = {each.what: each for each in check_store(url.replace(f"farcall:{postgres.password}", "reader:r"))}
    assert findings["write"].status == "failed"
    assert "own the database" in findings["write"].remedy


def test_a_standby_is_refused(postgres: PostgresServer, url: str) -> None:
    # A server in recovery, as far as this session can tell: a function of the same name comes first in its path.
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA fake")
        connection.execute("CREATE FUNCTION fake.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'")
    standby = f"{url}?options=-csearch_path%3Dfake,pg_catalog,public"
    with pytest.raises(StoreReadOnly):
        upgrade_store(standby)
    assert {each.what: each.status for each in check_store(standby)}["primary"] == "failed"
