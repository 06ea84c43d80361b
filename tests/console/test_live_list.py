"""What pages of one viewer listen to: one question for all of them, and no more when the last has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from farcall.console.live import Live
from farcall.console.sessions import Session, Sessions
from farcall.wire.errors import ServiceUnavailable, Unauthenticated


def test_a_login_ends_by_itself_when_its_time_is_over() -> None:
    async def story() -> None:
        api, over = Interface({}), asyncio.Event()
        session = Session(
            username="ada", name="Ada", identity_id="i", is_operator=False, base="http://here", tokens=("secret",),
            api=api, projects=api, began_at=0.0,  # type: ignore[arg-type]
        )  # fmt: skip
        session.on_end.add(over.set)
        sessions = Sessions()
        cookie = sessions.begin(session, 0.01)
        assert sessions.find(cookie) is session
        await asyncio.wait_for(over.wait(), 20)
        assert (sessions.find(cookie), session.is_over, len(sessions)) == (None, True, 0)

    asyncio.run(story())


class Interface:
    """Answers with what stands first; the last answer stays."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def get(self, path: str, **query: Any) -> Any:
        self.asked.append((path, query))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Page:
    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    def hear(self, document: Mapping[str, Any]) -> None:
        self.heard.put_nowait(document["total"])

    def fail(self, error: Exception) -> None:
        self.heard.put_nowait(type(error))


def test_pages_that_show_one_list_share_its_reading_and_hear_what_is_new() -> None:
    async def story() -> None:
        same = {"total": 1}
        api = Interface(same, same, ServiceUnavailable("busy"), {"total": 2}, Unauthenticated("over"))
        live = Live(api, list_pause_s=0.001)  # type: ignore[arg-type]
        first, second, other = Page(), Page(), Page()
        for page in (first, second):
            live.watch_list({"role": "any", "search": None}, page.hear, page.fail)
        stop = live.watch_list({"role": "owner"}, other.hear, other.fail)
        assert len(live) == 2
        stop()
        assert len(live) == 1
        for page in (first, second):  # what did not change is told once
            assert [await asyncio.wait_for(page.heard.get(), 20) for _ in range(3)] == [1, 2, Unauthenticated]
        assert api.asked == [("/v3/endpoints", {"role": "any"})] * 5
        assert (other.heard.empty(), len(live)) == (True, 0)

    asyncio.run(story())
