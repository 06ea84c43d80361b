"""Group commit, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from farcall.service.db.engine import Database, make_engine
from farcall.service.db.migrations import migrate
from farcall.service.db.sql import next_numbers, upsert
from farcall.service.db.tables import settings
from farcall.wire.errors import Conflict, ServiceUnavailable


def with_database(url: str | Path, story: Callable[[Database], Awaitable[None]]) -> None:
    """A store at a URL, or on SQLite in a directory."""
    if isinstance(url, Path):
        url = f"sqlite:///{url / 'a.db'}"
    engine = make_engine(url)
    migrate(engine)
    engine.dispose()

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


class Gate:
    """Holds the writing thread up, so that what follows gathers into one transaction."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, conn: Connection) -> None:
        self.entered.set()
        assert self.open.wait(30)


async def gathered(db: Database, *units: Any) -> list[Any]:
    """Results or errors of units that run in one transaction."""
    gate = Gate()
    held = asyncio.ensure_future(db.write(gate))
    await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait)
    running = [asyncio.ensure_future(unit) for unit in units]
    await asyncio.sleep(0)  # each has queued its unit
    gate.open.set()
    await held
    return await asyncio.gather(*running, return_exceptions=True)


def test_what_was_written_is_there_when_write_returns(store_url: str) -> None:
    async def story(db: Database) -> None:
        assert await db.write(put, "a") == "a"
        assert await db.read(keys) == ["a"]
        with make_engine(store_url).connect() as other:
            assert keys(other) == ["a"]

    with_database(store_url, story)


def test_units_that_gather_share_one_transaction(store_url: str) -> None:
    commits: list[int] = []

    async def story(db: Database) -> None:
        from sqlalchemy import event

        event.listen(db._engine, "commit", lambda _conn: commits.append(1))
        await gathered(db, *(db.write(put, f"k{number}") for number in range(50)))
        assert len(await db.read(keys)) == 50

    with_database(store_url, story)
    assert len(commits) <= 4  # the gate, the fifty, and the reads


def test_a_refusal_harms_nobody_else(store_url: str) -> None:
    def refuse(conn: Connection) -> None:
        raise Conflict("no")

    async def story(db: Database) -> None:
        first, refused, last = await gathered(db, db.write(put, "a"), db.write(refuse), db.write(put, "b"))
        assert (first, last) == ("a", "b")
        assert isinstance(refused, Conflict)
        assert await db.read(keys) == ["a", "b"]

    with_database(store_url, story)


def test_a_fault_undoes_its_own_unit_only(store_url: str) -> None:
    def fail(conn: Connection) -> None:
        put(conn, "half")
        raise RuntimeError("oops")

    async def story(db: Database) -> None:
        first, failed, last = await gathered(db, db.write(put, "a"), db.write(fail), db.write(put, "b"))
        assert (first, last) == ("a", "b")
        assert isinstance(failed, RuntimeError)
        assert await db.read(keys) == ["a", "b"]

    with_database(store_url, story)


def test_a_violated_constraint_is_a_fault_like_others(store_url: str) -> None:
    async def story(db: Database) -> None:
        answers = await gathered(db, db.write(put, "a"), db.write(put, "a"), db.write(put, "b"))
        assert answers[0] == "a"
        assert isinstance(answers[1], Exception)
        assert await db.read(keys) == ["a", "b"]

    with_database(store_url, story)


def test_a_unit_with_a_savepoint_may_refuse_after_it_has_written(store_url: str) -> None:
    def late(conn: Connection) -> None:
        put(conn, "half")
        raise Conflict("too late")

    async def story(db: Database) -> None:
        _, refused = await gathered(db, db.write(put, "a"), db.write(late, savepoint=True))
        assert isinstance(refused, Conflict)
        assert await db.read(keys) == ["a"]

    with_database(store_url, story)


def test_what_follows_a_commit_is_told_in_its_order_and_before_the_answer(store_url: str) -> None:
    told: list[str] = []

    async def story(db: Database) -> None:
        async def one(key: str) -> None:
            await db.write(put, key, then=told.append)
            assert key in told

        expected = [f"k{number:02}" for number in range(30)]
        await gathered(db, *(one(key) for key in expected))
        assert told == expected

    with_database(store_url, story)


def test_what_follows_is_told_even_if_the_caller_has_gone(store_url: str) -> None:
    told: list[str] = []

    async def story(db: Database) -> None:
        gate = Gate()
        held = asyncio.ensure_future(db.write(gate))
        caller = asyncio.ensure_future(db.write(put, "a", then=told.append))
        await asyncio.sleep(0)
        caller.cancel()
        gate.open.set()
        await held
        await db.write(put, "b")
        assert told == ["a"]

    with_database(store_url, story)


def test_closing_finishes_what_was_accepted(store_url: str) -> None:
    async def story(db: Database) -> None:
        running = [asyncio.ensure_future(db.write(put, f"k{number}")) for number in range(20)]
        await asyncio.sleep(0)
        await db.close()
        assert len(await asyncio.gather(*running)) == 20
        with pytest.raises(ServiceUnavailable):
            await db.write(put, "late")

    with_database(store_url, story)


def test_a_transaction_that_cannot_be_committed_is_told_to_all(tmp_path: Path) -> None:
    async def story(db: Database) -> None:
        with create_engine(f"sqlite:///{tmp_path / 'a.db'}", isolation_level="AUTOCOMMIT").connect() as other:
            await db.write(lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout = 0").close())
            other.execute(text("BEGIN EXCLUSIVE"))
            with pytest.raises(ServiceUnavailable, match="locked"):
                await db.write(put, "a")
            other.execute(text("ROLLBACK"))
        await db.write(put, "b")
        assert await db.read(keys) == ["b"]

    with_database(tmp_path, story)


def test_numbers_are_given_out_once_and_in_order(store_url: str) -> None:
    async def story(db: Database) -> None:
        answers = await gathered(db, *(db.write(next_numbers, "tasks", 3) for _ in range(10)))
        assert answers == list(range(1, 31, 3))

    with_database(store_url, story)


def test_upsert_inserts_then_updates(store_url: str) -> None:
    async def story(db: Database) -> None:
        for value in ("1", "2"):
            await db.write(upsert, settings, {"key": "k"}, {"value": value})
        rows = await db.read(lambda conn: [tuple(row) for row in conn.execute(settings.select())])
        assert ("k", "2") in rows

    with_database(store_url, story)


def test_every_connection_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    def pragmas(conn: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    async def story(db: Database) -> None:
        full = 2
        assert await db.write(pragmas) == ["wal", full, 1]
        assert await db.read(pragmas) == ["wal", full, 1]

    with_database(tmp_path, story)


DISK_FULL = """
import asyncio, logging, os, resource, signal, sys
from sqlalchemy import text
from farcall.service.db.engine import Database
from farcall.wire.errors import ServiceUnavailable

logging.disable(logging.CRITICAL)

def fill(conn): conn.execute(text("insert into t values (zeroblob(30000))"))

async def main():
    db = Database("sqlite:///" + sys.argv[1])
    await db.write(lambda conn: conn.execute(text("create table t(a)")) and None)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
    refused = 0
    for _ in range(4):
        try:
            await db.write(fill)
        except ServiceUnavailable:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await db.write(fill)
    await db.write(fill)
    print("refused" if refused else "never full")
    await db.close()

asyncio.run(main())
"""


def test_a_disk_that_was_full_is_written_again_when_there_is_room(tmp_path: Path) -> None:
    # A process of its own: the limit on the size of files stands in for the disk.
    command = [sys.executable, "-c", DISK_FULL, str(tmp_path / "x.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
