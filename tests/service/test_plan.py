from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcall.service.cluster.plan import SLOTS, Member, Pace, plan, slot_of
from farcall.service.ids import new_id


def member(name: str, *, connected: bool = True, silent_s: float = 0.0) -> Member:
    return Member(id=name, backend=hash(name) % 1000 + 1, is_connected=connected, silent_s=silent_s)


def settle(names: list[str], held: dict[str, frozenset[int]]) -> dict[str, frozenset[int]]:
    """Relays that act one after another until none does anything."""
    members = [member(name) for name in names]
    held = {name: held.get(name, frozenset()) for name in names}
    for _ in range(2 * SLOTS):
        before = dict(held)
        for name in names:
            decided = plan(name, members, held[name], frozenset().union(*held.values()))
            held[name] = held[name] - frozenset(decided.release) | frozenset(decided.take)
        if held == before:
            return held
    raise AssertionError("they never agree")


@given(st.lists(st.uuids().map(str), min_size=1, max_size=70, unique=True))
def test_relays_come_to_equal_parts_that_cover_everything(names: list[str]) -> None:
    held = settle(names, {})
    sizes = [len(slots) for slots in held.values()]
    assert sum(sizes) == SLOTS
    assert frozenset().union(*held.values()) == frozenset(range(SLOTS))
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.uuids().map(str), min_size=2, max_size=12, unique=True))
def test_one_that_goes_or_comes_moves_only_what_must_move(names: list[str]) -> None:
    before = settle(names, {})
    gone = names[0]
    after = settle(names[1:], {name: slots for name, slots in before.items() if name != gone})
    assert all(before[name] <= after[name] for name in names[1:])
    back = settle(names, after)
    assert all(back[name] <= after[name] for name in names[1:])


def test_a_relay_alone_takes_all() -> None:
    decided = plan("a", [member("a")], frozenset(), frozenset())
    assert sorted(decided.take) == list(range(SLOTS))


def test_who_is_gone_is_forgotten_and_who_is_silent_is_ended() -> None:
    silent, gone = member("b", silent_s=Pace().gone_s + 0.1), member("c", connected=False)
    slow = member("d", silent_s=Pace().gone_s - 0.1)
    decided = plan("a", [member("a"), silent, gone, slow], frozenset(range(32)), frozenset(range(64)))
    assert set(decided.forget) == {"b", "c"}
    assert decided.end == [silent.backend]
    assert not decided.release, "one of two has half"
    assert not decided.take, "nothing is free yet"


def test_a_relay_never_takes_itself_for_dead() -> None:
    me = member("a", connected=False, silent_s=1e9)
    assert plan("a", [me], frozenset(), frozenset()).forget == []


def test_a_relay_that_the_table_does_not_know_counts_itself() -> None:
    decided = plan("b", [member("a")], frozenset(), frozenset(range(64)))
    assert decided.take == []
    assert len(plan("b", [member("a")], frozenset(), frozenset()).take) == 32


def test_endpoints_spread_over_the_slots() -> None:
    counts = [0] * SLOTS
    for _ in range(6400):
        counts[slot_of(new_id())] += 1
    assert 40 < min(counts) <= max(counts) < 200
