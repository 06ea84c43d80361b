"""Whether a submitter's options are what a template and its schema take, and in which words they are refused. Pure.

The draft of JSON Schema is the one that `$schema` names, else 2020-12. A schema may refer within itself; nothing is
fetched from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import jsonschema
from jsonschema.exceptions import SchemaError, ValidationError, relevance
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # a part of jsonschema
from referencing.exceptions import Unresolvable

from farcall.endpoint.templates.quoting import ValueUnusable, quoted
from farcall.endpoint.templates.sandbox import LANGUAGE_NAMES

__all__ = ["RESERVED_NAMES", "OptionsRefused", "SchemaUnusable", "check_options", "check_schema", "prepared"]

RESERVED_NAMES: Final = ("_FARCALL", "_GC", "mapped_identity", "parent_config", "user_runtime")
"""Variables that every template has; a submitter's options may not be called so."""
_SHOWN: Final = 5


class OptionsRefused(ValueError):
    """The options do not fit. The message is for the submitter."""


class SchemaUnusable(ValueError):
    """The schema itself makes no sense. The message is for the administrator."""


def prepared(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as template variables: quoted.

    Raises:
        OptionsRefused: one is called like a variable or word of every template, or no configuration can hold it.
    """
    if not isinstance(options, Mapping):
        raise OptionsRefused(f"user_endpoint_config must be an object with names and values, not {_shown(options)}.")
    for name in options:
        if name in RESERVED_NAMES:
            raise OptionsRefused(
                f"'{name}' cannot be the name of an option: every template has a variable of that name. "
                f"Reserved: {', '.join(RESERVED_NAMES)}."
            )
        if name in LANGUAGE_NAMES:
            raise OptionsRefused(f"'{name}' cannot be the name of an option: it is a word of the template language.")
    try:
        quoted(dict.fromkeys(options), "user_endpoint_config")  # the names
        return {name: quoted(value, name) for name, value in options.items()}
    except ValueUnusable as exc:
        raise OptionsRefused(f"user_endpoint_config cannot be used: {exc}.") from exc


def check_schema(schema: Any) -> None:
    """Raises SchemaUnusable unless it is a JSON Schema of a known draft."""
    _validator(schema)


def check_options(options: Mapping[str, Any], schema: Any) -> None:
    """Whether the options fit the schema.

    Args:
        schema: None: everything fits.

    Raises:
        OptionsRefused: they do not; up to five faults, each with the path of the option and what is allowed.
        SchemaUnusable: see there.
    """
    if schema is None:
        return
    validator = _validator(schema)
    try:
        faults = sorted(validator.iter_errors(dict(options)), key=lambda each: [str(part) for part in each.path])
    except Unresolvable as exc:
        raise SchemaUnusable(f"it refers to {exc.ref!r}, which is not within it; nothing is fetched") from exc
    except RecursionError as exc:
        raise SchemaUnusable("it refers to itself without end") from exc
    if not faults:
        return
    lines = [f"  {_fault(each, schema)}" for each in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        lines.append(f"  and {len(faults) - _SHOWN} more")
    raise OptionsRefused("user_endpoint_config does not fit this endpoint's schema:\n" + "\n".join(lines))


def _validator(schema: Any) -> Any:
    if not isinstance(schema, (dict, bool)):
        raise SchemaUnusable(f"a JSON Schema is an object, not {_shown(schema)}")
    named = schema.get("$schema") if isinstance(schema, dict) else None
    made: Any = jsonschema.Draft202012Validator
    if named is not None:
        # The stubs do not foresee None.
        found = validator_for(schema, default=cast(Any, None)) if isinstance(named, str) else None
        if found is None:
            raise SchemaUnusable(
                f"its $schema, {_shown(named)}, is no draft that is known (2020-12, 2019-09, draft-07, …)"
            )
        made = found
    try:
        made.check_schema(cast(Any, schema))  # a boolean is a schema too; the stubs do not know
    except SchemaError as exc:
        raise SchemaUnusable(f"{_path(exc.absolute_path, 'the schema')}: {exc.message}") from exc
    # Only the drafts themselves: without a registry, jsonschema would fetch what a schema refers to.
    return made(schema, registry=REGISTRY)


def _fault(error: ValidationError, schema: Any) -> str:
    inner = error
    while inner.context:  # anyOf and the like: the alternative that fits best says more
        inner = max(inner.context, key=relevance)
    text = f"{_path(inner.absolute_path, 'user_endpoint_config')}: {_wording(inner)}"
    described = inner.schema.get("description") if isinstance(inner.schema, Mapping) else None
    if isinstance(described, str) and described and inner.validator not in ("additionalProperties", "required"):
        text += f" ({described})"
    return text


def _wording(error: ValidationError) -> str:
    value: Any = error.instance
    wanted: Any = error.validator_value  # its kind depends on the keyword; the schema has been checked
    if error.validator == "enum":
        return f"{_shown(value)} is not allowed; allowed: {', '.join(_shown(each) for each in wanted)}"
    if error.validator == "const":
        return f"{_shown(value)} is not allowed; allowed: {_shown(wanted)}"
    if error.validator == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        return f"{_shown(value)} is not of type {' or '.join(map(str, kinds))}"
    if error.validator == "pattern":
        return f"{_shown(value)} does not match the pattern {wanted}"
    if error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
        known = error.schema.get("properties", {})
        extra = [name for name in value if name not in known]
        names = ", ".join(f"'{_cut(name)}'" for name in extra)
        said = ", ".join(known) or "none"
        return f"{names} {'is' if len(extra) == 1 else 'are'} not known here; known: {said}"
    if error.validator == "required":
        missing = [name for name in wanted if name not in value]
        return f"{', '.join(f'{name!r}' for name in missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return _cut(error.message, 300)


def _path(path: Any, root: str) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return _cut(text, 200) or root


def _shown(value: Any) -> str:
    try:
        return _cut(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
