"""One PostgreSQL used by several processes: turns, announcements, and the sharing of endpoints among relays."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection
from test_postgres import Proxy, keys, put, through

from farcall.service.cluster.plan import SLOTS, Pace
from farcall.service.cluster.shares import RelayShares
from farcall.service.cluster.signals import SharesDoubted, TasksAdded, pack, unpack
from farcall.service.db import postgres as postgres_module
from farcall.service.db.engine import Database
from farcall.service.db.errors import StoreBusy
from farcall.service.db.listener import Listener
from farcall.service.db.sql import next_numbers
from farcall.service.db.upkeep import join_store, upgrade_store
from farcall.wire.errors import ServiceUnavailable
from postgres_server import PostgresServer

ALL = frozenset(range(SLOTS))
QUICK = Pace(beat_s=0.2, fence_s=0.8, gone_s=1.0)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    made = postgres.database()
    join_store(made)
    return made


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    made = Proxy(postgres.port)
    made.answered = threading.Event()
    yield made
    made.close()


def shared(url: str, name: str = "me") -> Database:
    return Database(url, pack=lambda signals: pack(signals, name))


class Ears:
    """Hears what is announced; `expect` waits."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self._changed = asyncio.Event()

    def on_joined(self) -> None:
        self._add("joined")

    def on_heard(self, texts: Sequence[str]) -> None:
        for text in texts:
            sender, signals = unpack(text)
            for each in signals:
                self._add(f"{sender}: {each}")

    def on_left(self) -> None:
        self._add("left")

    async def expect(self, count: int) -> list[str]:
        while len(self.happened) < count:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 60)
        return self.happened

    def _add(self, what: str) -> None:
        self.happened.append(what)
        self._changed.set()


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Listener, Ears]]:
    ears = Ears()
    listener = Listener(url, ears)
    listener.start()
    try:
        await ears.expect(1)
        yield listener, ears
    finally:
        await listener.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # a coroutine function


def number(conn: Connection) -> int:
    return next_numbers(conn, "tasks", 1)


# --- Turns


def test_numbers_are_in_the_order_of_the_commits_of_all_processes(url: str) -> None:
    async def story() -> None:
        async with listening(url) as (_, ears):
            databases = [shared(url, "a"), shared(url, "b"), shared(url, "c")]
            writes = [
                db.write(number, announce=lambda first: [TasksAdded(str(first), 1)])
                for _ in range(100)
                for db in databases
            ]
            numbers = await asyncio.gather(*writes)
            assert sorted(numbers) == list(range(1, 301))
            heard = await ears.expect(301)
            told = [int(text.split("endpoint_id='")[1].split("'")[0]) for text in heard[1:]]
            assert told == list(range(1, 301))
            assert {text[0] for text in heard[1:]} == {"a", "b", "c"}
            for db in databases:
                await db.close()

    run(story)


def test_who_shares_and_who_does_not_exclude_each_other(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "_LOCK_TIMEOUT", "10ms")

    async def story() -> None:
        sharing, alone = shared(url), Database(url)
        await sharing.write(put, "a")
        with pytest.raises(StoreBusy, match="share"):
            upgrade_store(url)
        with pytest.raises(ServiceUnavailable):
            await alone.write(put, "b")
        assert join_store(url) is False
        await sharing.close()
        await alone.write(put, "b")
        with pytest.raises(StoreBusy):
            join_store(url)
        await alone.close()

    run(story)


STOPS_IN_ITS_TURN = """
import asyncio, signal, sys
from farcall.service.db import postgres
postgres._STALLED_S = 3
from farcall.service.db.engine import Database
from farcall.service.db.tables import settings
stopped = False
def stop_once(conn):
    global stopped
    conn.execute(settings.insert().values(key="of the stopped one", value=""))
    if not stopped:
        stopped = True
        print("in its turn", flush=True)
        signal.raise_signal(signal.SIGSTOP)
async def main():
    db = Database(sys.argv[1], pack=lambda signals: [])
    await db.write(stop_once)
    print("written", flush=True)
    await db.close()
asyncio.run(main())
"""


@contextlib.contextmanager
def child(program: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", program, *args], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_that_is_stopped_in_its_turn_loses_it_and_writes_again_when_it_goes_on(url: str) -> None:
    async def story() -> None:
        with child(STOPS_IN_ITS_TURN, url) as stopped:
            assert said(stopped) == "in its turn"
            db = shared(url)
            await db.write(put, "a")
            assert await db.read(keys) == ["a"]
            stopped.send_signal(signal.SIGCONT)
            assert said(stopped) == "written"
            assert await db.read(keys) == ["a", "of the stopped one"]
            await db.close()

    run(story)


def test_a_turn_is_taken_from_who_stalls_while_it_sends_rows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "_STALLED_S", 1)

    async def story() -> None:
        db = shared(url)
        with psycopg.connect(url) as stalled, stalled.cursor() as cursor:
            cursor.execute(postgres_module._TAKE_TURN)  # type: ignore[arg-type]
            with contextlib.suppress(psycopg.Error), cursor.copy("COPY settings FROM STDIN"):
                with pytest.raises(ServiceUnavailable):
                    await db.write(put, "a")
                await db.write(put, "b")
        assert await db.read(keys) == ["b"]
        await db.close()

    run(story)


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_commit_announces_is_heard_exactly_if_it_was_carried_out(
    when: str, proxy: Proxy, postgres: PostgresServer, url: str
) -> None:
    told: list[str] = []

    def announce(key: str) -> list[TasksAdded]:
        return [TasksAdded(key, 1)]

    async def story() -> None:
        async with listening(url) as (_, ears):
            db, other = shared(through(proxy, postgres, url)), shared(url, "other")
            await db.write(put, "a", then=told.append, announce=announce)
            proxy.lose_at_commit = when
            with pytest.raises(ServiceUnavailable):
                await db.write(put, "b", then=told.append, announce=announce)
            await other.write(put, "c", announce=announce)
            await db.write(put, "d", then=told.append, announce=announce)
            stored = await db.read(keys)
            assert stored == (["a", "b", "c", "d"] if when == "after" else ["a", "c", "d"])
            heard = await ears.expect(1 + len(stored))
            assert [text.split("endpoint_id='")[1][0] for text in heard[1:]] == stored
            assert told == [key for key in stored if key != "c"]
            await db.close()
            await other.close()

    run(story)


def test_a_unit_that_is_refused_announces_nothing(url: str) -> None:
    def refuse(conn: Connection) -> None:
        raise ServiceUnavailable("not now")

    async def story() -> None:
        async with listening(url) as (_, ears):
            db = shared(url)
            refused, _ = await asyncio.gather(
                db.write(refuse, announce=lambda _: [TasksAdded("refused", 1)]),
                db.write(put, "a", announce=lambda key: [TasksAdded(key, 1)]),
                return_exceptions=True,
            )
            assert isinstance(refused, ServiceUnavailable)
            await db.write(put, "b", announce=lambda key: [TasksAdded(key, 1)])
            assert len(await ears.expect(3)) == 3
            assert not any("refused" in text for text in ears.happened)
            await db.close()

    run(story)


# --- Listening


def test_a_listener_comes_back_after_the_server_and_says_so(own_postgres: PostgresServer) -> None:
    url = own_postgres.database()
    join_store(url)

    async def story() -> None:
        async with listening(url) as (listener, ears):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, own_postgres.stop)
            assert await ears.expect(2) == ["joined", "left"]
            with pytest.raises(ServiceUnavailable):
                await listener.run(lambda conn: None)
            await loop.run_in_executor(None, own_postgres.start)
            assert await ears.expect(3) == ["joined", "left", "joined"]
            assert await listener.run(lambda conn: conn.exec_driver_sql("SELECT 1").scalar()) == 1
            db = shared(url)
            await db.write(put, "a", announce=lambda key: [TasksAdded(key, 1)])
            assert "endpoint_id='a'" in (await ears.expect(4))[3]
            await db.close()

    run(story)


def test_a_statement_that_fails_harms_the_listener_not(url: str) -> None:
    async def story() -> None:
        async with listening(url) as (listener, _):
            with pytest.raises(Exception, match="nonsense"):
                await listener.run(lambda conn: conn.exec_driver_sql("SELECT nonsense"))
            assert await listener.run(lambda conn: conn.exec_driver_sql("SELECT 1").scalar()) == 1

    run(story)


# --- Shares


class Holder:
    """What one relay has, as it was told."""

    def __init__(self) -> None:
        self.slots: frozenset[int] = frozenset()
        self.gains: list[frozenset[int]] = []
        self._changed = asyncio.Event()

    def on_gained(self, slots: frozenset[int]) -> None:
        self.slots |= slots
        self.gains.append(slots)
        self._changed.set()

    def on_lost(self, slots: frozenset[int]) -> None:
        assert slots <= self.slots
        self.slots -= slots
        self._changed.set()

    async def until(self, predicate: Callable[[], bool]) -> None:
        while not predicate():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 60)


class Member:
    """A relay's share and its listener; `stop` is orderly."""

    def __init__(self, url: str, name: str, pace: Pace = QUICK) -> None:
        self.name = name
        self.holder = Holder()
        self.listener = Listener(url, self)
        self.shares = RelayShares(self.listener, name, "here", self.holder, pace=pace)
        self.left = 0
        self.listener.start()

    def on_joined(self) -> None:
        self.shares.on_joined()

    def on_left(self) -> None:
        self.left += 1
        self.shares.on_left()

    def on_heard(self, texts: Sequence[str]) -> None:
        for text in texts:
            sender, signals = unpack(text)
            if sender != self.name:
                self.shares.on_signals(signals)

    async def until(self, count: int) -> None:
        await self.holder.until(lambda: len(self.holder.slots) == count)

    async def stop(self) -> None:
        await self.shares.stop()
        await self.listener.close()


def test_relays_that_come_and_go_in_order_divide_the_slots(url: str) -> None:
    async def story() -> None:
        first = Member(url, "a")
        await first.until(SLOTS)
        assert first.shares.sweeps
        assert first.shares.is_mine("whatever")
        second, third = Member(url, "b"), Member(url, "c")
        for member, count in ((first, 22), (second, 21), (third, 21)):
            await member.until(count)
        assert first.holder.slots | second.holder.slots | third.holder.slots == ALL
        assert sum(member.shares.sweeps for member in (first, second, third)) == 1
        await second.stop()
        await first.until(32)
        await third.until(32)
        assert first.holder.slots | third.holder.slots == ALL
        await first.stop()
        await third.until(SLOTS)
        await third.stop()

    run(story)


A_RELAY = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from test_sharing import Member
async def main():
    member = Member(sys.argv[1], "child")
    on_lost = member.holder.on_lost
    def lost(slots):
        on_lost(slots)
        print("lost", len(slots), flush=True)
    member.holder.on_lost = lost
    await member.holder.until(lambda: bool(member.holder.slots))
    print("gained", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def a_relay(url: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    here = Path(__file__).parent
    return child(A_RELAY, url, str(here), str(here.parent))


def test_what_a_killed_relay_had_goes_to_the_others(url: str) -> None:
    async def story() -> None:
        me = Member(url, "a")
        await me.until(SLOTS)
        with a_relay(url) as other:
            await me.until(32)
            assert said(other) == "gained"
            other.kill()
            await me.until(SLOTS)
        await me.stop()

    run(story)


def test_a_stopped_relay_is_taken_over_from_and_comes_back_as_one_of_many(url: str) -> None:
    async def story() -> None:
        me = Member(url, "a")
        await me.until(SLOTS)
        with a_relay(url) as other:
            await me.until(32)
            assert said(other) == "gained"
            other.send_signal(signal.SIGSTOP)
            await me.until(SLOTS)
            async with listening(url) as (_, ears):
                other.send_signal(signal.SIGCONT)
                assert said(other).startswith("lost")
                # It may have acted before it noticed, so whoever has its slots is to begin with them anew.
                while not any("child: SharesDoubted" in text for text in ears.happened):
                    await ears.expect(len(ears.happened) + 1)
            await me.until(32)
        await me.until(SLOTS)
        await me.stop()

    run(story)


def test_shares_are_lost_with_the_server_and_had_again_with_it(own_postgres: PostgresServer) -> None:
    url = own_postgres.database()
    join_store(url)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        members = [Member(url, "a"), Member(url, "b")]
        for member in members:
            await member.until(32)
        await loop.run_in_executor(None, own_postgres.stop)
        for member in members:
            await member.until(0)
            assert not member.shares.slots
        await loop.run_in_executor(None, own_postgres.start)
        for member in members:
            await member.until(32)
        assert members[0].holder.slots | members[1].holder.slots == ALL
        for member in members:
            await member.stop()

    run(story)


def test_a_relay_that_could_not_beat_in_time_acts_no_more_until_it_could(url: str) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    async def story() -> None:
        clock, holder = Clock(), Holder()
        ears = Ears()
        listener = Listener(url, ears)
        shares = RelayShares(listener, "a", "here", holder, pace=QUICK, clock=clock)
        listener.start()
        await ears.expect(1)
        shares.on_joined()
        await holder.until(lambda: holder.slots == ALL)
        assert shares.slots == ALL
        clock.now += QUICK.fence_s
        assert not shares.slots
        assert not shares.is_mine("whatever")
        # With the next beat it is sure again, and makes up for what it did not act on.
        await holder.until(lambda: len(holder.gains) == 2)
        assert holder.gains[1] == ALL == shares.slots
        await shares.stop()
        await listener.close()

    run(story)


def test_who_holds_a_doubtful_slot_begins_with_it_anew(url: str) -> None:
    async def story() -> None:
        me = Member(url, "a")
        await me.until(SLOTS)
        me.shares.on_signals([SharesDoubted((3, 5))])
        assert me.holder.gains[-1] == {3, 5}
        await me.stop()

    run(story)


def test_nobody_ends_a_session_that_is_no_relays(url: str) -> None:
    """A backend's number may belong to somebody else by the time a relay is found to have stopped."""
    from farcall.service.cluster.store import end_backends

    async def story() -> None:
        async with listening(url) as (listener, _):
            with psycopg.connect(url) as innocent:
                await listener.run(end_backends, [innocent.info.backend_pid])
                assert innocent.execute("SELECT 1").fetchone() == (1,)

    run(story)
