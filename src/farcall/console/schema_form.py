"""A form for `user_endpoint_config`, from the JSON schema that an endpoint registered. Decides only.

Simple members of the top-level object become fields; whatever is more than that is typed as JSON. The form helps to
write; whether a value is right is decided by the endpoint when it starts.

Source: JSON Schema, draft 2020-12, sections on `type`, `enum`, `properties`, `required` (draft 7 has the same).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["FieldFault", "FormField", "fields_of", "value_of"]

Kind = Literal["text", "integer", "number", "boolean", "choice", "json"]
_SIMPLE: Final[Mapping[str, Kind]] = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}
_MOST: Final = 60
"""Fields; an endpoint's owner may register anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FormField:
    """One member of the configuration.

    Attributes:
        description: what the schema says about it.
        default: as the schema says; None: nothing.
        choices: for `choice`, as JSON texts: values of any type can be told apart.
        minimum, maximum: for numbers.
        is_required: whether the endpoint refuses without.
    """

    name: str
    kind: Kind
    description: str = ""
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    is_required: bool = False


class FieldFault(ValueError):
    """What was typed is no value of the field; says why."""


def fields_of(schema: Any) -> Sequence[FormField]:
    """The fields, in the schema's order, the required ones first. Empty if the schema is none of an object.

    Args:
        schema: anything; it comes from the endpoint's owner.
    """
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return []
    required = schema.get("required")
    needed = {each for each in required if isinstance(each, str)} if isinstance(required, list) else set()
    fields = [_field(str(name), each, str(name) in needed) for name, each in list(properties.items())[:_MOST]]
    return sorted(fields, key=lambda field: not field.is_required)


def value_of(field: FormField, typed: Any) -> Any:
    """The value for the configuration; None if nothing was typed, and the member is to be left out.

    Args:
        typed: text; of `boolean` and `choice` the JSON text.

    Raises:
        FieldFault: it is no such value.
    """
    text = "" if typed is None else str(typed)
    if not text.strip():
        return None
    if field.kind == "text":
        return text
    if field.kind in ("integer", "number"):
        return _number(field, text.strip())
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FieldFault("This has to be JSON: a number, a text in double quotes, a list, an object.") from exc


def _field(name: str, schema: Any, is_required: bool) -> FormField:
    schema = schema if isinstance(schema, Mapping) else {}
    kind, choices = _kind(schema)
    text = schema.get("description") or schema.get("title") or schema.get("$comment") or ""
    return FormField(
        name=name,
        kind=kind,
        description=str(text)[:500],
        default=schema.get("default"),
        choices=choices,
        minimum=_limit(schema.get("minimum")),
        maximum=_limit(schema.get("maximum")),
        is_required=is_required,
    )


def _kind(schema: Mapping[str, Any]) -> tuple[Kind, tuple[str, ...]]:
    values = schema.get("enum")
    if isinstance(values, list) and 0 < len(values) <= 200:
        return "choice", tuple(json.dumps(each, ensure_ascii=False) for each in values if each is not None)
    named = schema.get("type")
    types = [named] if isinstance(named, str) else list(named) if isinstance(named, list) else []
    types = [each for each in types if each != "null"]
    if len(types) == 1 and isinstance(types[0], str):
        return _SIMPLE.get(types[0], "json"), ()
    return "json", ()


def _number(field: FormField, text: str) -> int | float:
    try:
        number: int | float = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            raise FieldFault("This has to be a number.") from None
        if not math.isfinite(number):
            raise FieldFault("This has to be a number.") from None
        if field.kind == "integer":
            if not number.is_integer():
                raise FieldFault("This has to be a whole number.") from None
            number = int(number)
    if field.minimum is not None and number < field.minimum:
        raise FieldFault(f"At least {field.minimum:g}.")
    if field.maximum is not None and number > field.maximum:
        raise FieldFault(f"At most {field.maximum:g}.")
    return number


def _limit(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
