"""`config.yaml` of a manager, and the files beside it that its user endpoints are made of.

What a user endpoint is, stands in the template, not here: keys of an endpoint that runs tasks are refused with where to
move them. Keys and their meaning are the other ecosystem's. Source: feature table, `config.yaml` keys (manager).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from farcall.endpoint.configfile import (
    OTHER_SERVICES,
    TEMPLATE_NAME,
    CommonKeys,
    ConfigInvalid,
    Document,
    NotNegative,
    notices_of,
    read_config_file,
)
from farcall.endpoint.engines.sections import Section, Text, refusal
from farcall.wire.errors import FarcallError

__all__ = [
    "ENVIRONMENT_NAME",
    "SCHEMA_NAME",
    "Blueprint",
    "BlueprintUnreadable",
    "LoadedManager",
    "ManagerConfig",
    "PamKeys",
    "is_manager",
    "load_manager_config",
    "read_blueprint",
    "read_environment",
    "read_manager_keys",
    "read_schema",
    "read_template",
]

SCHEMA_NAME: Final = "user_config_schema.json"
ENVIRONMENT_NAME: Final = "user_environment.yaml"

_IN_THE_TEMPLATE: Final = (
    "engine",
    "provider",
    "endpoint_setup",
    "endpoint_teardown",
    "idle_heartbeats_soft",
    "idle_heartbeats_hard",
    "heartbeat_threshold",
    "shutdown_grace_period",
)

_SWITCH_WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _switch(value: Any) -> Any:
    """Files of the other ecosystem write `enable: "false"` as well as `enable: false`."""
    return _SWITCH_WORDS.get(value.strip().lower(), value) if isinstance(value, str) else value


class PamKeys(Section):
    """The section `pam:`; if it is there, PAM is asked.

    Args:
        enable: false: as if the section was not there.
        service_name: of the file in /etc/pam.d.
    """

    enable: Annotated[bool, BeforeValidator(_switch)] = True
    service_name: Annotated[Text, Field(min_length=1, pattern=r"^[^/\s]+$")] = "farcall-endpoint"


def _pam(value: Any) -> Any:
    value = _switch(value)
    return {"enable": value} if isinstance(value, bool) else value


class ManagerConfig(CommonKeys):
    """The keys of a manager.

    Args:
        allowed_functions: as everywhere; if it is given, what a template says of them does not count.
        identity_mapping_config_path: which local user an identity becomes; relative to the endpoint's directory.
            Needed by a manager that runs as root, without meaning for others.
        user_config_template_path, user_config_schema_path: in place of the files beside `config.yaml`.
        pam: None: PAM is not asked.
        mu_child_ep_grace_period_s: seconds that a start request for a user endpoint which still runs is remembered;
            if it ends meanwhile, it is started again.
        allow_system_accounts: a rule may lead to an account of the system (`slurm`, `www-data`, `nobody`). Ours.
        max_user_endpoints, max_user_endpoints_per_user: how many may run at once, of all and of one local user (or,
            without mapping, of one identity); None: any number. Ours.
    """

    identity_mapping_config_path: Text | None = None
    user_config_template_path: Text | None = None
    user_config_schema_path: Text | None = None
    pam: Annotated[PamKeys | None, BeforeValidator(_pam)] = None
    mu_child_ep_grace_period_s: NotNegative = 30.0
    allow_system_accounts: Annotated[bool, BeforeValidator(_switch)] = False
    max_user_endpoints: PositiveInt | None = None
    max_user_endpoints_per_user: PositiveInt | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_the_template_s(cls, value: Any) -> Any:
        misplaced = [key for key in _IN_THE_TEMPLATE if isinstance(value, Mapping) and key in value]
        if misplaced:
            raise refusal(*(((key,), _misplaced_text(key)) for key in misplaced))
        return value

    @model_validator(mode="after")
    def _refuse_harm(self) -> ManagerConfig:
        if self.high_assurance:
            self.check_high_assurance()
        return self

    @property
    def pam_service(self) -> str | None:
        """Whom to ask in PAM; None: nobody."""
        return self.pam.service_name if self.pam is not None and self.pam.enable else None

    @property
    def for_templates(self) -> dict[str, Any]:
        """What templates know as `parent_config`: the keys in effect, as JSON values.

        Keys that are not given have their defaults; those without a default are absent, so that `|default(…)` works.
        """
        return self.model_dump(mode="json", exclude_none=True)


def _misplaced_text(key: str) -> str:
    if key == "engine":
        return (
            "a manager runs no tasks itself, its user endpoints do: move this section into the template "
            f"({TEMPLATE_NAME}). For an endpoint that runs tasks itself, remove `multi_user:`"
        )
    return f"is a user endpoint's: move it into the template ({TEMPLATE_NAME})"


@dataclass(frozen=True, kw_only=True)
class LoadedManager:
    """A usable configuration: its values, its text as it stands in the file, and what people should be told.

    Attributes:
        is_privileged: it becomes other local users; otherwise all its user endpoints run as the user who starts it.
        mapping_path: of the identity mapping; None without privilege.
    """

    config: ManagerConfig
    text: str
    notices: Sequence[str]
    is_privileged: bool
    template_path: Path
    schema_path: Path
    environment_path: Path
    mapping_path: Path | None


class BlueprintUnreadable(FarcallError):
    """A file that user endpoints are made of is missing or makes no sense. The message is the administrator's."""

    code = "BLUEPRINT_UNREADABLE"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} cannot be used: {self.reason}."


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What user endpoints are made of, as it stands on the disk now. `schema`: None: there is none."""

    template: str
    schema: Any
    environment: Mapping[str, str]


def is_manager(directory: Path) -> bool:
    """Whether the endpoint in `directory` starts user endpoints, and runs no tasks itself.

    It does if its `config.yaml` says `multi_user: true`, or has no `engine:` but a template. A file that cannot be read
    is nobody's: who reads it in earnest says what is wrong.
    """
    try:
        raw = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        return False
    if _switch(raw.get("multi_user")) is True:
        return True
    has_template = (directory / TEMPLATE_NAME).exists() or raw.get("user_config_template_path") is not None
    return has_template and "engine" not in raw


def load_manager_config(directory: Path, *, is_privileged: bool | None = None) -> LoadedManager:
    """Read a manager's `config.yaml`.

    Args:
        is_privileged: None: whether this process is root's.

    Raises:
        ConfigInvalid: it is missing, cannot be read, or is wrong; or there is no template.
    """
    document = read_config_file(directory)
    config = read_manager_keys(document)
    is_privileged = os.geteuid() == 0 if is_privileged is None else is_privileged
    template_path = _beside(directory, config.user_config_template_path, TEMPLATE_NAME)
    _check_files(document, config, template_path, is_privileged=is_privileged)
    mapping = config.identity_mapping_config_path if is_privileged else None
    return LoadedManager(
        config=config,
        text=document.text,
        notices=[*_notices(config, is_privileged=is_privileged), *notices_of(document.raw, OTHER_SERVICES)],
        is_privileged=is_privileged,
        template_path=template_path,
        schema_path=_beside(directory, config.user_config_schema_path, SCHEMA_NAME),
        environment_path=directory / ENVIRONMENT_NAME,
        mapping_path=None if mapping is None else _beside(directory, mapping, ""),
    )


def read_manager_keys(document: Document) -> ManagerConfig:
    """The keys alone, whatever files they name. Raises ConfigInvalid."""
    raw = dict(document.raw)
    if "multi_user" in raw:
        raw["multi_user"] = _switch(raw["multi_user"])
    return document.checked(ManagerConfig, raw)


def _check_files(document: Document, config: ManagerConfig, template_path: Path, *, is_privileged: bool) -> None:
    problems = []
    if not template_path.exists():
        problems.append(
            f"user_config_template_path: there is no {template_path}, from which user endpoints are made; "
            "`farcall-endpoint configure NAME --multi-user` writes one for a new endpoint"
        )
    if is_privileged and config.identity_mapping_config_path is None:
        problems.append(
            "identity_mapping_config_path: is missing: a manager that runs as root must know which local user each "
            "identity becomes. Write a mapping (example_identity_mapping_config.json is one to begin with) and name it "
            "here, or start the endpoint as an ordinary user, as whom everything then runs"
        )
    if problems:
        raise ConfigInvalid(document.path, tuple(problems))


def _notices(config: ManagerConfig, *, is_privileged: bool) -> list[str]:
    notices = []
    if is_privileged:
        if config.email is None:
            notices.append("`email:` is missing: name somebody whom people can ask about this endpoint.")
        return notices
    if config.identity_mapping_config_path is not None:
        notices.append(
            "`identity_mapping_config_path:` has no effect here: only root can become other local users, so all user "
            "endpoints run as the user who starts this manager, for nobody but its owner."
        )
    if config.pam_service is not None:
        notices.append("`pam:` has no effect here: only root asks PAM about other local users.")
    return notices


def read_blueprint(loaded: LoadedManager) -> Blueprint:
    """The files as they stand now; they are read for each user endpoint, so that changes count at once.

    Raises:
        BlueprintUnreadable: see there.
    """
    return Blueprint(template=read_template(loaded), schema=read_schema(loaded), environment=read_environment(loaded))


def read_template(loaded: LoadedManager) -> str:
    """Raises BlueprintUnreadable."""
    return _text(loaded.template_path)


def read_schema(loaded: LoadedManager) -> Any:
    """None: there is none; only one that `config.yaml` names must exist. Raises BlueprintUnreadable."""
    path = loaded.schema_path
    if loaded.config.user_config_schema_path is None and not path.exists():
        return None
    text = _text(path)
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError) as exc:
        raise BlueprintUnreadable(str(path), f"it is not JSON ({exc})") from exc


def read_environment(loaded: LoadedManager) -> Mapping[str, str]:
    """Variables as texts, `true` and `false` in small letters; none if there is no such file.

    Raises:
        BlueprintUnreadable: see there.
    """
    path = loaded.environment_path
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # ValueError: a date that is none
        raise BlueprintUnreadable(str(path), f"it is not YAML ({exc})") from exc
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise BlueprintUnreadable(str(path), "names with values are expected (`VARIABLE: value`)")
    for name, value in found.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name or isinstance(value, (Mapping, list)):
            raise BlueprintUnreadable(str(path), f"{name!r} is no environment variable with a text")
    return {name: _as_text(value) for name, value in found.items()}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BlueprintUnreadable(str(path), str(exc)) from exc


def _beside(directory: Path, named: str | None, usual: str) -> Path:
    return directory / (Path(named).expanduser() if named is not None else usual)
