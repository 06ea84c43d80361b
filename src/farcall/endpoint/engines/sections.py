"""A strict section of `config.yaml`: unknown keys are refused with the nearest known name, types are not guessed.

Errors are pydantic's `ValidationError` with the path to the key, so that whoever read the file can name the line.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

__all__ = ["Number", "Pair", "Section", "Text", "choose", "listed", "refusal"]

NEAR: Final = 0.7
"""How alike a name must be to be offered in place of another (of difflib's ratio): a slip, not another word."""

FEW: Final = 10
"""So many keys are named even if one of them was meant quite surely."""

LINE_CHARS: Final = 90


class Section(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "not_a_section", "a section with keys is expected here, not {kind}", {"kind": _kind(value)}
            )
        known = list(cls.model_fields)
        unknown = [key for key in value if key not in known]
        if unknown:
            raise refusal(*(((key,), _unknown_key_text(str(key), known)) for key in unknown))
        # A key with nothing behind it (`worker_init:`), as templates leave it, means its default.
        return {key: each for key, each in value.items() if each is not None or cls._takes_nothing(key)}

    @classmethod
    def _takes_nothing(cls, key: str) -> bool:
        field = cls.model_fields[key]
        return field.is_required() or field.annotation is Any or type(None) in get_args(field.annotation)


def _unknown_key_text(key: str, known: list[str]) -> str:
    near = _nearest(key, known)
    if near is not None and len(known) > FEW:
        return f"unknown key '{key}'; did you mean '{near}'?"
    return f"unknown key '{key}'{_guess(near)} Allowed here:{listed(sorted(known))}"


def listed(names: Iterable[str]) -> str:
    """Names with commas, to follow a colon; too many for one line: in lines of their own, indented below."""
    text = ", ".join(names)
    if len(text) <= LINE_CHARS:
        return f" {text}"
    lines = textwrap.wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)
    return "".join(f"\n      {line}" for line in lines)


def refusal(*errors: tuple[tuple[Any, ...], str]) -> ValidationError:
    """An error about the keys at these paths; raise it from a validator and it keeps its place in the whole."""
    return ValidationError.from_exception_data(
        "config",
        [
            InitErrorDetails(type=PydanticCustomError("refused", "{text}", {"text": text}), loc=path, input=None)
            for path, text in errors
        ],
    )


def choose(value: Any, allowed: Iterable[str], what: str) -> str:
    """`value` if it is one of `allowed`.

    Raises:
        PydanticCustomError: it is not; names the nearest one and all.
    """
    allowed = list(allowed)
    if value in allowed:
        return str(value)
    guess = _guess(_nearest(str(value), allowed))
    raise PydanticCustomError(
        "not_allowed",
        "{what} '{value}' is not known{guess} Allowed:{allowed}",
        {"what": what, "value": str(value), "guess": guess, "allowed": listed(allowed)},
    )


def _nearest(given: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(given, known, n=1, cutoff=NEAR)
    if not near and len(given) >= 4:
        near = [name for name in known if given in name]
    return near[0] if near else None


def _guess(near: str | None) -> str:
    return f"; did you mean '{near}'?" if near is not None else "."


def _text(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # YAML reads an account or partition made of digits as a number
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("not_a_number", "a number is expected here, not {kind}", {"kind": _kind(value)})
    if not abs(value) <= NUMBER_LIMIT:  # nor what is none (.nan)
        raise PydanticCustomError("too_large", "a number up to {limit} is expected here", {"limit": NUMBER_LIMIT})
    return value


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


NUMBER_LIMIT: Final = 1_000_000_000
"""Seconds of thirty years: a clock can wait for them, and for none that is longer, or without end."""

Text = Annotated[str, BeforeValidator(_text)]
"""A text; a number in YAML counts as its digits."""

Number = Annotated[Any, PlainValidator(_number)]
"""A whole number or a fraction."""

Pair = Annotated[tuple[int, int], BeforeValidator(_pair)]
"""Two whole numbers, a list in YAML."""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (is the indentation right?)"
    return {str: f"the text '{value}'", bool: "a boolean", int: "a number", list: "a list"}.get(
        type(value), f"a value of type {type(value).__name__}"
    )
