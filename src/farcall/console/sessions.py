"""Who is logged in to the console. Tokens stay here, in memory: a browser has a random text that stands for one.

A login ends when its token does, when somebody logs out, or when the interface no longer takes the token; whoever
listens (pages that are open) is told.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from farcall.console.api import Api
from farcall.console.live import Live

__all__ = ["Session", "Sessions"]


@dataclass(eq=False, kw_only=True)
class Session:
    """Somebody at a browser.

    Attributes:
        username: as the service knows them; `name` for people.
        is_operator: whether they are an administrator of the service: shows or hides pages, and permits nothing.
        base: how they reached the service, without a slash at the end.
        tokens: every token that the login was given; the first opens the compute interface.
        projects: the interface again, with the token for policies and people.
        live: what the viewer's pages listen to.
        on_end: called once when it is over.
        sessions: where it is remembered.
        began_at: Unix seconds.
    """

    username: str
    name: str
    identity_id: str
    is_operator: bool
    base: str
    tokens: tuple[str, ...] = field(repr=False)
    api: Api
    projects: Api
    began_at: float
    is_over: bool = False
    live: Live = field(init=False)
    on_end: set[Callable[[], None]] = field(default_factory=set, repr=False)
    sessions: Sessions | None = field(default=None, repr=False)

    def end(self) -> None:
        """It does not count any more, in any page."""
        if self.sessions is not None:
            self.sessions.end(self)

    def __post_init__(self) -> None:
        self.live = Live(self.api)


class Sessions:
    """All of one process."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Session, asyncio.TimerHandle]] = {}

    def begin(self, session: Session, lifetime_s: float) -> str:
        """Remember a login. Returns what its cookie shall be."""
        session.sessions = self
        cookie = secrets.token_urlsafe(32)
        timer = asyncio.get_running_loop().call_later(lifetime_s, self.end, session)
        self._open[_hash(cookie)] = (session, timer)
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        """The login that a cookie stands for; None if there is none (any more)."""
        found = self._open.get(_hash(cookie)) if cookie else None
        return found[0] if found else None

    def end(self, session: Session) -> None:
        """It does not count any more. The token is the caller's business."""
        for key, (each, timer) in list(self._open.items()):
            if each is session:
                timer.cancel()
                del self._open[key]
        session.is_over = True
        session.live.close()
        for tell in list(session.on_end):
            tell()
        session.on_end.clear()

    async def end_all(self) -> None:
        """The process ends. Returns when nothing of any login asks the interface any more."""
        ending: list[asyncio.Task[None]] = []
        for session, _ in list(self._open.values()):
            session.on_end.clear()
            ending += session.live.close()
            self.end(session)
        await asyncio.gather(*ending, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._open)


def _hash(cookie: str) -> str:
    # Compared by hash: how long a look-up takes tells nothing about a cookie.
    return hashlib.sha256(cookie.encode(errors="replace")).hexdigest()
