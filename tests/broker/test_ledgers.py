"""The books of a channel: what is held, and what a publisher is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.broker.ledgers import Confirm, ConfirmBook, DeliveryBook


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40), st.integers(0, 30))
def test_a_tag_settles_itself_or_all_up_to_itself(settles: list[tuple[int, bool]], count: int) -> None:
    book = DeliveryBook()
    messages: dict[int, Any] = {}
    for number in range(count):
        if number % 5 == 4:
            book.skip()
        else:
            message: Any = object()
            messages[book.hold(message)] = message
    for tag, multiple in settles:
        if tag in messages or (multiple and tag == 0):
            settled = [t for t in messages if t == tag or (multiple and (t <= tag or tag == 0))]
            assert book.take(tag, multiple) == [messages.pop(t) for t in settled]
        else:
            with pytest.raises(KeyError):
                book.take(tag, multiple)
    assert book.take_all() == list(messages.values())
    assert book.take(0, True) == []


@given(
    st.lists(st.sampled_from(["now", "later", "ack", "nack", "take"]), max_size=80), st.randoms(use_true_random=False)
)
def test_a_publisher_learns_of_each_message_once_and_never_too_early(steps: list[str], random: Any) -> None:
    calls: list[int] = []
    book = ConfirmBook(lambda: calls.append(1))
    settled: dict[int, bool] = {}
    waiting: list[int] = []
    told: dict[int, bool] = {}
    last = 0

    def take() -> None:
        due = [number for number in settled if number not in told]
        assert len(calls) == bool(due)
        calls.clear()
        for confirm in book.take():
            numbers = (
                [n for n in range(1, confirm.number + 1) if n not in told] if confirm.multiple else [confirm.number]
            )
            for number in numbers:
                assert number not in told
                assert settled[number] == confirm.ok
                told[number] = confirm.ok
        assert told == settled

    for step in [*steps, "take"]:
        if step == "now":
            last += 1
            book.begin_settled()
            settled[last] = True
        elif step == "later":
            last += 1
            assert book.begin() == last
            waiting.append(last)
        elif step in ("ack", "nack") and waiting:
            number = waiting.pop(random.randrange(len(waiting)))
            book.settle(number, step == "ack")
            settled[number] = step == "ack"
        elif step == "take":
            take()


def test_confirms_that_are_due_together_are_one_frame() -> None:
    book = ConfirmBook(lambda: None)
    for _ in range(100):
        book.begin_settled()
    assert book.take() == [Confirm(100, True, True)]
    book.begin_settled()
    assert book.take() == [Confirm(101, False, True)]
    assert book.take() == []
