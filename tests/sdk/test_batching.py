from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.sdk.batching import Batch, Call, Route, cost_bytes, parts_after_refusal, plan_batches
from farcall.wire.errors import (
    EndpointNotFound,
    FunctionNotFound,
    InvalidRequest,
    PayloadTooLarge,
    ServiceUnreachable,
    Unauthenticated,
)

HERE = Route(endpoint_id="e1", task_group_id="g")
THERE = Route(endpoint_id="e2", task_group_id="g")
F, G = "f", "g"


def calls(count: int, route: Route = HERE, function: str = F, payload: str = "p") -> list[Call[str]]:
    return [Call(route=route, function=function, payload=payload, owner=n) for n in range(count)]


def test_calls_of_one_route_travel_together() -> None:
    batches = plan_batches([*calls(3), *calls(2, THERE), *calls(1)], batch_size=128)
    assert [(batch.route, len(batch.calls)) for batch in batches] == [(HERE, 4), (THERE, 2)]


def test_a_request_holds_at_most_the_batch_size() -> None:
    assert [len(batch.calls) for batch in plan_batches(calls(10), batch_size=4)] == [4, 4, 2]


def test_a_request_stays_within_its_size_and_a_giant_travels_alone() -> None:
    sized = [Call(route=HERE, function=F, payload="x" * size, owner=size) for size in (10, 10, 500, 10)]
    batches = plan_batches(sized, batch_size=128, limit_bytes=60)
    assert [[call.owner for call in batch.calls] for batch in batches] == [[10, 10], [500], [10]]


def test_each_request_has_a_key_of_its_own() -> None:
    one, two = plan_batches(calls(2), batch_size=1)
    assert one.key != two.key


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        plan_batches(calls(1), batch_size=0)


@given(st.text())
def test_the_cost_of_a_payload_is_what_it_takes_in_json(payload: str) -> None:
    assert cost_bytes(payload) == len(json.dumps([payload, payload])) - len(json.dumps([payload])) - len(" ")


@given(
    st.lists(st.tuples(st.sampled_from([HERE, THERE]), st.integers(0, 200))),
    st.integers(1, 7),
    st.integers(10, 1000),
)
def test_every_call_travels_once_in_order_within_the_bounds(spec, batch_size: int, limit_bytes: int) -> None:
    made = [Call(route=route, function=F, payload="x" * n, owner=i) for i, (route, n) in enumerate(spec)]
    batches = plan_batches(made, batch_size=batch_size, limit_bytes=limit_bytes)
    for route in (HERE, THERE):
        sent = [call.owner for batch in batches if batch.route == route for call in batch.calls]
        assert sent == [call.owner for call in made if call.route == route]
    for batch in batches:
        assert 1 <= len(batch.calls) <= batch_size
        assert {call.route for call in batch.calls} == {batch.route}
        assert len(batch.calls) == 1 or sum(cost_bytes(call.payload) for call in batch.calls) <= limit_bytes


def owners(batches: list[Batch[str]]) -> list[list[object]]:
    return [[call.owner for call in batch.calls] for batch in batches]


def test_a_refused_function_is_separated_from_the_others() -> None:
    batch = Batch(route=HERE, calls=[*calls(2, function=F), *calls(3, function=G)])
    parts = parts_after_refusal(batch, FunctionNotFound("f"))
    assert owners(parts) == [[0, 1], [0, 1, 2]]
    assert len({batch.key, *(part.key for part in parts)}) == 3
    assert parts_after_refusal(parts[0], FunctionNotFound("f")) == []


def test_a_refused_payload_is_separated_by_halves() -> None:
    batch = Batch(route=HERE, calls=calls(5))
    assert owners(parts_after_refusal(batch, PayloadTooLarge("x"))) == [[0, 1], [2, 3, 4]]
    assert owners(parts_after_refusal(batch, InvalidRequest("x"))) == [[0, 1], [2, 3, 4]]
    assert parts_after_refusal(Batch(route=HERE, calls=calls(1)), PayloadTooLarge("x")) == []


@pytest.mark.parametrize("error", [EndpointNotFound("e"), Unauthenticated("t"), ServiceUnreachable("u", "r")])
def test_what_concerns_all_calls_is_not_taken_apart(error) -> None:
    assert parts_after_refusal(Batch(route=HERE, calls=calls(5)), error) == []


@given(st.lists(st.sampled_from("fgh"), min_size=1, max_size=30), st.data())
def test_taking_apart_ends_and_spares_the_innocent(functions: list[str], data) -> None:
    made = [Call(route=HERE, function=name, payload="p", owner=i) for i, name in enumerate(functions)]
    guilty = data.draw(st.sets(st.integers(0, len(made) - 1)))
    waiting, accepted, failed = [Batch(route=HERE, calls=made)], set(), set()
    while waiting:
        batch = waiting.pop()
        if not any(call.owner in guilty for call in batch.calls):
            accepted |= {call.owner for call in batch.calls}
            continue
        parts = parts_after_refusal(batch, InvalidRequest("x"))
        if not parts:
            failed |= {call.owner for call in batch.calls}
        waiting.extend(parts)
    assert failed == guilty
    assert accepted == set(range(len(made))) - guilty
