"""Carries out what `custody` decides, for all endpoints whose agents keep no journal: notes in the store what they have
taken, and tells the feeds when that is to be sent again. The store is written in the order of the events.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from farcall.service.db.engine import Database
from farcall.service.relay import store
from farcall.service.relay.custody import Adopt, Command, Custody, FeedAll, NoteTaken
from farcall.wire.errors import ServiceUnavailable

__all__ = ["Custodian"]

_RETRY_S: Final = 1.0
_logger = logging.getLogger(__name__)


class Custodian:
    """Made and used on the event loop.

    Args:
        feed_again: begins an endpoint's feed anew, but for what is out and not acknowledged.
        feed_all: begins it anew altogether; the agent keeps a journal.
    """

    def __init__(self, db: Database, feed_again: Callable[[str], None], feed_all: Callable[[str], None]) -> None:
        self._db = db
        self._feed_again = feed_again
        self._feed_all = feed_all
        self._custodies: dict[str, Custody] = {}
        self._to_note: deque[tuple[str, Adopt | NoteTaken]] = deque()
        self._reading: dict[str, list[set[int]]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def begin(self, endpoint_id: str) -> None:
        """An agent has attached that keeps no journal, as far as is known."""
        self._custodies[endpoint_id] = Custody()

    def end(self, endpoint_id: str) -> None:
        """It detached. What it took before its first report will be sent again to whoever comes."""
        self._custodies.pop(endpoint_id, None)

    def has_begun(self, endpoint_id: str) -> bool:
        return endpoint_id in self._custodies

    def is_in_charge(self, endpoint_id: str) -> bool:
        """Whether tasks that this endpoint has taken are not to be sent to it again."""
        custody = self._custodies.get(endpoint_id)
        return custody is not None and not custody.has_journal

    def reported(self, endpoint_id: str, global_state: Mapping[str, Any]) -> None:
        """A status report has come."""
        custody = self._custodies.get(endpoint_id)
        if custody is not None:
            self._do(endpoint_id, custody.reported(global_state))

    def taken(self, endpoint_id: str, seqs: Sequence[int]) -> None:
        """The endpoint acknowledged the tasks with these numbers."""
        for skipped in self._reading.get(endpoint_id, ()):
            skipped.update(seqs)
        custody = self._custodies.get(endpoint_id)
        if custody is not None:
            self._do(endpoint_id, custody.taken(seqs))

    @contextmanager
    def reading(self, endpoint_id: str) -> Iterator[set[int]]:
        """For the time of a look into the store: the numbers of tasks that the endpoint has, though the store may not
        show it. The set grows until the end.
        """
        custody = self._custodies.get(endpoint_id)
        noting = (each.seqs for whose, each in self._to_note if whose == endpoint_id and isinstance(each, NoteTaken))
        skipped = set(chain(custody.unnoted if custody else (), *noting))
        readings = self._reading.setdefault(endpoint_id, [])
        readings.append(skipped)
        try:
            yield skipped
        finally:
            readings.remove(skipped)
            if not readings:
                self._reading.pop(endpoint_id, None)

    async def stop(self) -> None:
        """Write what is to be noted, if the store takes it."""
        self._stopping.set()
        if self._worker is not None:
            await self._worker

    def _do(self, endpoint_id: str, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, FeedAll):
                self._feed_all(endpoint_id)
            else:
                self._to_note.append((endpoint_id, command))
        if self._to_note and self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._to_note:
                try:
                    await self._note_next()
                except Exception as exc:  # any: until it is noted, nothing that came later may be
                    if not isinstance(exc, ServiceUnavailable):
                        _logger.exception("What was taken could not be noted", extra={"event": "custody.failed"})
                    if self._stopping.is_set():
                        break
                    try:
                        await asyncio.wait_for(self._stopping.wait(), _RETRY_S)
                    except asyncio.TimeoutError:
                        continue
        finally:
            self._worker = None

    async def _note_next(self) -> None:
        """The first thing that is to be noted; of tasks that were taken, all up to the next change of hands."""
        endpoint_id, first = self._to_note[0]
        if isinstance(first, Adopt):
            is_new = await self._db.write(store.adopt_endpoint, endpoint_id, str(first.incarnation))
            self._to_note.popleft()
            if is_new and self.is_in_charge(endpoint_id):
                _logger.info(
                    "Another process works for this endpoint: what the one before had taken is sent again",
                    extra={"event": "custody.sent_again", "endpoint_id": endpoint_id},
                )
                self._feed_again(endpoint_id)
            return
        seqs: list[int] = []
        count = 0
        for _, each in self._to_note:
            if isinstance(each, Adopt):
                break
            seqs += each.seqs
            count += 1
        await self._db.write(store.note_taken, seqs)
        for _ in range(count):
            self._to_note.popleft()
