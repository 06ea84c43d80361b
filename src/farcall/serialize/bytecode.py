"""Keeping bytecode of one Python minor version out of another, where running it can crash the interpreter.

A pickle that carries code objects says nothing about the Python that compiled them. So `tag` puts the version
behind the pickle's STOP opcode, where every reader stops reading (the other ecosystem's too); `read_tag` finds
it again. Where a payload has no tag, the caller may know the sender's version; where nobody knows it,
`looks_native` is the last net. Decides only; `dillpickle` refuses.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

from farcall.wire.errors import DeserializationError

__all__ = ["foreign_bytecode_error", "is_foreign", "looks_native", "read_tag", "tag"]

_TAG = re.compile(rb"\.\x00farcall;python=(\d+\.\d+);\Z")
_TAG_MAX_BYTES = 40

_HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def tag() -> bytes:
    """What follows the STOP opcode of a pickle of ours that carries bytecode."""
    return b"\x00farcall;python=%s;" % _HERE.encode()


def read_tag(pickled: bytes) -> str | None:
    """The Python version ("3.11") that `tag` noted in this pickle; None if there is no tag."""
    if pickled[-1:] == b".":  # the usual case: nothing behind the STOP opcode
        return None
    match = _TAG.search(pickled, max(0, len(pickled) - _TAG_MAX_BYTES))
    return match[1].decode() if match else None


def is_foreign(version: str | None) -> bool:
    """Whether `version` ("3.12.1 (main…)", "3.12") is of another minor version than this Python; None is not."""
    if version is None:
        return False
    match = re.match(r"\s*(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) != sys.version_info[:2]


def looks_native(code: CodeType) -> bool:
    """Whether this could be a function body compiled by this Python.

    Every opcode must exist here; from 3.11 on each instruction must be followed by as many inline cache entries as
    it has here, and RESUME be preceded only by the few instructions that may. Opcode numbers and caches change with
    each minor version, so other versions' code passes only where it means the same.
    """
    table = _table()
    body = code.co_code[::2]
    if not table.numbers.issuperset(body):
        return False
    if table.resume is None:
        return True
    at, resumed = 0, False
    while at < len(body):
        number = body[at]
        resumed = resumed or number == table.resume
        if not resumed and number not in table.preamble:
            return False
        after = at + 1 + table.caches.get(number, 0)
        if number == table.cache or any(body[at + 1 : after]):
            return False
        at = after
    return resumed


def foreign_bytecode_error(version: str | None) -> DeserializationError:
    """The refusal, naming both versions and the ways out."""
    theirs = f"Python {_minor(version)}" if version else "another version of Python"
    return DeserializationError(
        f"This holds bytecode compiled by {theirs}, and here runs Python {sys.version.split()[0]}: bytecode cannot "
        "cross minor versions, so it was not run. Use the same minor version of Python on both sides, or send "
        "source instead: Executor(..., serializer=ComputeSerializer(strategy_code=AllCodeStrategies())). "
        "Objects of classes that are defined in a notebook or script carry bytecode too: send plain data "
        "instead, or put the class into a module that is installed on both sides."
    )


def _minor(version: str) -> str:
    match = re.match(r"\s*(\d+\.\d+)", version)
    return match[1] if match else version


class _Table(NamedTuple):
    numbers: frozenset[int]
    """All opcodes."""
    preamble: frozenset[int]
    """Those that may stand before RESUME."""
    resume: int | None
    """None before Python 3.11, which also had no caches."""
    caches: dict[int, int]
    """How many cache entries follow an instruction; none if not listed."""
    cache: int


@lru_cache(maxsize=1)
def _table() -> _Table:
    import opcode

    opmap = opcode.opmap
    before = ("COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP", "EXTENDED_ARG")
    entries = getattr(opcode, "_inline_cache_entries", {})  # a list by number in 3.11 and 3.12, then a dict by name
    by_name = (
        entries
        if isinstance(entries, dict)
        else {name: entries[number] for name, number in opmap.items() if number < len(entries)}
    )
    return _Table(
        numbers=frozenset(opmap.values()),
        preamble=frozenset(opmap[name] for name in before if name in opmap),
        resume=opmap.get("RESUME"),
        caches={opmap[name]: count for name, count in by_name.items() if count and name in opmap},
        cache=opmap.get("CACHE", -1),
    )
