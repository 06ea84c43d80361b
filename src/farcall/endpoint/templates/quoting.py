"""A submitter's values as they enter a template: quoted once, before anything is rendered. Pure.

A string becomes its JSON literal, quotes included, that is also a YAML scalar of the same value whatever it contains;
lists and objects are quoted through; numbers, true, false and null stay what they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["DEPTH_LIMIT", "KEY_LIMIT", "Quoted", "ValueUnusable", "literal", "number", "quoted"]

DEPTH_LIMIT: Final = 32
"""Lists and objects within each other."""
KEY_LIMIT: Final = 256
"""Characters of a key in an object. YAML takes no longer ones than 1,024, escapes counted."""
_INTEGER_BITS: Final = 1024


class ValueUnusable(ValueError):
    """An option's value that no configuration can hold. The message names it."""


class Quoted(str):
    """A string of the submitter: to the template it is the JSON literal; `_raw` is what it says."""

    __slots__ = ("_raw",)
    _raw: str

    def __new__(cls, raw: str) -> Quoted:
        made = super().__new__(cls, literal(raw))
        made._raw = raw
        return made

    def __str__(self) -> str:
        return self  # `str(x)` in generated code must not forget what x is


_SHORT: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# What a YAML text may not contain as it is, or would take for the end of a line (YAML 1.1, 5.1 and 5.4).
_ESCAPED: Final = re.compile('["\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]')


def literal(text: str) -> str:
    """The text as a JSON string that is a YAML double-quoted scalar as well.

    What YAML cannot print is escaped with four digits; everything else stands as it is, because YAML would not join
    the two halves by which JSON escapes what lies beyond them.
    """
    return '"' + _ESCAPED.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text) + '"'


def number(value: float) -> str:
    """A number as YAML 1.1 reads it: its floats have a point, also before an exponent. Raises ValueError (infinite)."""
    if isinstance(value, int):
        return str(int(value))
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    text = repr(float(value))
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{exponent}{power}"


def quoted(value: Any, name: str) -> Any:
    """The value as the template gets it.

    Args:
        value: what JSON can hold.
        name: of the option, for messages; grows by what is inside.

    Raises:
        ValueUnusable: not a value of JSON, not a number, half a character, too large or too deep.
    """
    return _quoted(value, name, 0)


def _quoted(value: Any, name: str, depth: int) -> Any:
    if depth > DEPTH_LIMIT:
        raise ValueUnusable(f"{name.partition('[')[0]}: lists and objects may be {DEPTH_LIMIT} deep, no more")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return Quoted(_whole(value, name))
    if isinstance(value, int):
        if value.bit_length() > _INTEGER_BITS:
            raise ValueUnusable(f"{name}: a number of more than {_INTEGER_BITS} bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueUnusable(f"{name}: {value} is not a number that JSON or YAML could hold")
        return value
    if isinstance(value, Mapping):
        return {_key(key, name): _quoted(each, f"{name}[{key!r}]", depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_quoted(each, f"{name}[{index}]", depth + 1) for index, each in enumerate(value)]
    raise ValueUnusable(f"{name}: a {type(value).__name__} is no value of JSON")


def _key(key: Any, name: str) -> str:
    if not isinstance(key, str):
        raise ValueUnusable(f"{name}: {key!r} is no text, as every key of an object must be")
    if len(key) > KEY_LIMIT:
        raise ValueUnusable(f"{name}: a key of {len(key)} characters; {KEY_LIMIT} are allowed")
    return _whole(key, name)


def _whole(text: str, name: str) -> str:
    found = re.search("[\ud800-\udfff]", text)
    if found is not None:
        raise ValueUnusable(f"{name}: half a character (U+{ord(found[0]):04X}) stands in the text")
    return text
