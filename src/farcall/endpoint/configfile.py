"""What the `config.yaml` of every endpoint has in common, direct or a manager: how it is read, what is told of its
mistakes, and the keys that both kinds have.

Source: feature table, `config.yaml` keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from farcall.endpoint.engines.sections import Number, Section, Text, refusal
from farcall.endpoint.yamlfile import LocatedYaml, Problem, YamlFault, dotted, parse_yaml
from farcall.wire.errors import FarcallError
from farcall.wire.limits import DEFAULT_HEARTBEAT_PERIOD_S, MIN_HEARTBEAT_PERIOD_S

__all__ = [
    "OTHER_SERVICES",
    "TEMPLATE_NAME",
    "CommonKeys",
    "ConfigInvalid",
    "Document",
    "NotNegative",
    "notices_of",
    "read_config_file",
    "read_document",
]

TEMPLATE_NAME = "user_config_template.yaml.j2"
"""Beside `config.yaml`: what a manager makes the configurations of its user endpoints of."""

OTHER_SERVICES = {
    "environment": "FARCALL_SERVICE_URL or `farcall login URL` choose the service",
    "local_compute_services": "FARCALL_SERVICE_URL or `farcall login URL` choose the service",
    "log_dir": "the log is endpoint.log in the endpoint's directory",
    "stdout": "the log is endpoint.log in the endpoint's directory",
    "stderr": "the log is endpoint.log in the endpoint's directory",
    "paths": "files lie in the endpoint's directory",
}
"""Keys of other services and releases: accepted because files from elsewhere have them, and why they do nothing."""


class ConfigInvalid(FarcallError):
    """The configuration cannot be used. The message has one line per problem, with line number and key."""

    code = "CONFIG_INVALID"

    def __init__(self, path: str, problems: tuple[str, ...]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        return f"The configuration {self.path} cannot be used:\n" + "\n".join(f"  {text}" for text in self.problems)


def _uuid(value: Any) -> str:
    fault = _uuid_fault(value)
    if fault is not None:
        raise PydanticCustomError("not_a_uuid", "{text}", {"text": fault})
    return str(UUID(str(value)))


_GROUPS = (8, 4, 4, 4, 12)


def _uuid_fault(value: Any) -> str | None:
    """Why this is no UUID, so that a slip of the finger can be found; None if it is one."""
    if not isinstance(value, str):
        return f"a UUID is expected here, not {value!r}"
    text = value.strip()
    groups = text.split("-")
    if len(groups) != 5:
        try:
            UUID(text)
        except ValueError:
            return f"'{text}' is not a UUID: five groups of hexadecimal digits with dashes are expected"
        return None
    for number, (group, length) in enumerate(zip(groups, _GROUPS, strict=True), 1):
        strange = re.search(r"[^0-9a-fA-F]", group)
        if strange is not None:
            return f"'{text}' is not a UUID: '{strange[0]}' in group {number} is no hexadecimal digit"
        if len(group) != length:
            return f"'{text}' is not a UUID: group {number} ('{group}') has {len(group)} digits instead of {length}"
    return None


def _period(value: float) -> float:
    if value < MIN_HEARTBEAT_PERIOD_S:
        raise PydanticCustomError("too_short", f"must be at least {MIN_HEARTBEAT_PERIOD_S} seconds")
    return value


def _not_negative(value: float) -> float:
    if value < 0:
        raise PydanticCustomError("negative", "must not be negative")
    return value


def _port(value: int) -> int:
    if not 0 < value < 65536:
        raise PydanticCustomError("not_a_port", "must be a port number, 1 to 65535 (usual ones: 5671, 5672, 443)")
    return value


Uuid = Annotated[str, BeforeValidator(_uuid)]
NotNegative = Annotated[Number, AfterValidator(_not_negative)]

_S = TypeVar("_S", bound=Section)


class CommonKeys(Section):
    """The keys of every endpoint.

    Args:
        display_name: shown to people; None: the endpoint's name.
        description: shown to people. Ours.
        amqp_port: in place of the port that the service names; given up if nothing listens there.
        ca_file: PEM file with the site's certificate authorities, which the certificates of the service and its broker
            must come from; relative to the endpoint's directory. Ours.
        allowed_functions: ids that may run here; empty: all.
        heartbeat_period: seconds between reports.
        debug: verbose logs.
        public: whether everybody finds it in lists; nobody may use it for that alone.
        admins: identities with the owner's rights.
        authentication_policy: by which the service judges whoever wants to use the endpoint.
        subscription_id: the organisation that answers for it; needed for high assurance.
        high_assurance: for protected data; cannot change after the first registration.
        audit_log_path: file that records every state of every task; relative to the endpoint's directory. None:
            `audit.log` there for high assurance, else no such file.
        email: whom to ask.
    """

    display_name: Text | None = None
    description: Text | None = None
    amqp_port: Annotated[int, AfterValidator(_port)] | None = None
    ca_file: Text | None = None
    allowed_functions: list[Uuid] = Field(default_factory=list)
    heartbeat_period: Annotated[Number, AfterValidator(_period)] = float(DEFAULT_HEARTBEAT_PERIOD_S)
    debug: bool = False
    public: bool = False
    admins: list[Uuid] = Field(default_factory=list)
    authentication_policy: Uuid | None = None
    subscription_id: Uuid | None = None
    high_assurance: bool = False
    audit_log_path: Text | None = None
    email: Text | None = None
    multi_user: bool = False
    # Of other services, of other releases; see `OTHER_SERVICES`.
    environment: Text | None = None
    local_compute_services: Any = None
    log_dir: Text | None = None
    stdout: Text | None = None
    stderr: Text | None = None
    paths: Any = None

    def check_high_assurance(self) -> None:
        """What a service would refuse too, told before anything is asked of it. Raises PydanticCustomError."""
        if self.authentication_policy is None:
            raise refusal(
                (
                    ("high_assurance",),
                    "needs an authentication policy for high assurance: `authentication_policy: ID`, or configure the "
                    "endpoint with --high-assurance and --allowed-domains, which makes one",
                )
            )
        if self.subscription_id is None:
            raise refusal((("high_assurance",), "needs a subscription for high assurance: `subscription_id: ID`"))

    def audit_log(self, directory: Path) -> Path | None:
        """Where the audit log of the endpoint in `directory` is; None if it keeps none."""
        if self.audit_log_path is None:
            return directory / "audit.log" if self.high_assurance else None
        return directory / Path(self.audit_log_path).expanduser()


class Document:
    """A configuration file's values before they are checked. `raw` is a mapping."""

    def __init__(self, text: str, path: str, *, is_rendered: bool = False) -> None:
        self.text = text
        self.path = path
        try:
            self._located = parse_yaml(text, is_rendered=is_rendered)
        except YamlFault as exc:
            raise ConfigInvalid(path, tuple(str(problem) for problem in exc.problems)) from exc
        raw = {} if self._located.value is None else self._located.value
        if not isinstance(raw, Mapping):
            raise ConfigInvalid(
                path, ("keys with values are expected (`engine:` and so on), not a single text or list",)
            )
        self.raw: Mapping[str, Any] = raw

    def checked(
        self,
        model: type[_S],
        values: Mapping[str, Any],
        origin: Callable[[tuple[Any, ...]], tuple[Any, ...]] = lambda path: path,
    ) -> _S:
        """The values as a section.

        Args:
            values: `raw`, or what was made of it.
            origin: where in `raw` a path of `values` comes from.

        Raises:
            ConfigInvalid: with each mistake's line.
        """
        try:
            return model.model_validate(_without_empty(values))
        except ValidationError as exc:
            raise ConfigInvalid(self.path, tuple(_problems(exc, self._located, origin))) from exc


def read_document(text: str, path: str, *, is_rendered: bool = False) -> Document:
    """Raises ConfigInvalid: it is no YAML with keys. `path` is only for messages; `is_rendered`: by a template."""
    return Document(text, path, is_rendered=is_rendered)


def read_config_file(directory: Path) -> Document:
    """An endpoint's `config.yaml`.

    Raises:
        ConfigInvalid: it is missing, cannot be read, or is no YAML with keys.
    """
    path = directory / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if (directory / "config.py").exists():
            raise ConfigInvalid(
                str(path),
                ("there is a config.py instead, which this release does not read; write its settings as config.yaml",),
            ) from None
        raise ConfigInvalid(str(path), ("the file does not exist",)) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(str(path), (str(exc),)) from exc
    return Document(text, str(path))


def notices_of(raw: Mapping[str, Any], ignored: Mapping[str, str]) -> list[str]:
    """A sentence for each key that is there and does nothing."""
    return [f"`{key}:` has no effect here: {why}." for key, why in ignored.items() if raw.get(key) is not None]


def _without_empty(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A key with nothing behind it (`endpoint_setup:`) means its default, as in the ecosystem's own files."""
    return {key: value for key, value in raw.items() if value is not None}


def _problems(
    error: ValidationError, document: LocatedYaml, origin: Callable[[tuple[Any, ...]], tuple[Any, ...]]
) -> list[str]:
    found = []
    for item in error.errors(include_url=False, include_context=False):
        path = origin(tuple(item["loc"]))
        key = dotted(path)
        line = document.line(path)
        found.append((line or 0, str(Problem(line=line, key=key, text=_wording(item)))))
    return [text for _, text in sorted(found, key=lambda each: each[0])]


_WORDS = {
    "bool_type": "true or false is expected here",
    "int_type": "a whole number is expected here",
    "string_type": "a text is expected here",
    "list_type": "a list is expected here (lines that begin with `- `)",
}


def _wording(item: Any) -> str:  # one of pydantic's ErrorDetails
    expected = _WORDS.get(item["type"])
    if expected is not None:
        return f"{expected}, not {item['input']!r}"
    message = str(item["msg"])
    if item["type"] in ("greater_than_equal", "greater_than"):
        return f"{message[0].lower()}{message[1:]}, not {item['input']!r}"
    return message
