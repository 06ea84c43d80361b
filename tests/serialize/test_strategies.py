from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall import ShellFunction
from farcall.serialize import (
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    ComputeSerializer,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    DillDataBase64,
    JSONData,
    PickleCode,
    PureSourceDill,
    PureSourceTextInspect,
    SerializationStrategy,
    base,
    import_path_of,
    strategy_from,
)
from farcall.wire.errors import DeserializationError, SerializationError
from farcall.wire.framing import pack_buffers

CODE = [
    DillCode,
    DillCodeTextInspect,
    DillCodeSource,
    PureSourceDill,
    PureSourceTextInspect,
    CombinedCode,
    AllCodeStrategies,
]
SOURCE = [DillCodeTextInspect, DillCodeSource, PureSourceDill, PureSourceTextInspect]
CODES = {
    DillDataBase64: "00\n",
    DillCode: "01\n",
    PickleCode: "02\n",
    DillCodeTextInspect: "03\n",
    DillCodeSource: "04\n",
    CombinedCode: "10\n",
    JSONData: "11\n",
    AllCodeStrategies: "12\n",
    AllDataStrategies: "13\n",
    PureSourceDill: "sd\n",
    PureSourceTextInspect: "st\n",
}

SOURCE_TEXT = '''
def shout(word, *, marks="!"):
    """A colon: in the documentation."""
    table = {"a": 1, "b": [word, marks]}
    return ":".join(table["b"]).upper()
'''


def loads(text: str) -> Any:
    return ComputeSerializer().deserialize(text)


@pytest.fixture
def shout(in_main: Callable[[str, str], Any]) -> Any:
    return in_main(SOURCE_TEXT, "shout")


@pytest.mark.parametrize("cls", CODES)
def test_every_strategy_has_its_code_of_the_protocol(cls: type[SerializationStrategy]) -> None:
    assert cls.identifier == CODES[cls]


@pytest.mark.parametrize("cls", CODE)
def test_a_function_comes_back_working(cls: type[SerializationStrategy], shout: Any) -> None:
    text = cls().serialize(shout)
    assert text.startswith(cls.identifier)
    assert loads(text)("hi", marks="?") == "HI:?"


@pytest.mark.parametrize("cls", CODE)
def test_a_function_nested_in_another_comes_back_working(cls: type[SerializationStrategy]) -> None:
    def nested(x: int) -> int:
        # indented in this file
        return x + 1

    assert loads(cls().serialize(nested))(1) == 2


@pytest.mark.parametrize("cls", SOURCE)
@pytest.mark.parametrize(
    "function", [len, ShellFunction("ls"), lambda x: x, str], ids=["C", "object", "lambda", "class"]
)
def test_what_has_no_source_is_refused_with_the_way_out(cls: type[SerializationStrategy], function: Any) -> None:
    with pytest.raises(SerializationError, match="DillCode"):
        cls().serialize(function)


@pytest.mark.parametrize("function", [len, ShellFunction("ls")], ids=["C", "object"])
def test_combinations_leave_out_what_cannot_be_written(function: Any) -> None:
    for cls in (AllCodeStrategies, CombinedCode):
        assert callable(loads(cls().serialize(function)))


def test_source_runs_in_a_namespace_of_its_own() -> None:
    count = loads("st\ncount:calls = []\ndef count():\n    calls.append(1)\n    return len(calls)\n")
    again = loads("st\ncount:calls = []\ndef count():\n    calls.append(1)\n    return len(calls)\n")
    assert (count(), count(), again()) == (1, 2, 1)


def test_indented_source_of_the_other_ecosystem_is_read() -> None:
    assert loads("st\nf:    def f(x):\n        return x\n")(4) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "header"),
        ("1", "header"),
        ("zz\nabc", "header"),
        ("11\nnope", "JSON"),
        ("00\n", "Cannot load"),
        ("00\nnotbase64!!", "base64"),
        ("st\nno colon", "colon"),
        ("st\nf:def g(): pass\n", "does not define 'f'"),
        ("st\nf:def f(:\n", "not valid for Python"),
        ("sd\nf:import no_such_thing\n", "No module named 'no_such_thing'"),
        ("st\n<lambda>:lam = lambda x: x\n", "[Ll]ambda"),
        ("04\n" + DillDataBase64().serialize(5)[3:], "pair"),
        ("13\n", "None of the 0"),
        ("13\n5\n11\n[1", "not JSON"),
        ("13\n50\n11\n[1]", "Damaged"),
        ("13\nxx", "Damaged"),
        ("12\n" + pack_buffers(["11\n[1]"]), "no part"),
        ("10\n01\n", "None of"),
    ],
)
def test_damaged_text_is_a_deserialization_error_that_says_why(text: str, says: str) -> None:
    with pytest.raises(DeserializationError, match=says):
        loads(text)


def test_pickle_code_is_read_but_not_written() -> None:
    assert loads("02\ngASVFAAAAAAAAACMCGJ1aWx0aW5zlIwDbGVulJOULg==\n") is len
    with pytest.raises(SerializationError, match="DillCode"):
        PickleCode().serialize(len)


@given(st.lists(st.text(max_size=20) | st.integers(), max_size=5))
def test_all_data_strategies_read_what_they_write(values: list[Any]) -> None:
    assert loads(AllDataStrategies().serialize(values)) == values
    assert loads(AllDataStrategies().serialize(set(values))) == set(values)


def test_worked_example_of_the_protocol() -> None:
    code = "st\ntriple:def triple(n):\n    return 3 * n\n"
    task_buffer = pack_buffers([code, "11\n[7]", "11\n{}"])
    assert task_buffer == "42\n" + code + "6\n11\n[7]5\n11\n{}"
    function, args, kwargs = ComputeSerializer().unpack_and_deserialize(task_buffer)
    assert JSONData().serialize(function(*args, **kwargs)) == "11\n21"
    assert DillDataBase64().serialize((7,)) == "00\ngASVBQAAAAAAAABLB4WULg==\n"
    assert AllDataStrategies().serialize((7,)) == "13\n6\n11\n[7]28\n00\ngASVBQAAAAAAAABLB4WULg==\n"


@pytest.mark.parametrize("cls", CODES)
@pytest.mark.parametrize(
    "module", ["globus_compute_sdk.serialize.concretes", "globus_compute_sdk.serialize", "farcall.serialize"]
)
def test_a_strategy_is_found_by_its_path_in_either_spelling(cls: type[SerializationStrategy], module: str) -> None:
    assert type(strategy_from(f"{module}.{cls.__name__}")) is cls


def test_the_path_that_travels_is_the_one_that_both_ecosystems_load() -> None:
    for value in (JSONData, JSONData(), "farcall.serialize.JSONData"):
        assert import_path_of(value) == "globus_compute_sdk.serialize.concretes.JSONData"


@pytest.mark.parametrize(
    "value", ["nope", "json.JSONDecoder", "farcall.serialize.Nope", "globus_compute_sdk.x.JSONData", int, 5, None, ""]
)
def test_what_is_no_strategy_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no serialization strategy"):
        strategy_from(value)


def test_a_strategy_of_ones_own_is_known_once_its_class_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_by_identifier", dict(base._by_identifier))
    monkeypatch.setattr(base, "_by_name", dict(base._by_name))

    class Reversed(SerializationStrategy):
        identifier = "~1\n"
        for_code = False

        def serialize(self, data: str) -> str:
            return self.identifier + data[::-1]

        def deserialize(self, payload: str, *, python_version: str | None = None) -> str:
            return payload[:2:-1]

    serializer = ComputeSerializer(strategy_data=Reversed)
    assert serializer.serialize("abc") == "~1\ncba"
    assert serializer.deserialize("~1\ncba") == "abc"
    with pytest.raises(ValueError, match="already"):
        type("Thief", (SerializationStrategy,), {"identifier": "00\n"})
    with pytest.raises(ValueError, match="two characters"):
        type("Short", (SerializationStrategy,), {"identifier": "x"})


def test_annotations_may_name_what_does_not_travel_along() -> None:
    function = ComputeSerializer().deserialize("st\nf:def f(x: np.ndarray = 2) -> Missing:\n    return x\n")
    assert function() == 2
    assert function.__annotations__ == {"x": "np.ndarray", "return": "Missing"}
