"""Where settings come from: command line, environment, a TOML or YAML file, defaults; the first that says something.

Knows no setting by name: fields of `ServiceSettings` and their types are all it needs, so that a new field can be set
everywhere at once. Reads the file; everything else is values in, values out.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

from farcall.service.settings import ServiceSettings
from farcall.wire.errors import FarcallError

__all__ = ["PREFIX", "Effective", "SettingsError", "effective_settings", "read_settings_file", "shown"]

PREFIX: Final = "FARCALL_"
_OF_OTHERS: Final = frozenset(
    # Variables of the SDK, the endpoint, its workers and our tests: none of our business.
    {"SERVICE_URL", "TOKEN", "USER_DIR", "SETTINGS", "ENDPOINT_DIR", "ENDPOINT_ID", "PYTHON", "TASK_SANDBOX_DIR"}
    | {"TASK_TIMEOUT", "TASK_UUID", "WORKER", "CA_FILE"}
    | {"CLIENT_ID", "CLIENT_SECRET"}
)
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_MAY_BE_ZERO: Final = frozenset({"port", "amqp_port", "requests_per_s", "max_queued_tasks_per_endpoint"})
_PATHS: Final = frozenset({"data_dir", "tls_cert", "tls_key"})
_SECRET_NAME: Final = re.compile(r"(^|_)(password|secret|token|key)$")
_SECRET_IN_URL: Final = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)@")
_MASK: Final = "********"


class SettingsError(FarcallError):
    """A setting makes no sense; the message names it, where it was found, and what is allowed."""

    code = "BAD_SETTINGS"


@dataclass(frozen=True, kw_only=True)
class Effective:
    """What a service will run with.

    Attributes:
        origins: field → where its value was found, in words.
    """

    settings: ServiceSettings
    origins: Mapping[str, str]


def effective_settings(
    *,
    command_line: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Path | None,
    default_data_dir: Path,
) -> Effective:
    """The settings in force.

    Args:
        command_line: field → value, of what was given there and only that.
        environment: all of it; `FARCALL_<FIELD>` counts.

    Raises:
        SettingsError: an unknown name, a value of another kind, a file that cannot be read.
    """
    kinds = _kinds()
    values: dict[str, Any] = {"data_dir": default_data_dir}
    origins = dict.fromkeys(kinds, "default")
    if file is not None:
        for name, value in read_settings_file(file).items():
            values[name], origins[name] = value, f"file {file}"
    for variable, text in sorted(environment.items()):
        name = variable[len(PREFIX) :].lower()
        if not variable.startswith(PREFIX) or variable[len(PREFIX) :] in _OF_OTHERS or not text:
            continue
        if name not in kinds:
            near = _nearest(name, kinds, cutoff=0.8)
            if near is None:
                continue  # somebody else's, for all we know
            raise SettingsError(
                f"The environment variable {variable} is no setting. Did you mean {PREFIX}{near.upper()}?"
            )
        values[name] = _converted(name, text, kinds[name], f"the environment variable {variable}", is_text=True)
        origins[name] = f"environment {variable}"
    for name, value in command_line.items():
        values[name] = _converted(name, value, kinds[name], f"the option --{name.replace('_', '-')}")
        origins[name] = "command line"
    for name in _PATHS & values.keys():
        values[name] = values[name].expanduser().absolute()
    return Effective(settings=ServiceSettings(**values), origins=origins)


def read_settings_file(path: Path) -> dict[str, Any]:
    """Field → value, of a TOML file, or a YAML file if it is called *.yaml or *.yml.

    Raises:
        SettingsError: see `effective_settings`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise SettingsError(f"The settings file {path} cannot be read: {reason}.") from exc
    document = _parsed_yaml(path, text) if path.suffix in (".yaml", ".yml") else _parsed_toml(path, text)
    if not isinstance(document, dict):
        raise SettingsError(f"The settings file {path} must say `name: value` for each setting, and nothing else.")
    kinds = _kinds()
    values = {}
    for name, value in document.items():
        if name not in kinds:
            near = _nearest(str(name), kinds)
            hint = f"Did you mean '{near}'?" if near else "docs/reference/settings.md lists all of them."
            raise SettingsError(f"The settings file {path} names '{name}', which is no setting. {hint}")
        values[name] = _converted(name, value, kinds[name], f"the settings file {path}")
    for name in _PATHS & values.keys():
        values[name] = path.absolute().parent / values[name].expanduser()
    for name, value in values.items():
        if isinstance(value, tuple) and value and is_dataclass(value[0]):
            values[name] = tuple(_anchored(table, path.absolute().parent) for table in value)
    return values


def shown(name: str, value: Any) -> str:
    """A value as it may be printed: secrets are masked, also the password in a URL."""
    if value is None:
        return "(none)"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return ",".join(shown("", each) for each in value) or "(none)"
    if value and _SECRET_NAME.search(name):
        return _MASK
    if is_dataclass(value):
        members = ((field.name, getattr(value, field.name), field.default) for field in fields(value))
        said = (f"{member} = {shown(member, it)}" for member, it, default in members if it != default)
        return "{" + ", ".join(said) + "}"
    return _SECRET_IN_URL.sub(rf"\1:{_MASK}@", str(value))


def _kinds(settings: type = ServiceSettings) -> dict[str, Any]:
    hints = typing.get_type_hints(settings)
    return {field.name: hints[field.name] for field in fields(settings)}


def _nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, cutoff)), None)


def _parsed_toml(path: Path, text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"The settings file {path} is not TOML: {exc}. (YAML is read from *.yaml.)") from exc


def _parsed_yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as exc:
        raise SettingsError(f"The settings file {path} is not YAML: {' '.join(str(exc).split())}.") from exc


def _converted(name: str, value: Any, kind: Any, where: str, *, is_text: bool = False) -> Any:
    """`value` as the type of its field. `is_text`: whatever it is, it was written as text."""
    options = _options(kind)
    table = _table_of(kind)
    if table is not None:
        return _tables(name, value, table, where, is_text=is_text)
    for option in options:
        found = _as(option, value, is_text=is_text)
        if found is not MISSING:
            if isinstance(found, (int, float)) and not isinstance(found, bool):
                _check_number(name, found, where)
            return found
    allowed = " or ".join(_in_words(option) for option in options if option is not type(None))
    raise SettingsError(f"'{name}' in {where} must be {allowed}, not {shown(name, value)!r}.")


def _table_of(kind: Any) -> Any:  # the dataclass, if `kind` is a tuple of such; else None
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    return inner if is_dataclass(inner) else None


def _tables(name: str, value: Any, table: Any, where: str, *, is_text: bool) -> tuple[Any, ...]:
    """A list of tables, as a tuple of the dataclass `table`; text is JSON."""
    if is_text:
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise SettingsError(f"'{name}' in {where} must be a list of tables ([[{name}]]; in the environment: JSON).")
    kinds = _kinds(table)
    found = []
    for number, members in enumerate(value, 1):
        place = f"[[{name}]] number {number} of {where}"
        for member in members:
            if member not in kinds:
                near = _nearest(str(member), kinds)
                raise SettingsError(
                    f"'{member}' in {place} is no setting." + (f" Did you mean '{near}'?" if near else "")
                )
        missing = [each.name for each in fields(table) if each.default is MISSING and each.name not in members]
        if missing:
            raise SettingsError(f"'{missing[0]}' is missing in {place}.")
        try:
            found.append(table(**{key: _converted(key, it, kinds[key], place) for key, it in members.items()}))
        except ValueError as exc:
            raise SettingsError(f"In {place}, {exc}.") from exc
    names = [getattr(each, "name", number) for number, each in enumerate(found)]
    if len(set(names)) < len(names):
        raise SettingsError(f"Two of the [[{name}]] in {where} have the same name.")
    return tuple(found)


def _anchored(table: Any, directory: Path) -> Any:  # the same dataclass
    """With paths that are relative to the file they are written in."""
    members = {field.name: getattr(table, field.name) for field in fields(table)}
    paths = {name: directory / it.expanduser() for name, it in members.items() if isinstance(it, Path)}
    return replace(table, **paths)


def _options(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _as(kind: Any, value: Any, *, is_text: bool) -> Any:  # the field's type, or MISSING
    if typing.get_origin(kind) is Literal:
        return value if value in typing.get_args(kind) else MISSING
    if typing.get_origin(kind) is tuple:
        words = [word.strip() for word in value.split(",")] if is_text else value
        return tuple(map(str, words)) if isinstance(words, (list, tuple)) else MISSING
    if isinstance(value, bool) or (kind is bool and is_text and value.lower() in _TRUE | _FALSE):
        is_true = value if isinstance(value, bool) else value.lower() in _TRUE
        return is_true if kind is bool else MISSING
    if kind is Path:
        return Path(value) if isinstance(value, (str, Path)) and str(value) else MISSING
    if kind is str:
        return value if isinstance(value, str) else MISSING
    if kind in (int, float) and (is_text or isinstance(value, (int, float))):
        try:
            found = kind(value)
        except (ValueError, OverflowError):
            return MISSING
        return found if is_text or found == value else MISSING
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next((member for member in kind if value in (member, getattr(member, "value", None))), MISSING)
    return value if kind is type(None) and value is None else MISSING


def _check_number(name: str, number: float, where: str) -> None:
    if not 0 <= number < float("inf") or (number == 0 and name not in _MAY_BE_ZERO):
        raise SettingsError(f"'{name}' in {where} must be a number above 0, not {number}.")
    if name.endswith("port") and number > 65535:
        raise SettingsError(f"'{name}' in {where} must be a port (at most 65535), not {number}.")


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(repr(member.value) for member in kind)
    return words.get(kind, str(kind))
