"""Bytecode of another Python is never loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dill
import pytest

from farcall.serialize import AllCodeStrategies, ComputeSerializer, DillCode, bytecode, dillpickle, mime
from farcall.wire.errors import DeserializationError

HERE = "{}.{}".format(*sys.version_info[:2])
OTHER = "3.99"
BODIES = {
    # of `def greet(name): import json as js; return [x for x in name] + [js.dumps(name)]`, compiled by these versions
    "3.10": "640164006c007d016402640384007c00440083017c01a0017c00a101670117005300",
    "3.11": "9700640164006c007d01640284007c004400a6000000ab0000000000000000007c01a001000000000000000000000000"
    "00000000000000007c00a6010000ab01000000000000000067017a0000005300",
    "3.12": "9700640164006c007d017c0044008f026302670063025d0400007d027c0291028c06040063027d027c016a0300000000"
    "00000000000000000000000000007c00ab0100000000000067017a00000053006302010063027d027700",
    "3.13": "9500530153004b006e0155001300560273022f007302480400006f2250024d0600000b00200073026e02550152030000"
    "00000000000000000000000000000000550035010000000000002f012d00000024007302200073026e026600",
}


@pytest.fixture
def triple(in_main: Callable[[str, str], Any]) -> Any:
    return in_main("def triple(n):\n    return 3 * n\n", "triple")


def test_our_bytecode_names_its_python_behind_the_pickle(triple: Any) -> None:
    assert bytecode.read_tag(dillpickle.dumps(triple)) == HERE
    assert bytecode.read_tag(dillpickle.dumps([1, 2])) is None
    assert bytecode.read_tag(dill.dumps(triple)) is None


def test_bytecode_tagged_by_another_python_is_refused_and_says_both_versions(triple: Any) -> None:
    pickled = dillpickle.dumps(triple).replace(f"python={HERE};".encode(), f"python={OTHER};".encode())
    with pytest.raises(DeserializationError) as caught:
        dillpickle.loads(pickled)
    assert f"Python {OTHER}" in str(caught.value)
    assert sys.version.split()[0] in str(caught.value)
    assert "AllCodeStrategies" in str(caught.value)


def test_bytecode_of_a_sender_that_is_known_to_be_another_python_is_refused(triple: Any) -> None:
    text = "01\n" + mime.encode(dill.dumps(triple))
    with pytest.raises(DeserializationError, match=r"Python 3\.9"):
        ComputeSerializer().deserialize(text, python_version="3.9.18 (main, Jan 1 2024)")
    assert ComputeSerializer().deserialize(text, python_version=sys.version)(2) == 6
    assert ComputeSerializer().deserialize(text)(2) == 6


def test_the_tag_counts_more_than_what_the_task_says_of_the_submitter(triple: Any) -> None:
    # A function that was registered with this Python, submitted from another one.
    text = DillCode().serialize(triple)
    assert ComputeSerializer().deserialize(text, python_version="3.9.1")(2) == 6


def test_data_without_bytecode_crosses_versions() -> None:
    text = ComputeSerializer().serialize({"x": [1, 2.5, "y"]})
    assert ComputeSerializer().deserialize(text, python_version=OTHER) == {"x": [1, 2.5, "y"]}


def test_functions_of_modules_and_shell_functions_cross_versions() -> None:
    import textwrap

    from farcall import ShellFunction

    serializer = ComputeSerializer()
    assert serializer.deserialize(serializer.serialize(textwrap.dedent), python_version=OTHER) is textwrap.dedent
    assert serializer.deserialize(serializer.serialize(ShellFunction("ls")), python_version=OTHER).cmd == "ls"


def test_an_argument_whose_class_carries_bytecode_is_refused_too(in_main: Callable[[str, str], Any]) -> None:
    value = in_main("class C:\n    def m(self): return 1\nf = C()", "f")
    text = "00\n" + mime.encode(dill.dumps((value,)))
    with pytest.raises(DeserializationError, match="bytecode"):
        ComputeSerializer().deserialize(text, python_version=OTHER)


def test_all_code_strategies_fall_back_to_source_on_another_python(triple: Any) -> None:
    text = AllCodeStrategies().serialize(triple)
    assert ComputeSerializer().deserialize(text, python_version=OTHER)(5) == 15


def test_no_code_of_this_python_looks_foreign() -> None:
    import argparse
    import asyncio.base_events
    import inspect

    def codes(code: Any) -> Any:
        yield code
        for constant in code.co_consts:
            if hasattr(constant, "co_code"):
                yield from codes(constant)

    functions = [
        f
        for module in (argparse, asyncio.base_events, inspect)
        for thing in vars(module).values()
        for f in (thing, *(vars(thing).values() if isinstance(thing, type) else ()))
        if hasattr(f, "__code__")
    ]
    assert len(functions) > 300
    for function in functions:
        for code in codes(function.__code__):
            assert bytecode.looks_native(code), code


@pytest.mark.parametrize("version", sorted(BODIES))
def test_code_of_other_versions_does_not_look_native(triple: Any, version: str) -> None:
    code = triple.__code__.replace(co_code=bytes.fromhex(BODIES[version]))
    assert bytecode.looks_native(code) is (version == HERE)


def test_code_that_does_not_look_native_is_refused_when_nobody_knows_its_version(triple: Any) -> None:
    native = triple.__code__.co_code
    foreign = dill.dumps(triple).replace(native, b"\xff" * len(native))  # no version has this opcode
    with pytest.raises(DeserializationError, match="bytecode"):
        dillpickle.loads(foreign)
    assert dillpickle.loads(dill.dumps(triple))(2) == 6
