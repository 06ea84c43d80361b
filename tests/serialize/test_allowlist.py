from __future__ import annotations

from typing import Any

import pytest

from farcall.serialize import (
    AllCodeStrategies,
    AllDataStrategies,
    AllowlistWildcard,
    ComputeSerializer,
    DillCode,
    DillDataBase64,
    JSONData,
    PickleCode,
    PureSourceDill,
    parse_allowlist,
)
from farcall.wire.errors import DeserializationError

PICKLED = DillDataBase64().serialize((1,))


@pytest.mark.parametrize(
    "json", [JSONData, JSONData(), "globus_compute_sdk.serialize.JSONData", "farcall.serialize.JSONData"]
)
@pytest.mark.parametrize("code", [AllowlistWildcard.CODE, "globus_compute_sdk.*Code", "farcall.*Code", DillCode])
def test_only_listed_strategies_are_read_however_they_are_written(json: Any, code: Any) -> None:
    serializer = ComputeSerializer(allowed_deserializer_types=[json, code])
    assert serializer.deserialize("11\n[1]") == [1]
    assert serializer.deserialize(DillCode().serialize(len)) is len
    with pytest.raises(DeserializationError, match=r"arguments serialized with DillDataBase64.*accepts JSONData"):
        serializer.deserialize(PICKLED)


def test_a_refused_payload_is_not_loaded() -> None:
    bomb = "00\n" + "gASVGgAAAAAAAACMBXBvc2l4lIwFX2V4aXSUk5RLCYWUUpQu\n"  # os._exit(9)
    with pytest.raises(DeserializationError, match="does not accept"):
        ComputeSerializer(allowed_deserializer_types=[JSONData, DillCode]).deserialize(bomb)


def test_wildcards_hold_all_of_their_kind_but_what_only_reads_old_payloads() -> None:
    code, both = parse_allowlist(["farcall.*Code", JSONData]), parse_allowlist(list(AllowlistWildcard))
    assert PureSourceDill in code
    assert AllDataStrategies not in code
    assert {AllDataStrategies, AllCodeStrategies} <= both
    assert PickleCode not in both


def test_an_allowed_combination_allows_its_parts_inside_of_it() -> None:
    serializer = ComputeSerializer(allowed_deserializer_types=[AllDataStrategies, DillCode])
    assert serializer.deserialize(AllDataStrategies().serialize({1})) == {1}
    with pytest.raises(DeserializationError):
        serializer.deserialize(PICKLED)


@pytest.mark.parametrize("entries", [None, [], ()])
def test_no_list_allows_everything(entries: Any) -> None:
    assert ComputeSerializer(allowed_deserializer_types=entries).deserialize(PICKLED) == (1,)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([JSONData], "none for functions"),
        ([DillCode], "none for data"),
        ([DillCode, JSONData, "nope"], "'nope' is no serialization strategy"),
        (["farcall.*", JSONData], "no serialization strategy"),
        ([DillCode, 5], "5 is no"),
        ("farcall.*Code", "a list"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_at_once(entries: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ComputeSerializer(allowed_deserializer_types=entries)
