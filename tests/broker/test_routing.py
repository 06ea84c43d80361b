"""Exchanges: which bindings fit a key."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from farcall.broker.routing import Exchange, ExchangeKind, topic_matches

words = st.lists(st.sampled_from(["a", "b", ""]), max_size=6)
patterns = st.lists(st.sampled_from(["a", "b", "*", "#", ""]), max_size=6)


def fits(pattern: tuple[str, ...], key: list[str]) -> bool:
    """The definition, slowly."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(fits(pattern[1:], key[at:]) for at in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and fits(pattern[1:], key[1:])


@given(patterns.map(tuple), words)
@example(("#", "a", "#", "b"), ["a", "a", "b", "b"])
def test_a_pattern_fits_by_its_definition(pattern: tuple[str, ...], key: list[str]) -> None:
    assert topic_matches(pattern, key) == fits(pattern, key)


def test_a_hostile_pattern_takes_no_longer_than_the_product_of_the_lengths() -> None:
    assert not topic_matches(("#", "a") * 40 + ("b",), ["a"] * 120)  # exponential if tried one by one


@given(
    st.sampled_from(ExchangeKind),
    st.lists(st.tuples(st.integers(0, 3), patterns.map(".".join)), max_size=8),
    st.lists(st.integers(0, 7), max_size=4),
    words.map(".".join),
)
def test_a_key_leads_to_each_queue_once_that_is_bound_for_it(
    kind: ExchangeKind, bindings: list[tuple[int, str]], undone: list[int], key: str
) -> None:
    exchange: Exchange[int] = Exchange("x", kind)
    for queue, binding in bindings:
        exchange.bind(queue, binding)
    left = set(bindings)
    for index in undone:
        if index < len(bindings):
            assert exchange.unbind(*bindings[index]) == (bindings[index] in left)
            left.discard(bindings[index])
    found = exchange.route(key)
    expected = {
        queue
        for queue, binding in left
        if kind is ExchangeKind.FANOUT
        or (binding == key if kind is ExchangeKind.DIRECT else fits(tuple(binding.split(".")), key.split(".")))
    }
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert exchange.in_use == bool(left)
