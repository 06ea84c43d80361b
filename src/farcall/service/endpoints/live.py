"""Endpoints that somebody is looking at: what is to be seen of each, and waiting until that changes.

One `Watch` per endpoint is shared by all who wait for it. Events (a report, an attachment, tasks that come or end) mark
it; at most once a second it is then read again, and those who wait look whether what *they* see of it is another. So
nobody polls, a page costs a future while nothing happens, and endpoints that nobody looks at cost one look into a
dictionary per event. What other processes see and do not announce (reports) is looked for in the database, for all
watched endpoints at once, every few seconds.

A version is a hash of what is shown, so it means the same in every process and after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import msgspec

from farcall.service.accounts.rules import Identity
from farcall.service.db.engine import Database
from farcall.service.endpoints import live_store
from farcall.service.endpoints.documents import UserEndpoint, console_document
from farcall.service.endpoints.live_store import Signs, UserRow
from farcall.service.endpoints.online import Online
from farcall.service.endpoints.rules import is_user_endpoint_shown
from farcall.service.endpoints.store import StoredEndpoint
from farcall.service.ops.queues import QueueLimit
from farcall.wire.errors import EndpointNotFound, RateLimited

__all__ = ["Live", "LiveDocument", "Snapshot", "Watch"]

_logger = logging.getLogger(__name__)
_PAUSE_S: Final = 1.0
"""Between two readings of one endpoint."""

_UNSHOWN: Final = frozenset({"config_raw"})
_encoder: Final = msgspec.json.Encoder()


class LiveDocument(msgspec.Struct, kw_only=True):
    """GET /v3/endpoints/{id}/live.

    `version` is for `after` of the next request. `details` is the last report (numbers of workers, tasks, nodes), and
    `last_report` when it came (Unix seconds). `open_tasks`: its tasks that have not ended, as the service counts them;
    null for managers. `last_task_ended`: when one of its tasks last ended (Unix seconds), so that one that comes and
    goes between two answers is news, too. `user_endpoints`, of a manager: all for who manages it, else the caller's
    own.
    """

    version: str
    status: str
    last_report: float | None
    details: dict[str, Any]
    open_tasks: int | None
    last_task_ended: float | None
    user_endpoints: list[UserEndpoint]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is known of an endpoint at one moment.

    Attributes:
        users: of a manager those that `is_user_endpoint_shown`, with the identity whose each is.
    """

    stored: StoredEndpoint
    status: str
    last_report: float | None
    details: Mapping[str, Any]
    open_tasks: int | None
    last_task_ended: float | None
    users: Sequence[tuple[str, UserEndpoint]]
    _shown: dict[Any, tuple[str, bytes]] = field(default_factory=dict)

    def shown_to(self, caller: Identity, *, can_manage: bool) -> tuple[str, bytes]:
        """The version of what this caller sees, and the document as JSON."""
        key = True if can_manage else caller.linked & {owner for owner, _ in self.users}
        found = self._shown.get(key)
        if found is None:
            users = [user for owner, user in self.users if key is True or owner in caller.linked]
            found = self._shown[key] = self._document(users)
        return found

    def _document(self, users: list[UserEndpoint]) -> tuple[str, bytes]:
        document = LiveDocument(
            version="",
            status=self.status,
            last_report=self.last_report,
            details=dict(self.details),
            open_tasks=self.open_tasks,
            last_task_ended=self.last_task_ended,
            user_endpoints=users,
        )
        document.version = blake2b(_encoder.encode(document), digest_size=12).hexdigest()
        return document.version, _encoder.encode(document)


class Watch:
    """One endpoint that somebody is looking at."""

    def __init__(self, live: Live, endpoint_id: str) -> None:
        self._live = live
        self.endpoint_id = endpoint_id
        self.watchers = 0
        self.snapshot: Snapshot | None = None
        self._read_at = float("-inf")
        self._is_marked = False
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[Snapshot] | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    async def now(self) -> Snapshot:
        """What is known, at most a second old. Raises EndpointNotFound, ServiceUnavailable."""
        loop = asyncio.get_running_loop()
        if self.snapshot is None or loop.time() - self._read_at >= _PAUSE_S:
            return await asyncio.shield(self._read())
        return self.snapshot

    @contextlib.contextmanager
    def waiter(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when there is a new snapshot, or reason to ask for one."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        if self._is_marked:
            self.mark()  # that was while nobody waited
        try:
            yield future
        finally:
            self._waiting.discard(future)

    def mark(self) -> None:
        """Something may have changed."""
        self._is_marked = True
        if self._timer is None and self._reading is None and self._waiting:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._read_at + _PAUSE_S), self._due)

    def wake(self) -> None:
        """Have all who wait look."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()

    def _due(self) -> None:
        self._timer = None
        self._read()

    def _read(self) -> asyncio.Task[Snapshot]:
        if self._reading is None:
            self._is_marked = False
            self._reading = self._live.begin_snapshot(self.endpoint_id)
            self._reading.add_done_callback(self._was_read)
        return self._reading

    def _was_read(self, reading: asyncio.Task[Snapshot]) -> None:
        self._reading = None
        self._read_at = asyncio.get_running_loop().time()
        failed = reading.cancelled() or reading.exception() is not None  # who waits asks again, and is told
        self.snapshot = None if failed else reading.result()
        self.wake()
        if self._is_marked:
            self.mark()


class Live:
    """An `Onlooker`. Made and used on the event loop.

    Args:
        has_others: other processes use the store, and some of them take reports in.
        waiters_limit: requests of one identity that may wait at a time.
        look_s: between two looks for what other processes wrote down; they write reports about as often.
    """

    def __init__(
        self,
        db: Database,
        online: Online,
        queue_limit: QueueLimit,
        *,
        has_others: bool,
        waiters_limit: int,
        look_s: float = 3.0,
    ) -> None:
        self._db = db
        self._online = online
        self._queue_limit = queue_limit
        self._has_others = has_others
        self._waiters_limit = waiters_limit
        self._look_s = look_s
        self._waiters: Counter[str] = Counter()
        self._watches: dict[str, Watch] = {}
        self._managers: dict[str, str] = {}  # of user endpoints whose manager is watched
        self._signs: Mapping[str, Signs] = {}
        self._look_timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._readings: set[asyncio.Task[Snapshot]] = set()
        self.is_stopping = False

    @contextlib.asynccontextmanager
    async def watch(self, endpoint_id: str, caller: Identity) -> AsyncIterator[Watch]:
        """Look at an endpoint, waiting or not. Raises RateLimited if the caller has too many requests here already."""
        if self._waiters[caller.id] >= self._waiters_limit:
            raise RateLimited(
                f"{caller.username} has {self._waiters_limit} requests for what endpoints do open already "
                "(live_waiters_per_identity; those that do not wait count too). "
                "Let one request per endpoint wait, and close pages that nobody looks at.",
                {"retry_after_s": 5},
            )
        self._waiters[caller.id] += 1
        watch = self._watches.get(endpoint_id)
        if watch is None:
            watch = self._watches[endpoint_id] = Watch(self, endpoint_id)
            self._look_soon()
        watch.watchers += 1
        try:
            yield watch
        finally:
            watch.watchers -= 1
            self._waiters[caller.id] -= 1
            if not self._waiters[caller.id]:
                del self._waiters[caller.id]
            if not watch.watchers:
                self._forget(watch)

    def begin_snapshot(self, endpoint_id: str) -> asyncio.Task[Snapshot]:
        """Read it, also if whoever asked goes away meanwhile."""
        reading = asyncio.get_running_loop().create_task(self.snapshot(endpoint_id))
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        return reading

    async def snapshot(self, endpoint_id: str) -> Snapshot:
        """What is known of an endpoint now. Raises EndpointNotFound, ServiceUnavailable."""
        found = await self._db.read(live_store.read_watched, endpoint_id)
        if found is None or found.stored.rights.is_deleted:
            raise EndpointNotFound(f"There is no endpoint {endpoint_id} at this service any more.")
        stored, users, last_ended = found
        if stored.rights.direct:
            await self._queue_limit.prepare(endpoint_id)
        if endpoint_id in self._watches:
            self._managers.update((user.stored.rights.id, endpoint_id) for user in users)
        report, reported_at = self._online.latest(stored)
        return Snapshot(
            stored=stored,
            status="online" if self._online.is_online(stored) else "offline",
            last_report=reported_at,
            details={key: value for key, value in (report or {}).items() if key not in _UNSHOWN},
            open_tasks=self._queue_limit.known(endpoint_id) if stored.rights.direct else None,
            last_task_ended=last_ended,
            users=[(user.stored.rights.owner_id, shown) for user in users if (shown := self._shown(user)) is not None],
        )

    def stop(self) -> None:
        """Answer everybody who waits. Later requests are answered without waiting."""
        self.is_stopping = True
        if self._look_timer is not None:
            self._look_timer.cancel()
        for watch in self._watches.values():
            watch.close()

    async def drain(self) -> None:
        """Wait for what is being read."""
        self.stop()
        if self._looking is not None:
            await self._looking
        await asyncio.gather(*self._readings, return_exceptions=True)

    # --- Events ----------------------------------------------------------------------------------------------

    def reported(self, endpoint_id: str, state: Mapping[str, Any]) -> None:
        if not self._has_others:  # else it is not written down yet, and found there when it is
            self.changed(endpoint_id)

    def submitted(self, endpoint_id: str, count: int, manager_id: str | None) -> None:
        self.changed(endpoint_id)
        if manager_id is not None:
            self.changed(manager_id)

    def ended(self, endpoint_id: str, succeeded: int, failed: int) -> None:
        self.changed(endpoint_id)

    def away(self, endpoint_id: str) -> None:
        self.changed(endpoint_id)

    def changed(self, endpoint_id: str) -> None:
        if not self._watches:
            return
        for each in (endpoint_id, self._managers.get(endpoint_id)):
            watch = self._watches.get(each) if each is not None else None
            if watch is not None:
                watch.mark()

    # --- Inside ----------------------------------------------------------------------------------------------

    def _shown(self, user: UserRow) -> UserEndpoint | None:
        report, reported_at = self._online.latest(user.stored)
        is_online = self._online.is_online(user.stored)
        if not is_user_endpoint_shown(is_online=is_online, reported_at=reported_at, has_open_tasks=user.has_open_tasks):
            return None
        return console_document(
            user.stored, report, reported_at, is_online=is_online, owner_name=user.owner_name, with_config=False
        )

    def _forget(self, watch: Watch) -> None:
        watch.close()
        if self._watches.get(watch.endpoint_id) is watch:
            del self._watches[watch.endpoint_id]
        for user_id in [user for user, manager in self._managers.items() if manager == watch.endpoint_id]:
            del self._managers[user_id]

    def _look_soon(self) -> None:
        is_due = self._has_others and self._watches and not self.is_stopping
        if is_due and self._look_timer is None and self._looking is None:
            self._look_timer = asyncio.get_running_loop().call_later(self._look_s, self._begin_look)

    def _begin_look(self) -> None:
        self._look_timer = None
        if self._watches:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            signs = await self._db.read(live_store.read_signs, list(self._watches))
            before, self._signs = self._signs, signs
            for endpoint_id, sign in signs.items():
                if before.get(endpoint_id) != sign:
                    self.changed(endpoint_id)
                    if sign[0] is not None:
                        self.changed(sign[0])
        except Exception as exc:
            _logger.warning(
                "Endpoints that are being looked at could not be read",
                extra={"event": "live.failed", "fault": str(exc)},
            )
        finally:
            self._looking = None
            self._look_soon()
