"""`config.yaml` of an endpoint: its keys, what is refused with which words, and what is taken with a notice.

The `engine:` section is `engines.config`'s. Keys and their meaning are the other ecosystem's, so that a site's file
works when copied; a key that this release does not act on is named in a notice, or refused if ignoring it could do
harm. Source: feature table, `config.yaml` keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from farcall.endpoint.engines.config import AnyEngine, EngineField, validate_engine
from farcall.endpoint.engines.normalise import normalise
from farcall.endpoint.engines.sections import Number, Section, Text, refusal
from farcall.endpoint.yamlfile import LocatedYaml, Problem, YamlFault, dotted, parse_yaml
from farcall.wire.errors import FarcallError
from farcall.wire.limits import DEFAULT_HEARTBEAT_PERIOD_S, MIN_HEARTBEAT_PERIOD_S

__all__ = ["ConfigInvalid", "EndpointConfig", "LoadedConfig", "load_config", "parse_config"]


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


_Uuid = Annotated[str, BeforeValidator(_uuid)]
_Seconds = Annotated[Number, AfterValidator(_not_negative)]


class EndpointConfig(Section):
    """All keys of `config.yaml`.

    Args:
        display_name: shown to people; None: the endpoint's name.
        description: shown to people. Ours.
        engine: what runs the tasks.
        amqp_port: in place of the port that the service names; given up if nothing listens there.
        ca_file: PEM file with the site's certificate authorities, which the certificates of the service and its broker
            must come from; relative to the endpoint's directory. Ours.
        allowed_functions: ids that may run here; empty: all.
        heartbeat_period: seconds between reports.
        idle_heartbeats_soft, idle_heartbeats_hard: end after so many periods without tasks, or without movement;
            0: never.
        endpoint_setup, endpoint_teardown: shell commands before the engine starts and after it has ended.
        shutdown_grace_period: seconds that running tasks get when the endpoint stops. Ours.
        debug: verbose logs.
        public: whether everybody finds it in lists; nobody may use it for that alone.
        admins: identities with the owner's rights.
        authentication_policy: by which the service judges whoever wants to use the endpoint.
        subscription_id: the organisation that answers for it; needed for high assurance.
        high_assurance: for protected data; cannot change after the first registration.
        audit_log_path: file that records every state of every task; relative to the endpoint's directory. None:
            `audit.log` there for high assurance, else no such file.
    """

    display_name: Text | None = None
    description: Text | None = None
    engine: EngineField = Field(default_factory=lambda: validate_engine({"provider": {"type": "LocalProvider"}}))
    amqp_port: Annotated[int, AfterValidator(_port)] | None = None
    ca_file: Text | None = None
    allowed_functions: list[_Uuid] = Field(default_factory=list)
    heartbeat_period: Annotated[Number, AfterValidator(_period)] = float(DEFAULT_HEARTBEAT_PERIOD_S)
    heartbeat_threshold: _Seconds = 120.0
    idle_heartbeats_soft: Annotated[int, Field(ge=0)] = 0
    idle_heartbeats_hard: Annotated[int, Field(ge=0)] = 0
    endpoint_setup: Text | None = None
    endpoint_teardown: Text | None = None
    shutdown_grace_period: _Seconds = 10.0
    debug: bool = False
    public: bool = False
    admins: list[_Uuid] = Field(default_factory=list)
    authentication_policy: _Uuid | None = None
    subscription_id: _Uuid | None = None
    high_assurance: bool = False
    audit_log_path: Text | None = None
    email: Text | None = None
    # Of many-user endpoints, of other services, of other releases; see `_notices` and `_refuse_harm`.
    multi_user: bool = False
    identity_mapping_config_path: Text | None = None
    user_config_template_path: Text | None = None
    user_config_schema_path: Text | None = None
    pam: Any = None
    mu_child_ep_grace_period_s: _Seconds = 30.0
    environment: Text | None = None
    local_compute_services: Any = None
    log_dir: Text | None = None
    stdout: Text | None = None
    stderr: Text | None = None
    paths: Any = None

    @model_validator(mode="after")
    def _refuse_harm(self) -> EndpointConfig:
        if self.multi_user:
            raise refusal(
                (
                    ("multi_user",),
                    "endpoints for many users come with a later release; this one runs every task as the user who "
                    "starts it. Remove the key for a single-user endpoint",
                )
            )
        if _is_root() and self.identity_mapping_config_path is not None:
            raise refusal(
                (
                    ("identity_mapping_config_path",),
                    "this release does not map identities to local users, and as root it would run everybody's tasks "
                    "as root. Start it as an ordinary user, or remove the key",
                )
            )
        if self.high_assurance:
            self._check_high_assurance()
        if "heartbeat_threshold" in self.model_fields_set and self.heartbeat_threshold < 2 * self.heartbeat_period:
            raise refusal(
                (
                    ("heartbeat_threshold",),
                    f"must be at least twice the heartbeat_period, that is {2 * self.heartbeat_period:g}",
                )
            )
        return self

    def _check_high_assurance(self) -> None:
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
        if not self.is_encrypted:
            raise refusal(
                (
                    ("engine", "encrypted"),
                    "must be true (its default) for high assurance: what goes to workers crosses a network",
                )
            )

    @property
    def is_encrypted(self) -> bool:
        """Whether what the engine sends to its workers cannot be read on the way. Pools send nothing over a network."""
        return bool(getattr(self.engine, "encrypted", True))

    def audit_log(self, directory: Path) -> Path | None:
        """Where the audit log of the endpoint in `directory` is; None if it keeps none."""
        if self.audit_log_path is None:
            return directory / "audit.log" if self.high_assurance else None
        return directory / Path(self.audit_log_path).expanduser()


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """A usable configuration: its values, its text as it stands in the file, and what people should be told."""

    config: EndpointConfig
    text: str
    notices: Sequence[str]

    @property
    def engine(self) -> AnyEngine:
        engine: AnyEngine = self.config.engine
        return engine


def load_config(directory: Path) -> LoadedConfig:
    """Read an endpoint's `config.yaml`.

    Raises:
        ConfigInvalid: it is missing, cannot be read, or is wrong.
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
    loaded = parse_config(text, str(path))
    return _with_template_check(loaded, directory, path)


def parse_config(text: str, path: str = "config.yaml") -> LoadedConfig:
    """Read the text of a `config.yaml`. `path` is only for messages.

    Raises:
        ConfigInvalid: see `load_config`.
    """
    try:
        document = parse_yaml(text)
    except YamlFault as exc:
        raise ConfigInvalid(path, tuple(str(problem) for problem in exc.problems)) from exc
    raw = {} if document.value is None else document.value
    if not isinstance(raw, Mapping):
        raise ConfigInvalid(path, ("keys with values are expected (`engine:` and so on), not a single text or list",))
    tidy = normalise(raw)
    try:
        config = EndpointConfig.model_validate(_without_empty(tidy.config))
    except ValidationError as exc:
        raise ConfigInvalid(path, tuple(_problems(exc, document, tidy.origin))) from exc
    notices = [*tidy.notices, *_notices(config, raw)]
    return LoadedConfig(config=config, text=text, notices=notices)


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


def _notices(config: EndpointConfig, raw: Mapping[str, Any]) -> list[str]:
    ignored = {
        "identity_mapping_config_path": "only endpoints for many users map identities",
        "user_config_template_path": "templates come with a later release",
        "user_config_schema_path": "templates come with a later release",
        "pam": "only endpoints for many users ask PAM",
        "environment": "FARCALL_SERVICE_URL or `farcall login URL` choose the service",
        "local_compute_services": "FARCALL_SERVICE_URL or `farcall login URL` choose the service",
        "log_dir": "the log is endpoint.log in the endpoint's directory",
        "stdout": "the log is endpoint.log in the endpoint's directory",
        "stderr": "the log is endpoint.log in the endpoint's directory",
        "paths": "files lie in the endpoint's directory",
        "mu_child_ep_grace_period_s": "only endpoints for many users have children",
    }
    del config
    return [f"`{key}:` has no effect here: {why}." for key, why in ignored.items() if raw.get(key) is not None]


def _with_template_check(loaded: LoadedConfig, directory: Path, path: Path) -> LoadedConfig:
    """A directory copied from a template-capable endpoint keeps its engine in the template, not in config.yaml."""
    template = directory / "user_config_template.yaml.j2"
    if not template.exists():
        return loaded
    if re.search(r"^engine\s*:", loaded.text, re.MULTILINE) is None:
        raise ConfigInvalid(
            str(path),
            (
                f"it has no `engine:` section, but {template.name} lies beside it. Templates come with a later "
                "release: copy the `engine:` section of the template into config.yaml, with its values filled in",
            ),
        )
    notice = f"{template.name} has no effect here: templates come with a later release; config.yaml counts."
    return LoadedConfig(config=loaded.config, text=loaded.text, notices=[*loaded.notices, notice])


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
