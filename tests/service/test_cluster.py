"""What a process does with what others tell it, without servers: hearing, roles, and feeds that others add to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from farcall.service.app import create_app
from farcall.service.cluster.hearing import Hearing
from farcall.service.cluster.signals import (
    CredentialRevoked,
    EndpointChanged,
    SharesChanged,
    TasksAdded,
    TasksEnded,
    TasksWithdrawn,
    TokenRevoked,
    pack,
)
from farcall.service.managers.store import manager_of
from farcall.service.ops.measures import Measures
from farcall.service.relay.feed import Window
from farcall.service.relay.feeding import TaskFeeds
from farcall.service.relay.messages import CodeCache, Outgoing
from farcall.service.relay.store import StoredTask, SubmissionHeaders
from farcall.service.roles import RoleNeedsServers, part_of
from farcall.service.settings import ServiceSettings
from farcall.wire.messages import unpack_message

HEADERS = SubmissionHeaders(None, None, None)


# --- Roles


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"role": "api"}, "PostgreSQL .* and RabbitMQ"),
        ({"role": "relay", "store": "postgresql://db/farcall"}, "RabbitMQ"),
        ({"role": "relay", "broker": "amqp://mq"}, "PostgreSQL"),
    ],
)
def test_a_role_without_the_servers_that_it_takes_is_refused(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(RoleNeedsServers, match=words):
        part_of(ServiceSettings(data_dir=tmp_path, **settings))


def test_one_process_alone_needs_nobody(tmp_path: Path) -> None:
    for more in ({}, {"broker": "amqp://mq"}, {"store": "postgresql://db/farcall"}):
        part = part_of(ServiceSettings(data_dir=tmp_path, **more))  # type: ignore[arg-type]
        assert (part.serves, part.feeds, part.has_others) == (True, True, False)


def test_a_relay_answers_for_itself_only(tmp_path: Path) -> None:
    servers: dict[str, Any] = {"store": "postgresql://db/farcall", "broker": "amqp://mq"}
    app = create_app(ServiceSettings(data_dir=tmp_path, role="relay", **servers))
    paths = set(app.openapi()["paths"])
    assert {"/healthz", "/readyz", "/metrics", "/v3/service"} <= paths
    assert not any("submit" in path or "tasks" in path for path in paths)


# --- Hearing


class Told:
    """A relay that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args))


def test_each_part_is_told_what_concerns_it_and_nothing_of_ones_own() -> None:
    told, forgotten, counted = Told(), [], []
    hearing = Hearing(
        "me",
        relay=told,  # type: ignore[arg-type]
        forget=forgotten.append,
        counted=lambda endpoint_id, count: counted.append((endpoint_id, count)),
    )
    hearing.on_joined()
    assert forgotten == [None], "a token may have been revoked while nobody listened"
    signals = [
        TasksAdded("e", 3),
        TasksEnded("e", (7, 8)),
        TasksWithdrawn("e", ((8, "t"),)),
        EndpointChanged("e", 2, "locked"),
        CredentialRevoked("i", 5),
        TokenRevoked("hash"),
        SharesChanged(),
    ]
    hearing.on_heard(["nonsense", *pack(signals, "me")])
    assert (told.calls, counted) == ([], [])
    hearing.on_heard(pack(signals, "other"))
    assert told.calls == [
        ("added_elsewhere", "e"),
        ("ended_elsewhere", "e", (7, 8)),
        ("withdrawn_elsewhere", "e", ((8, "t"),)),
        ("endpoint_changed_elsewhere", "e", 2, "locked"),
        ("credential_revoked_elsewhere", "i", 5),
    ]
    assert counted == [("e", 3), ("e", -2)]
    assert forgotten == [None, "hash"]


# --- Feeds


class Wire:
    """A transport that notes the tasks that are published."""

    sees_acks = False

    def __init__(self) -> None:
        self.published: list[str] = []
        self.purged = 0

    def publish(self, _queue: str, messages: Iterable[Outgoing]) -> None:
        for message in messages:
            self.published.append(unpack_message(message.body).task_id)  # type: ignore[union-attr]

    def purge(self, _queue: str) -> None:
        self.purged += 1


class Store:
    """A database that has these tasks of two endpoints."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, StoredTask]] = []
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, run: Any, endpoint_id: str, after: int = 0, *_: Any) -> Any:
        if run is manager_of:
            return None  # they start by themselves
        self.reads += 1
        found = [task for whose, task in self.tasks if whose == endpoint_id and task.seq > after]
        await self.gate.wait()
        return found, {task.submission_seq: HEADERS for task in found}, True

    def add(self, endpoint_id: str, seq: int) -> StoredTask:
        task = StoredTask(seq, f"00000000-0000-0000-0000-{seq:012}", "f", 10, "payload", seq, 0.0)
        self.tasks.append((endpoint_id, task))
        return task


class Scene:
    def __init__(self) -> None:
        self.wire, self.store = Wire(), Store()
        codes = CodeCache(1000)
        codes.put("f", "code")
        self.feeds = TaskFeeds(
            self.store,  # type: ignore[arg-type]
            self.wire,  # type: ignore[arg-type]
            codes,
            Window(messages=100, size=10_000),
            50,
            measures=Measures(),
            clock=lambda: 0.0,
            has_others=True,
        )

    def commit(self, endpoint_id: str, seq: int) -> None:
        """A commit of this process."""
        self.feeds.committed(endpoint_id, [self.store.add(endpoint_id, seq)], HEADERS)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    @property
    def published(self) -> list[int]:
        return [int(task_id[-12:]) for task_id in self.wire.published]


def play(story: Any) -> None:
    async def whole() -> None:
        scene = Scene()
        scene.commit("a", 1)
        scene.commit("b", 2)
        for endpoint_id in ("a", "b"):
            scene.feeds.attached(endpoint_id)
        await scene.settle()
        assert scene.published == [1, 2]
        scene.wire.published.clear()
        scene.store.reads = 0
        await story(scene)

    asyncio.run(whole())


def test_commits_that_follow_upon_each_other_are_published_from_memory() -> None:
    async def story(scene: Scene) -> None:
        scene.commit("a", 3)
        scene.commit("b", 4)
        scene.commit("a", 5)
        assert scene.published == [3, 4, 5]
        assert scene.store.reads == 0

    play(story)


def test_what_another_process_committed_in_between_is_not_passed_over() -> None:
    async def story(scene: Scene) -> None:
        scene.store.add("b", 3)  # by another process, whose signal is late
        scene.commit("a", 4)
        scene.commit("b", 5)
        await scene.settle()
        assert scene.published == [4, 3, 5]
        # Having read once, each feed trusts its memory again.
        reads = scene.store.reads
        scene.commit("b", 6)
        scene.commit("a", 7)
        assert scene.published == [4, 3, 5, 6, 7]
        assert scene.store.reads == reads
        scene.feeds.committed_elsewhere("b")  # the signal
        await scene.settle()
        assert scene.published == [4, 3, 5, 6, 7]

    play(story)


def test_a_feed_that_reads_while_others_commit_reads_again() -> None:
    async def story(scene: Scene) -> None:
        scene.store.gate.clear()
        scene.store.add("a", 3)
        scene.feeds.committed_elsewhere("a")
        await scene.settle()
        scene.store.add("a", 4)
        scene.commit("a", 5)
        scene.store.gate.set()
        await scene.settle()
        assert scene.published == [3, 4, 5]

    play(story)


def test_what_was_withdrawn_while_it_was_read_is_not_published() -> None:
    async def story(scene: Scene) -> None:
        scene.store.gate.clear()
        task = scene.store.add("a", 3)
        scene.feeds.committed_elsewhere("a")
        await scene.settle()
        scene.feeds.ended_elsewhere("a", [3])
        scene.feeds.withdraw_elsewhere("a", [(3, task.id)])
        scene.store.gate.set()
        await scene.settle()
        assert scene.published == []

    play(story)


def test_a_feed_that_is_given_away_leaves_its_queue_alone() -> None:
    async def story(scene: Scene) -> None:
        purged = scene.wire.purged
        scene.store.gate.clear()
        scene.store.add("a", 3)
        scene.feeds.committed_elsewhere("a")
        await scene.settle()
        scene.feeds.released("a")
        scene.store.gate.set()
        await scene.settle()
        scene.commit("a", 4)
        assert scene.published == []
        assert scene.wire.purged == purged
        assert scene.feeds.endpoint_ids == ["b"]

    play(story)


def test_a_role_without_its_servers_is_one_line_and_an_exit_status(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "farcall.cli.service", "start", "--role", "relay", "--data-dir", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert "Missing: PostgreSQL (--store postgresql://…) and RabbitMQ (--broker amqp://…)." in done.stderr
    assert "Traceback" not in done.stderr
