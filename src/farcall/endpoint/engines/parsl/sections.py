"""The `provider:`, `launcher:` and `address:` sections: their keys are the parameters of Parsl's own classes.

Read from the installed Parsl by inspection, when such a section is first validated, so that no list here can be
wrong about it.
"""

from __future__ import annotations

import inspect
import typing
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, create_model
from pydantic_core import PydanticCustomError

from farcall.endpoint.engines.sections import Number, Section, Text, choose, listed, refusal

__all__ = ["address_of", "build_provider", "validate_address", "validate_launcher", "validate_provider"]

_ADDRESS_HELPERS = ("address_by_hostname", "address_by_interface", "address_by_query", "address_by_route")
_GONE = {"CobaltProvider": "CobaltProvider is no longer part of Parsl (Cobalt itself was retired); use PBSProProvider."}


def validate_provider(raw: Any) -> Section:
    """A `provider:` section as a model with the members `type`, `launcher` (where it has one) and the provider's own.

    Raises:
        ValidationError: naming the key and what is allowed.
    """
    kind = _type_of(raw, "provider", _providers())
    return _provider_model(kind).model_validate(raw)


def validate_launcher(raw: Any) -> Section:
    """A `launcher:` section, or a launcher's bare name."""
    if isinstance(raw, str):
        raw = {"type": raw}
    kind = _type_of(raw, "launcher", _launchers())
    return _launcher_model(kind).model_validate(raw)


def validate_address(raw: Any) -> str | Section:
    """An `address:`: a host name or IP address, or `{type: address_by_…}`."""
    if isinstance(raw, str):
        return raw
    kind = _type_of(raw, "address", _ADDRESS_HELPERS)
    return _address_model(kind).model_validate(raw)


def build_provider(section: Section) -> Any:  # a parsl ExecutionProvider
    """The provider that a validated section describes.

    Raises:
        Exception: whatever Parsl raises: a missing optional package, a combination it does not take.
    """
    import parsl.launchers
    import parsl.providers

    options = _given(section)
    launcher = options.pop("launcher", None)
    if launcher is not None:
        options["launcher"] = getattr(parsl.launchers, launcher.type)(**_given(launcher))
    return getattr(parsl.providers, section.type)(**options)  # type: ignore[attr-defined]  # dynamic model


def address_of(section: str | Section | None) -> str | None:
    """The address that an `address:` section stands for on this machine.

    Raises:
        Exception: it cannot be found out: no such interface, no answer.
    """
    if section is None or isinstance(section, str):
        return section
    import parsl.addresses

    helper = getattr(parsl.addresses, section.type)  # type: ignore[attr-defined]  # dynamic model
    return str(helper(**_given(section)))


def _given(section: Section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in section.model_fields_set if name != "type"}


def _type_of(raw: Any, what: str, allowed: typing.Iterable[str]) -> str:
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        raise PydanticCustomError(
            "no_type",
            "this {what} section needs a key 'type' (and its settings beside it). Allowed types: {allowed}",
            {"what": what, "allowed": listed(sorted(allowed))},
        )
    kind = raw["type"]
    if kind in _GONE:
        raise refusal((("type",), _GONE[kind]))
    try:
        return choose(kind, sorted(allowed), what)
    except PydanticCustomError as exc:
        raise refusal((("type",), exc.message())) from exc


@lru_cache
def _providers() -> tuple[str, ...]:
    import parsl.providers

    return tuple(parsl.providers.__all__)


@lru_cache
def _launchers() -> tuple[str, ...]:
    import parsl.launchers

    return tuple(sorted(set(parsl.launchers.__all__)))


@lru_cache
def _provider_model(kind: str) -> type[Section]:
    import parsl.providers

    return _model_of(kind, getattr(parsl.providers, kind))


@lru_cache
def _launcher_model(kind: str) -> type[Section]:
    import parsl.launchers

    return _model_of(kind, getattr(parsl.launchers, kind))


@lru_cache
def _address_model(kind: str) -> type[Section]:
    import parsl.addresses

    return _model_of(kind, getattr(parsl.addresses, kind))


def _model_of(kind: str, target: Any) -> type[Section]:
    signature = inspect.signature(target)
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:
        hints = {}
    fields: dict[str, Any] = {"type": (str, ...)}
    for name, parameter in signature.parameters.items():
        annotation = _annotation(name, hints.get(name), parameter.default)
        is_required = parameter.default is inspect.Parameter.empty
        fields[name] = (annotation, Field(default=... if is_required else parameter.default))
    return create_model(kind, __base__=Section, **fields)


def _annotation(name: str, hint: Any, default: Any) -> Any:
    """The type to check a parameter against; where Parsl names none, that of its default."""
    if name == "launcher":
        return Annotated[Any, BeforeValidator(validate_launcher)]
    if name == "walltime":
        return Annotated[str, BeforeValidator(_walltime)]
    if name in ("parallelism", "cmd_timeout"):
        return Number  # not always annotated, and the default happens to be whole
    if hint is None and default not in (None, inspect.Parameter.empty):
        hint = type(default)
    if hint is None:
        return Any
    return _lenient(hint)


def _lenient(hint: Any) -> Any:
    if hint is str:
        return Text
    if hint in (bool, int, float):
        return hint
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, type(int | None)):
        return typing.Optional[_lenient(next(a for a in arguments if a is not type(None)))]  # noqa: UP045
    if typing.get_origin(hint) is dict:
        return dict[str, Text]
    if typing.get_origin(hint) is list and arguments and typing.get_origin(arguments[0]) is tuple:
        return list[Annotated[tuple[str, str], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]]
    if typing.get_origin(hint) is list:
        return list[Text]
    return Any


def _walltime(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        # YAML 1.1 reads an unquoted 10:00:00 as a number in base 60: the seconds.
        return f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"
    return value
