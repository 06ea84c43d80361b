from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from farcall.serialize import ComputeSerializer, DillCode, JSONData, PureSourceTextInspect
from farcall.wire.errors import DeserializationError, FarcallError, FramingError, SerializationError


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Rude:
    def __getstate__(self) -> Any:
        raise ValueError("not today")


def generator() -> Any:
    return (i for i in ())


def test_what_can_be_called_goes_by_the_code_strategy_and_the_rest_by_the_data_strategy() -> None:
    serializer = ComputeSerializer(strategy_data=JSONData)
    assert serializer.serialize(len).startswith("01\n")
    assert serializer.serialize([1]).startswith("11\n")
    assert ComputeSerializer().serialize([1]).startswith("00\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"strategy_code": JSONData()}, "JSONData is a data strategy"),
        ({"strategy_data": DillCode}, "DillCode is a code strategy"),
        ({"strategy_code": "farcall.serialize.PickleCode"}, "does not write"),
        ({"strategy_code": "x.y"}, "no serialization strategy"),
    ],
)
def test_a_strategy_in_the_wrong_place_is_refused(arguments: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ComputeSerializer(**arguments)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (({"a": [1, generator()]},), r"value\[0\]\['a'\]\[1\] is of type generator.*list\(\.\.\.\)"),
        ((1, Holder(fine=1, handle=threading.Thread())), r"value\[1\]\.handle.*inside the function"),
        ((Holder(inner=Holder(deep=generator())),), r"value\[0\]\.inner\.deep is of type generator"),
        ((Rude(),), r"value\[0\] is of type .*Rude.*not today"),
    ],
)
def test_the_part_that_cannot_be_pickled_is_named_with_its_type_and_what_to_do(value: Any, says: str) -> None:
    with pytest.raises(SerializationError, match=says):
        ComputeSerializer().serialize(value)


def test_a_value_that_is_itself_to_blame_is_named_by_its_type() -> None:
    with pytest.raises(SerializationError, match=r"this generator with DillDataBase64: it is of type generator"):
        ComputeSerializer().serialize(generator())


def test_json_says_which_part_it_cannot_hold() -> None:
    with pytest.raises(SerializationError, match=r"args\[0\]\['x'\] is of type set.*use DillDataBase64"):
        ComputeSerializer(strategy_data=JSONData).serialize(({"x": {1}},), what="args")


def test_endless_nesting_is_said_so() -> None:
    nested: list[Any] = []
    for _ in range(200_000):
        nested = [nested]
    with pytest.raises(SerializationError, match="nested too deeply"):
        ComputeSerializer().serialize(nested)


def test_a_closure_is_searched_too(in_main: Callable[[str, str], Any]) -> None:
    function = in_main("def make(held):\n    def inner():\n        return held\n    return inner\n", "make")(
        generator()
    )
    with pytest.raises(SerializationError, match="variable 'held' that the function closes over is of type generator"):
        ComputeSerializer().check_strategies(function)


def test_of_several_strategies_the_first_that_can_writes() -> None:
    both = [JSONData, "globus_compute_sdk.serialize.DillDataBase64", DillCode]
    assert ComputeSerializer.serialize_from_list([1], both).startswith("11\n")
    assert ComputeSerializer.serialize_from_list({1}, both).startswith("00\n")
    assert ComputeSerializer.serialize_from_list(len, both).startswith("01\n")
    assert ComputeSerializer.serialize_from_list({1}, []).startswith("00\n")
    assert ComputeSerializer.serialize_from_list(len, []).startswith("01\n")


def test_when_none_of_several_strategies_can_all_reasons_are_told() -> None:
    with pytest.raises(SerializationError, match=r"JSONData.*set.*Nope"):
        ComputeSerializer.serialize_from_list({1}, [JSONData, "farcall.serialize.Nope"])


def test_a_task_has_three_parts() -> None:
    serializer = ComputeSerializer()
    text = serializer.pack_buffers([serializer.serialize(x) for x in (len, ("abc",), {})])
    function, args, kwargs = serializer.unpack_and_deserialize(text)
    assert function(*args, **kwargs) == 3
    with pytest.raises(DeserializationError, match="2 parts"):
        serializer.unpack_and_deserialize(serializer.pack_buffers(["11\n1", "11\n1"]))
    with pytest.raises(DeserializationError, match="Damaged"):
        serializer.unpack_and_deserialize("xx")
    with pytest.raises(FramingError):
        serializer.unpack_buffers("3\nab")


def test_check_strategies_gives_back_the_call(in_main: Callable[[str, str], Any]) -> None:
    add = in_main("def add(x, y=1):\n    return x + y\n", "add")
    for serializer in (ComputeSerializer(), ComputeSerializer(PureSourceTextInspect(), JSONData())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function, args, kwargs = serializer.check_strategies(add, 1, y=2)
        assert function(*args, **kwargs) == 3
        assert function is not add


def test_check_strategies_names_the_argument() -> None:
    with pytest.raises(SerializationError, match=r"args with DillDataBase64: args\[1\] is of type generator"):
        ComputeSerializer().check_strategies(len, 1, generator())
    with pytest.raises(
        SerializationError, match=r"kwargs with DillDataBase64: kwargs\['stream'\] is of type generator"
    ):
        ComputeSerializer().check_strategies(len, stream=generator())
    with pytest.raises(SerializationError, match="cannot travel as source"):
        ComputeSerializer(PureSourceTextInspect()).check_strategies(len)


def test_check_strategies_warns_of_global_names_that_stay_behind(in_main: Callable[[str, str], Any]) -> None:
    function = in_main("import math\ndef helper(): ...\ndef f(x):\n    return math.sin(len(x)) + helper()\n", "f")
    with pytest.warns(UserWarning, match="f uses the global names helper, math,"):
        ComputeSerializer().check_strategies(function)
    import dill

    dill.settings["recurse"] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            ComputeSerializer().check_strategies(function)
    finally:
        dill.settings["recurse"] = False


def test_errors_survive_a_process_boundary() -> None:
    import pickle

    for error in (SerializationError("why"), DeserializationError("why")):
        assert isinstance(error, FarcallError)
        assert str(pickle.loads(pickle.dumps(error))) == "why"
