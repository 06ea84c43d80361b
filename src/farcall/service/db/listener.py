"""A session with PostgreSQL of its own, on a thread of its own, that hears what other processes announce with their
commits (`Database.write`), and in which statements can be run: locks that they take are held until the session ends.

What the texts mean is `service.cluster`'s business. A session that is lost is replaced; whoever listens is told of
both, since what was announced in between was not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import select
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

from farcall.service.db import sessions
from farcall.service.db.engine import make_engine

__all__ = ["Listener", "Listening"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")
_RETRY_S: Final = 1.0
"""While the database is away only."""


class Listening(Protocol):
    """Who is told. Called on the event loop, in the order of the events."""

    def on_joined(self) -> None:
        """A session has begun to listen; anything may have been announced before."""
        ...

    def on_heard(self, texts: Sequence[str]) -> None:
        """Announced by commits, in their order; those of this process among them."""
        ...

    def on_left(self) -> None:
        """The session is lost, with its locks."""
        ...


_Job = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]


class Listener:
    """Made and closed on the event loop.

    Args:
        url: of PostgreSQL.
    """

    def __init__(self, url: str, listening: Listening) -> None:
        self._engine = make_engine(url).execution_options(isolation_level="AUTOCOMMIT")
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._is_closing = False
        self._is_away = False
        self.is_joined = False
        """Whether there is a session. For the event loop."""
        self._thread = threading.Thread(target=self._work, name="farcall-db-listen", daemon=True)

    def start(self) -> None:
        """Begin; `on_joined` tells when there is a session."""
        self._thread.start()

    async def run(self, run: Callable[..., T], *args: Any) -> T:
        """Run `run(connection, *args)` in the session, outside of any transaction.

        Raises:
            ServiceUnavailable: there is no session, or it was lost meanwhile.
        """
        if self._is_closing:
            raise sessions.no_answer()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((run, args, future))
        self._wake()
        return await future  # type: ignore[no-any-return]  # what `run` returned

    async def close(self) -> None:
        """End the session; its locks are free when this returns."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake()
        await self._loop.run_in_executor(None, self._thread.join)
        self._refuse_jobs()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._engine.dispose()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake up
            os.write(self._wake_write, b"x")

    # The thread.

    def _work(self) -> None:
        while not self._is_closing:
            heard: list[str] = []
            try:
                connection = self._join(heard)
            except Exception as exc:
                self._went_away(exc)
                self._refuse_jobs()
                select.select([self._wake_read], [], [], _RETRY_S)
                self._drain()
                continue
            self._is_away = False
            self._tell(self._joined)
            try:
                self._serve(connection, heard)
            except Exception as exc:
                self._went_away(exc)
            finally:
                sessions.let_go(connection)
            self._tell(self._left)

    def _join(self, heard: list[str]) -> Connection:
        connection = self._engine.connect()
        try:
            # Nothing that is written here needs to outlive a crash of the server: it says who is there now.
            with connection.begin():
                connection.exec_driver_sql("SET synchronous_commit = off")
            sessions.postgres().listen(connection, heard.append)
        except BaseException:
            sessions.let_go(connection)
            raise
        return connection

    def _serve(self, connection: Connection, heard: list[str]) -> None:
        """Until the session is lost, which raises, or the end."""
        driver: Any = connection.connection.dbapi_connection
        poller = select.poll()
        poller.register(driver.fileno(), select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while not self._is_closing:
            ready = {fd for fd, _ in poller.poll()}
            if self._wake_read in ready:
                self._drain()
            heard += sessions.postgres().take_notifications(connection)
            self._pass_on(heard)
            self._run_jobs(connection)
            self._pass_on(heard)

    def _pass_on(self, heard: list[str]) -> None:
        if heard:
            self._tell(self._listening.on_heard, tuple(heard))
            heard.clear()

    def _run_jobs(self, connection: Connection) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                run, args, future = self._jobs.get_nowait()
                try:
                    with connection.begin():  # for SQLAlchemy; the session is on autocommit
                        answer = run(connection, *args)
                except Exception as exc:
                    is_lost = sessions.is_lost(connection)
                    self._tell(_fail, future, sessions.no_answer() if is_lost else exc)
                    if is_lost:
                        raise
                else:
                    self._tell(_succeed, future, answer)

    def _refuse_jobs(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                _, _, future = self._jobs.get_nowait()
                self._tell(_fail, future, sessions.no_answer())

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _went_away(self, exc: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            _logger.warning(
                "The session that hears other processes is lost",
                extra={"event": "db.listener_lost", "reason": sessions.reason_of(exc)},
            )

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what, *args)

    # The event loop.

    def _joined(self) -> None:
        self.is_joined = True
        self._listening.on_joined()

    def _left(self) -> None:
        self.is_joined = False
        self._listening.on_left()


def _succeed(future: asyncio.Future[Any], answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
