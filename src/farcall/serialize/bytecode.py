"""Keeping bytecode of one Python minor version out of another, where running it can crash the interpreter.

A pickle that carries code objects says nothing about the Python that compiled them. So `tag` puts the version
behind the pickle's STOP opcode, where every reader stops reading (the other ecosystem's too); `read_tag` finds
it again. Where a payload has no tag, the caller may know the sender's version; where nobody knows it,
`looks_native` is the last net. Decides only; `dillpickle` refuses.
"""

from __future__ import annotations

import re
import sys
from types import CodeType

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

    Every opcode must exist here, and from 3.11 on the body must reach its RESUME instruction within the few
    instructions that may precede it. Opcode numbers change with each minor version, so other versions' code
    hardly ever passes.
    """
    numbers, preamble, resume = _opcodes()
    body = code.co_code[::2]
    if not numbers.issuperset(body):
        return False
    if resume is None:
        return True
    for number in body:
        if number == resume:
            return True
        if number not in preamble:
            return False
    return False


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


_cached_opcodes: tuple[frozenset[int], frozenset[int], int | None] | None = None


def _opcodes() -> tuple[frozenset[int], frozenset[int], int | None]:
    """All opcode numbers; those that may stand before RESUME; RESUME, or None before Python 3.11."""
    global _cached_opcodes
    if _cached_opcodes is None:
        from opcode import opmap

        before = ("CACHE", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP")
        _cached_opcodes = (
            frozenset(opmap.values()),
            frozenset(opmap[name] for name in before if name in opmap),
            opmap.get("RESUME"),
        )
    return _cached_opcodes
