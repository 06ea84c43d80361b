"""The feed of one queue, by values, and against a model of store, queue and consumer in random interleavings."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from farcall.service.relay.feed import Command, Entry, Feed, Publish, Purge, ReadPage, Taken, Window

WINDOW = Window(messages=4, size=40)


def entry(seq: int, size: int = 1) -> Entry:
    return Entry(seq, f"t{seq}", size, None)


def entries(*seqs: int) -> list[Entry]:
    return [entry(seq) for seq in seqs]


def published(commands: list[Command]) -> list[int]:
    return [each.seq for command in commands if isinstance(command, Publish) for each in command.entries]


def page_asked(commands: list[Command]) -> ReadPage | None:
    return next((command for command in commands if isinstance(command, ReadPage)), None)


def caught_up(window: Window = WINDOW) -> Feed:
    feed = Feed(window)
    asked = page_asked(feed.attached())
    assert asked is not None
    feed.page(asked.epoch, [], is_last=True)
    assert feed.is_caught_up
    return feed


def test_nothing_is_published_while_nobody_consumes() -> None:
    feed = Feed(WINDOW)
    assert feed.committed(entries(1, 2)) == []
    assert feed.settled(3) == []


def test_an_attachment_begins_with_an_empty_queue_at_the_oldest_entry() -> None:
    feed = caught_up()
    feed.committed(entries(1, 2))
    assert feed.detached() == [Purge()]
    commands = feed.attached()
    assert commands == [Purge(), ReadPage(commands[1].epoch, 0, 4, 40)]  # type: ignore[union-attr]


def test_fresh_entries_go_out_without_a_read_once_the_feed_is_caught_up() -> None:
    assert published(caught_up().committed(entries(5, 6))) == [5, 6]


def test_entries_beyond_the_window_wait_in_the_store_until_half_of_it_is_free() -> None:
    feed = caught_up()
    assert published(feed.committed(entries(1, 2, 3, 4, 5, 6))) == [1, 2, 3, 4]
    assert feed.settled(1) == []
    assert page_asked(feed.settled(1)) == ReadPage(1, 4, 2, 38)


def test_what_is_committed_behind_a_backlog_is_not_published_out_of_turn() -> None:
    feed = caught_up()
    feed.committed(entries(1, 2, 3, 4, 5))
    assert feed.committed(entries(6)) == []


def test_a_commit_during_a_read_makes_the_feed_read_again() -> None:
    feed = Feed(WINDOW)
    asked = page_asked(feed.attached())
    assert asked is not None
    assert feed.committed(entries(2)) == []
    commands = feed.page(asked.epoch, entries(1), is_last=True)
    assert published(commands) == [1]
    assert page_asked(commands) == ReadPage(asked.epoch, 1, 3, 39)


def test_an_entry_that_a_page_showed_already_is_not_published_again_by_its_commit() -> None:
    feed = Feed(WINDOW)
    asked = page_asked(feed.attached())
    assert asked is not None
    feed.page(asked.epoch, entries(1, 2), is_last=True)
    assert published(feed.committed(entries(2, 3))) == [3]


def test_a_page_of_an_earlier_attachment_is_ignored() -> None:
    feed = Feed(WINDOW)
    old = page_asked(feed.attached())
    assert old is not None
    feed.detached()
    feed.attached()
    assert feed.page(old.epoch, entries(1), is_last=True) == []


def test_one_message_larger_than_the_window_is_published_alone() -> None:
    feed = caught_up()
    assert published(feed.committed([entry(1, 1000), entry(2)])) == [1]
    assert feed.unacknowledged == 1


def test_size_counts_against_the_window() -> None:
    assert published(caught_up().committed([entry(1, 30), entry(2, 10), entry(3, 1)])) == [1, 2]


def test_a_failed_read_is_tried_again_at_the_next_occasion() -> None:
    feed = Feed(WINDOW)
    asked = page_asked(feed.attached())
    assert asked is not None
    feed.page_failed(asked.epoch)
    assert page_asked(feed.settled(0)) == asked


def test_what_is_committed_elsewhere_is_read() -> None:
    assert page_asked(caught_up().committed_elsewhere()) is not None


def test_a_withdrawn_entry_is_announced_to_the_consumer_that_may_have_it() -> None:
    feed = caught_up()
    feed.committed(entries(1, 2))
    assert published(feed.withdrawn(entry(1))) == [1]
    assert feed.unacknowledged == 3


def test_a_withdrawn_entry_that_was_not_published_is_not_announced() -> None:
    feed = caught_up()
    feed.committed(entries(1, 2, 3, 4, 5))
    assert feed.withdrawn(entry(5)) == []
    assert Feed(WINDOW).withdrawn(entry(5)) == []


def test_an_entry_withdrawn_while_its_page_is_read_is_left_out() -> None:
    feed = Feed(WINDOW)
    asked = page_asked(feed.attached())
    assert asked is not None
    feed.withdrawn(entry(2))
    assert published(feed.page(asked.epoch, entries(1, 2, 3), is_last=True)) == [1, 3]


def test_settled_seq_is_the_last_entry_whose_message_was_acknowledged() -> None:
    feed = caught_up()
    feed.committed(entries(7, 9, 11))
    feed.settled(2)
    assert feed.settled_seq == 9


class World:
    """A store, a queue with one consumer, and the feed between them; reads take their snapshot when asked to run."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.feed = Feed(window)
        self.open: dict[int, Entry] = {}
        self.next_seq = 1
        self.untold: deque[list[Entry]] = deque()
        self.reads: deque[ReadPage] = deque()
        self.results: deque[tuple[int, list[Entry], bool]] = deque()
        self.queue: deque[Entry] = deque()
        self.seen: list[int] = []
        self.attached = False

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Purge):
                self.queue.clear()
            elif isinstance(command, ReadPage):
                self.reads.append(command)
            else:
                assert self.attached
                self.queue.extend(command.entries)
                self.seen += [each.seq for each in command.entries]
        out = list(self.queue)
        assert len(out) <= self.window.messages
        assert sum(each.size for each in out[:-1]) <= self.window.size

    def commit(self, sizes: list[int]) -> None:
        fresh = [entry(self.next_seq + at, size) for at, size in enumerate(sizes)]
        self.next_seq += len(fresh)
        self.open.update({each.seq: each for each in fresh})
        self.untold.append(fresh)

    def tell(self) -> None:
        if self.untold:
            self.do(self.feed.committed(self.untold.popleft()))

    def run_read(self) -> None:
        if self.reads:
            asked = self.reads.popleft()
            found = [each for seq, each in sorted(self.open.items()) if seq > asked.after]
            page: list[Entry] = []
            for each in found[: asked.messages]:
                if page and sum(one.size for one in page) + each.size > asked.size:
                    break
                page.append(each)
            self.results.append((asked.epoch, page, len(page) == len(found)))

    def finish_read(self) -> None:
        if self.results:
            epoch, page, is_last = self.results.popleft()
            self.do(self.feed.page(epoch, page, is_last=is_last))

    def ack(self) -> None:
        if self.queue:
            self.queue.popleft()
            self.do(self.feed.settled(1))

    def end_oldest(self) -> None:
        if self.open:
            del self.open[min(self.open)]

    def attach(self) -> None:
        if not self.attached:
            self.attached = True
            self.seen = []
            self.do(self.feed.attached())

    def detach(self) -> None:
        if self.attached:
            self.do(self.feed.detached())
            self.attached = False

    def settle_everything(self) -> None:
        """Let all that is under way finish, with a consumer that acknowledges."""
        while self.untold or self.reads or self.results or self.queue:
            self.tell()
            self.run_read()
            self.finish_read()
            self.ack()


_SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=6)
_STEPS = st.one_of(
    st.tuples(st.just("commit"), _SIZES),
    *(st.just((name,)) for name in ("tell", "run_read", "finish_read", "ack", "ack", "end_oldest", "attach", "detach")),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(_STEPS, max_size=60), messages=st.integers(1, 5), size=st.integers(1, 60))
def test_every_open_entry_reaches_each_attachment_in_order_and_within_the_window(
    steps: list[tuple[object, ...]], messages: int, size: int
) -> None:
    world = World(Window(messages=messages, size=size))
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    world.attach()
    world.settle_everything()
    assert world.seen == sorted(set(world.seen))
    assert set(world.open) <= set(world.seen)
    assert world.feed.is_caught_up


def test_what_was_acknowledged_is_told_if_asked() -> None:
    feed = caught_up()
    feed.tells_taken = True
    feed.committed(entries(5, 6, 7))
    assert feed.settled(2) == [Taken([5, 6])]


def test_beginning_again_leaves_out_what_is_out_and_what_is_not_to_be_sent() -> None:
    feed = caught_up()
    feed.committed(entries(1, 2, 3))
    feed.settled(2)
    asked = page_asked(feed.again())
    assert asked is not None
    assert asked.after == 0
    assert feed.committed(entries(4)) == []
    commands = feed.page(asked.epoch, entries(1, 2, 3), is_last=True, not_these={2})
    assert published(commands) == [1]
    following = page_asked(commands)
    assert following is not None
    assert published(feed.page(following.epoch, entries(4), is_last=True)) == [4]
    assert feed.is_caught_up


def test_a_page_of_which_nothing_is_to_be_sent_is_not_read_for_ever() -> None:
    feed = Feed(WINDOW)
    asked = page_asked(feed.attached())
    assert asked is not None
    commands = feed.page(asked.epoch, entries(1, 2), is_last=False, not_these={1, 2})
    following = page_asked(commands)
    assert following is not None
    assert following.after == 2


def test_who_does_not_understand_cancellations_is_sent_none() -> None:
    feed = caught_up()
    feed.committed(entries(1))
    assert feed.withdrawn(entry(1), tell=False) == []
    assert published(feed.withdrawn(entry(1))) == [1]


# --- Brokers that do not tell what was acknowledged ---------------------------------------------------------------


def by_ends() -> Feed:
    feed = Feed(WINDOW, by_ends=True)
    asked = page_asked(feed.attached())
    assert asked is not None
    feed.page(asked.epoch, entries(1, 2, 3, 4), is_last=False)
    assert feed.unacknowledged == 4
    return feed


def test_room_comes_of_tasks_that_end_in_whatever_order() -> None:
    feed = by_ends()
    assert feed.ended([3]) == []
    asked = page_asked(feed.ended([1, 9]))  # the last was not published
    assert asked is not None
    assert (asked.after, asked.messages) == (4, 2)


def test_an_end_counts_once() -> None:
    feed = by_ends()
    feed.ended([3])
    feed.ended([3])
    assert feed.unacknowledged == 3


def test_what_ends_while_a_page_is_read_is_not_published() -> None:
    feed = by_ends()
    asked = page_asked(feed.ended([1, 2]))
    assert asked is not None
    feed.ended([5])
    assert published(feed.page(asked.epoch, entries(5, 6), is_last=True)) == [6]
    assert feed.unacknowledged == 3


def test_cancellations_take_no_room() -> None:
    feed = by_ends()
    feed.ended([1])
    assert published(feed.withdrawn(entry(1))) == [1]
    assert feed.unacknowledged == 3


def test_ends_of_which_only_the_number_is_known_make_room_too() -> None:
    feed = by_ends()
    assert page_asked(feed.settled(2)) is not None
    assert feed.unacknowledged == 2
