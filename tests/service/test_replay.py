from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from service_world import Clock

from farcall.service.tasks.replay import Replay, fingerprint
from farcall.wire.errors import EndpointNotFound
from farcall.wire.rest import SubmitResponse

KEY = fingerprint("ada", "here", b"{}")


def response(name: str) -> SubmitResponse:
    return SubmitResponse(request_id=name, task_group_id="g", endpoint_id="e", tasks={})


def answering(name: str) -> Callable[[], Awaitable[SubmitResponse]]:
    async def submit() -> SubmitResponse:
        return response(name)

    return submit


async def gone() -> bool:
    return True


async def here() -> bool:
    return False


def test_fingerprints_tell_callers_endpoints_and_bodies_apart() -> None:
    others = [fingerprint("bob", "here", b"{}"), fingerprint("ada", "there", b"{}"), fingerprint("ada", "here", b"")]
    assert len({KEY, *others}) == 4


def test_an_answer_that_was_delivered_is_not_repeated() -> None:
    async def story() -> None:
        replay = Replay(Clock(), 120.0)
        assert await replay.answer_once(KEY, here, answering("a")) == response("a")
        assert await replay.answer_once(KEY, here, answering("b")) == response("b")

    asyncio.run(story())


def test_an_answer_that_nobody_received_is_given_to_the_repetition_for_a_while() -> None:
    async def story() -> None:
        clock = Clock()
        replay = Replay(clock, 120.0)
        await replay.answer_once(KEY, gone, answering("a"))
        clock.now += 119.0
        assert await replay.answer_once(KEY, here, answering("b")) == response("a")
        clock.now += 1.0
        assert await replay.answer_once(KEY, here, answering("c")) == response("c")

    asyncio.run(story())


def test_a_repetition_waits_for_the_first_whose_client_has_gone() -> None:
    async def story() -> None:
        replay = Replay(Clock(), 120.0)
        finish = asyncio.Event()

        async def slowly() -> SubmitResponse:
            await finish.wait()
            return response("a")

        first = asyncio.ensure_future(replay.answer_once(KEY, gone, slowly))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(replay.answer_once(KEY, here, answering("b")))
        await asyncio.sleep(0)
        finish.set()
        assert await first == await second == response("a")

    asyncio.run(story())


def test_an_equal_submission_of_a_client_that_waits_is_another_one() -> None:
    async def story() -> None:
        replay = Replay(Clock(), 120.0)
        finish = asyncio.Event()

        async def slowly() -> SubmitResponse:
            await finish.wait()
            return response("a")

        first = asyncio.ensure_future(replay.answer_once(KEY, here, slowly))
        await asyncio.sleep(0)
        assert await replay.answer_once(KEY, here, answering("b")) == response("b")
        finish.set()
        assert await first == response("a")

    asyncio.run(story())


def test_a_refusal_is_not_remembered_and_its_repetition_is_tried() -> None:
    async def story() -> None:
        replay = Replay(Clock(), 120.0)
        refuse = asyncio.Event()

        async def refused() -> SubmitResponse:
            await refuse.wait()
            raise EndpointNotFound("no")

        first = asyncio.ensure_future(replay.answer_once(KEY, gone, refused))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(replay.answer_once(KEY, here, answering("b")))
        await asyncio.sleep(0)
        refuse.set()
        with pytest.raises(EndpointNotFound):
            await first
        assert await second == response("b")

    asyncio.run(story())
