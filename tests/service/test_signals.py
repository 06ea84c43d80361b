from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.service.cluster.signals import (
    CredentialRevoked,
    EndpointChanged,
    SharesChanged,
    SharesDoubted,
    Signal,
    TasksAdded,
    TasksEnded,
    TasksWithdrawn,
    TokenRevoked,
    of_ends,
    pack,
    unpack,
)
from farcall.service.ids import new_id
from farcall.service.relay.results import TaskRef
from farcall.wire.states import TaskState

ids = st.uuids().map(str)
numbers = st.integers(0, 2**53)
signals = st.one_of(
    st.builds(EndpointChanged, ids, numbers, st.sampled_from(["registered", "locked", "deleted"])),
    st.builds(CredentialRevoked, ids, numbers),
    st.builds(TokenRevoked, st.text("0123456789abcdef", min_size=64, max_size=64)),
    st.just(SharesChanged()),
    st.builds(SharesDoubted, st.lists(st.integers(0, 63), max_size=64).map(tuple)),
    st.builds(TasksWithdrawn, ids, st.lists(st.tuples(numbers, ids), min_size=1, max_size=99).map(tuple)),
)


@given(st.lists(signals, max_size=60, unique=True))
def test_what_is_packed_comes_out_again_in_texts_that_postgresql_takes(told: list[Signal]) -> None:
    texts = pack(told, "me")
    assert all(len(text.encode()) < 8000 for text in texts)
    assert [signal for text in texts for signal in unpack(text)[1]] == told
    assert {unpack(text)[0] for text in texts} <= {"me"}


def test_what_is_said_of_one_endpoint_is_said_together() -> None:
    told = [
        TasksAdded("a", 1),
        TasksEnded("a", (1, 2)),
        TasksAdded("b", 1),
        TasksAdded("a", 4),
        TasksEnded("a", (9,)),
    ]
    (text,) = pack(told, "me")
    assert unpack(text)[1] == [TasksAdded("a", 5), TasksEnded("a", (1, 2, 9)), TasksAdded("b", 1)]


def test_nothing_to_tell_is_no_text() -> None:
    assert pack([], "me") == []


def test_many_ends_are_told_in_pieces() -> None:
    refs = [TaskRef(2**52 + at, new_id(), "g", "o", "e", TaskState.RECEIVED) for at in range(500)]
    texts = pack(of_ends(refs, withdrawn=True), "me")
    assert all(len(text.encode()) < 8000 for text in texts)
    heard = [signal for text in texts for signal in unpack(text)[1]]
    assert [seq for each in heard if isinstance(each, TasksEnded) for seq in each.seqs] == [ref.seq for ref in refs]
    assert [task for each in heard if isinstance(each, TasksWithdrawn) for task in each.tasks] == [
        (ref.seq, ref.id) for ref in refs
    ]


def test_signals_of_a_newer_release_are_passed_over() -> None:
    assert unpack('[1,"x",["zz",1,2],["s"]]') == ("x", [SharesChanged()])
    assert unpack('[2,"x",["s"]]') == ("x", ())


@pytest.mark.parametrize("text", ["", "{}", "[]", '[1,"x",["t"]]', json.dumps([1, "x", [["t"], "a"]])])
def test_what_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be understood"):
        unpack(text)
