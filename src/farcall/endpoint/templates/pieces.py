"""What a template has printed, piece by piece: its author's text, and values that must stay where they stand. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from farcall.endpoint.templates.quoting import Quoted, number

__all__ = ["OUTPUT_LIMIT", "Kind", "OutputTooLong", "Printed", "Value", "join", "printed"]

OUTPUT_LIMIT: Final = 512 * 1024
"""Characters that a template may print, at any stage."""


class OutputTooLong(Exception):
    """The template prints without end, or nearly."""


class Kind(Enum):
    """Where a value comes from."""

    QUOTED = "quoted"
    """A submitter's string: the piece is its literal."""
    TEXT = "text"
    """Any other string that an expression made."""
    SHELL = "shell"
    """A word of a shell command, which counts to the letter."""


class Value(str):
    """A piece that an expression printed."""

    __slots__ = ("kind", "raw")
    kind: Kind
    raw: str

    def __new__(cls, text: str, kind: Kind, raw: str) -> Value:
        made = super().__new__(cls, text)
        made.kind = kind
        made.raw = raw
        return made

    def __str__(self) -> str:
        return self


class Printed(str):
    """Pieces in their order; as a string, what they say together (templates compare and filter that)."""

    __slots__ = ("_pieces",)
    _pieces: tuple[str, ...]

    def __new__(cls, pieces: Iterable[str]) -> Printed:
        flat = tuple(part for each in pieces for part in (each._pieces if isinstance(each, Printed) else (each,)))
        made = super().__new__(cls, "".join(flat))
        made._pieces = flat
        return made

    def __str__(self) -> str:
        return self

    def pieces(self) -> tuple[str, ...]:
        return self._pieces


def join(pieces: Iterable[str]) -> Printed:
    """What a template, a block or a macro has printed. Raises OutputTooLong."""
    flat: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > OUTPUT_LIMIT:
            raise OutputTooLong
        flat.append(piece)
    return Printed(flat)


def printed(value: Any) -> str:
    """How a value of JSON is printed. Raises TypeError (something else), ValueError (not a number)."""
    if isinstance(value, (Printed, Value)):
        return value
    if isinstance(value, Quoted):
        return Value(value, Kind.QUOTED, value._raw)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, Mapping):
        return join(_enclosed("{", "}", [(_key(key), ": ", _inner(each)) for key, each in value.items()]))
    if isinstance(value, (list, tuple)):
        return join(_enclosed("[", "]", [(_inner(each),) for each in value]))
    if isinstance(value, str):
        return Value(value, Kind.TEXT, str(value)) if value else ""
    raise TypeError(f"a {type(value).__name__} cannot be printed")


def _key(key: Any) -> str:
    return printed(Quoted(str(key)))


def _inner(value: Any) -> str:
    # Within a list, a site's own text is a value too: quoted, whatever it contains.
    return printed(Quoted(value)) if type(value) is str else printed(value)


def _enclosed(begin: str, end: str, items: list[tuple[str, ...]]) -> Iterable[str]:
    yield begin
    for index, item in enumerate(items):
        if index:
            yield ", "
        yield from item
    yield end
