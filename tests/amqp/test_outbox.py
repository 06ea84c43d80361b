"""A publisher's messages, by values and against a broker that may lose or dislike them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcall.amqp.outbox import Outbox


def outbox(*values: int, window: int = 10, window_bytes: int = 10_000) -> Outbox[int]:
    made: Outbox[int] = Outbox(window, window_bytes)
    made.opened()
    for value in values:
        made.put(value, 1)
    return made


def test_messages_go_in_order_and_no_more_than_the_window() -> None:
    box = outbox(1, 2, 3, 4, window=3)
    assert box.take() == [1, 2, 3]
    assert box.take() == []
    assert box.confirmed(1, False, True) == [(1, True)]
    assert box.take() == [4]
    assert box.pending == 3


def test_the_window_is_bounded_in_bytes_but_one_message_may_always_go() -> None:
    box: Outbox[str] = Outbox(10, 100)
    box.opened()
    for value, size in (("large", 1000), ("small", 60), ("other", 60)):
        box.put(value, size)
    assert box.take() == ["large"]
    assert box.confirmed(1, False, True) == [("large", True)]
    assert box.take() == ["small"]
    box.confirmed(2, False, True)
    assert box.take() == ["other"]


def test_a_multiple_confirm_settles_all_up_to_its_tag_and_tag_zero_all() -> None:
    box = outbox(1, 2, 3, 4, 5)
    box.take()
    assert box.confirmed(2, False, True) == [(2, True)]
    assert box.confirmed(3, True, True) == [(1, True), (3, True)]
    assert box.confirmed(3, True, True) == []
    assert box.confirmed(0, True, False) == [(4, False), (5, False)]
    assert box.pending == 0


def test_a_returned_message_is_settled_as_not_taken_by_the_confirm_that_follows() -> None:
    box = outbox(7, 8, 7, 7)
    box.take()
    assert box.returned(lambda value: value == 8)
    assert box.returned(lambda value: value == 7), "the next one: returns come in the order of publication"
    assert not box.returned(lambda value: value == 8)
    assert box.confirmed(4, True, True) == [(7, True), (8, False), (7, False), (7, True)]


def test_a_message_that_was_returned_before_the_channel_was_lost_gets_another_chance() -> None:
    box = outbox(7)
    box.take()
    box.returned(lambda value: True)
    assert box.closed(blamed=False) == []
    box.opened()
    assert box.take() == [7]
    assert box.confirmed(1, False, True) == [(7, True)]


def test_after_a_loss_the_unconfirmed_go_again_first_in_their_order() -> None:
    box = outbox(1, 2, 3, 4, 5, window=4)
    box.take()
    box.confirmed(2, False, True)
    assert box.closed(blamed=False) == []
    box.opened()
    assert box.take() == [1, 3, 4, 5]
    assert box.confirmed(4, True, True) == [(1, True), (3, True), (4, True), (5, True)]


def test_a_message_that_closes_the_channel_is_found_and_only_it_is_refused() -> None:
    box = outbox(1, 2, 3, 4)
    box.take()
    assert box.closed(blamed=True) == []
    box.opened()
    assert box.take() == [1], "one at a time, to see which"
    assert box.confirmed(1, False, True) == [(1, True)]
    assert box.take() == [2]
    assert box.closed(blamed=True) == [(2, False)]
    box.opened()
    assert box.take() == [3]
    box.confirmed(1, False, True)
    assert box.take() == [4]
    box.confirmed(2, False, True)
    for value in (5, 6):
        box.put(value, 1)
    assert box.take() == [5, 6], "trust is restored"


def test_the_oldest_number_tells_when_everything_before_is_settled() -> None:
    box = outbox(1, 2, 3, window=2)
    assert (box.last_number, box.oldest_number) == (3, 1)
    box.take()
    box.confirmed(1, False, True)
    assert box.oldest_number == 2
    box.confirmed(2, False, True)
    assert box.oldest_number == 3
    box.take()
    box.confirmed(3, False, True)
    assert box.oldest_number == 4


def test_the_end_settles_everything_as_not_taken() -> None:
    box = outbox(1, 2, 3, window=2)
    box.take()
    assert box.drain() == [(1, False), (2, False), (3, False)]
    assert (box.pending, box.drain()) == (0, [])


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        Outbox(0, 100)


class Broker:
    """Takes what an outbox sends; closes the channel on poison (multiples of 7), and may lose it by chance."""

    def __init__(self, box: Outbox[int]) -> None:
        self.box = box
        self.arrived: list[int] = []
        self.settled: dict[int, bool] = {}
        self._sent = self._confirmed = 0
        box.opened()

    def turn(self, *, confirm: int, is_lost: bool) -> None:
        """One exchange: what may be sent is sent; then `confirm` messages are confirmed, or the channel goes."""
        batch = self.box.take()
        poison = next((index for index, value in enumerate(batch) if value % 7 == 0), None)
        self.arrived += batch if poison is None else batch[:poison]
        self._sent += len(batch)
        if poison is not None or is_lost:
            self._settle(self.box.closed(blamed=poison is not None))
            self.box.opened()
            self._sent = self._confirmed = 0
        elif confirm and self._confirmed < self._sent:
            self._confirmed = min(self._sent, self._confirmed + confirm)
            self._settle(self.box.confirmed(self._confirmed, True, True))

    def _settle(self, pairs: list[tuple[int, bool]]) -> None:
        for value, ok in pairs:
            assert value not in self.settled, "settled once"
            self.settled[value] = ok


TURNS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=30)


@settings(max_examples=300)
@given(TURNS, st.integers(1, 6))
def test_nothing_is_lost_or_reordered_and_only_poison_is_refused(
    turns: list[tuple[int, int, bool]], window: int
) -> None:
    box: Outbox[int] = Outbox(window, 1_000_000)
    broker = Broker(box)
    for puts, confirm, is_lost in turns:
        for _ in range(puts):
            box.put(box.last_number + 1, 1)
        broker.turn(confirm=confirm, is_lost=is_lost)
    while box.pending:
        broker.turn(confirm=window, is_lost=False)
    assert broker.settled == {value: value % 7 != 0 for value in range(1, box.last_number + 1)}
    firsts = list(dict.fromkeys(broker.arrived))
    assert firsts == [value for value in range(1, box.last_number + 1) if value % 7], "all, in order of publication"
