"""Acknowledgements, by values and against a broker's books."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcall.amqp.acks import AckTracker


def tracker(delivered: int) -> AckTracker:
    made = AckTracker()
    for tag in range(1, delivered + 1):
        made.delivered(tag)
    return made


def test_a_run_at_the_low_end_needs_one_acknowledgement() -> None:
    acks = tracker(5)
    acks.ack([1, 2, 3])
    assert acks.take() == [(3, True)]
    acks.ack([4])
    assert acks.take() == [(4, False)]
    assert acks.take() == []


def test_tags_above_a_gap_go_one_by_one_until_the_gap_is_closed() -> None:
    acks = tracker(6)
    acks.ack([3, 5])
    assert acks.take() == [(3, False), (5, False)]
    acks.ack([2, 1, 6])
    assert acks.take() == [(2, True), (6, False)]
    acks.ack([4])
    assert acks.take() == [(4, False)]
    assert acks.unsettled == 0


def test_the_tag_of_a_multiple_acknowledgement_is_never_one_that_is_settled() -> None:
    acks = tracker(4)
    acks.ack([3])
    acks.take()
    acks.ack([1, 2])
    assert acks.take() == [(2, True)]


def test_unknown_tags_and_second_times_are_ignored() -> None:
    acks = tracker(3)
    acks.ack([0, 4, -1])
    assert acks.take() == []
    acks.ack([1, 1, 2])
    acks.take()
    acks.ack([1, 2])
    assert acks.take() == []
    assert not acks.give_back(1)
    assert not acks.give_back(9)


def test_what_is_given_back_is_not_acknowledged_and_what_is_acknowledged_not_given_back() -> None:
    acks = tracker(3)
    acks.ack([1])
    assert not acks.give_back(1)
    assert acks.give_back(2)
    assert not acks.give_back(2)
    acks.ack([2, 3])
    assert acks.unsettled == 0
    assert acks.take() == [(3, True)]


class Books:
    """A broker's side of a channel, which treats a wrong tag as RabbitMQ does: the channel would be closed."""

    def __init__(self) -> None:
        self.outstanding: set[int] = set()
        self.acked: set[int] = set()

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.outstanding, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        covered = {each for each in self.outstanding if each <= tag} if multiple else {tag}
        self.outstanding -= covered
        self.acked |= covered


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("deliver"), st.integers(1, 5)),
            st.tuples(st.just("ack"), st.lists(st.integers(1, 30), max_size=8)),
            st.tuples(st.just("give back"), st.integers(1, 30)),
            st.tuples(st.just("take"), st.none()),
        ),
        max_size=60,
    )
)
def test_exactly_what_was_acknowledged_is_acknowledged_whatever_the_order(steps: list[tuple[str, object]]) -> None:
    acks, books = AckTracker(), Books()
    delivered, meant, given_back = 0, set(), set()
    for step, argument in [*steps, ("take", None)]:
        if step == "deliver":
            for _ in range(argument):  # type: ignore[call-overload]
                delivered += 1
                books.outstanding.add(delivered)
                acks.delivered(delivered)
        elif step == "ack":
            acks.ack(argument)  # type: ignore[arg-type]
            meant |= {tag for tag in argument if tag <= delivered} - given_back  # type: ignore[attr-defined]
        elif step == "give back":
            if acks.give_back(argument):  # type: ignore[arg-type]
                books.outstanding.remove(argument)  # type: ignore[arg-type]
                given_back.add(argument)
        else:
            for tag, multiple in acks.take():
                books.ack(tag, multiple)
            assert books.acked == meant
        assert acks.unsettled == delivered - len(meant) - len(given_back)
    assert not meant & given_back
