"""A new manager's directory: what `configure --multi-user` writes.

The files that are made once and edited by administrators lie beside the template renderer, in `templates/default`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.profile import check_new

__all__ = ["ManagerFiles", "Sources", "create_manager_profile", "default_text", "write_private"]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files to copy in place of the defaults; None: the default."""

    manager_config: Path | None = None
    template_config: Path | None = None
    schema_config: Path | None = None
    user_env_config: Path | None = None
    id_mapping_config: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ManagerFiles:
    """What there is now. `mapping`: None without privilege; `is_example`: it is the one to begin with."""

    config: Path
    template: Path
    schema: Path
    environment: Path
    mapping: Path | None
    is_example: bool


def create_manager_profile(
    directory: EndpointDirectory,
    *,
    is_privileged: bool,
    display_name: str | None = None,
    contact_email: str | None = None,
    protection: Mapping[str, Any] | None = None,
    sources: Sources | None = None,
) -> ManagerFiles:
    """Make the directory (mode 0700) with the files of a manager (mode 0600).

    Args:
        is_privileged: it becomes other local users, and so needs an identity mapping.
        contact_email: whom users can ask.
        protection: further keys of `config.yaml`, by which its use is restricted.

    Raises:
        InvalidName, EndpointExists, OSError: as for `create_profile`; nothing is left of a directory that is new.
        ValueError: a file to copy is not UTF-8.
    """
    check_new(directory)
    sources = sources or Sources()
    is_example = sources.id_mapping_config is None
    mapping_name = "example_identity_mapping_config.json" if is_example else "identity_mapping_config.json"
    mapping = directory.path / mapping_name if is_privileged else None
    made = ManagerFiles(
        config=directory.config_path,
        template=directory.path / "user_config_template.yaml.j2",
        schema=directory.path / "user_config_schema.json",
        environment=directory.path / "user_environment.yaml",
        mapping=mapping,
        is_example=is_example,
    )
    config = _manager_config(mapping, display_name, contact_email, protection or {})
    texts = {
        made.template: _text(sources.template_config, made.template.name),
        made.schema: _text(sources.schema_config, made.schema.name),
        made.environment: _text(sources.user_env_config, made.environment.name),
        made.config: config if sources.manager_config is None else sources.manager_config.read_text(encoding="utf-8"),
    }
    if mapping is not None:
        texts = {mapping: _text(sources.id_mapping_config, mapping.name), **texts}
    directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.make_private()
    for path, text in texts.items():  # config.yaml last: with it, the endpoint is configured
        write_private(path, text)
    return made


def _text(source: Path | None, name: str) -> str:
    if source is not None:
        return source.read_text(encoding="utf-8")
    return default_text(name)


def default_text(name: str) -> str:
    """The file of this name that a new manager begins with."""
    return (files("farcall.endpoint.templates") / "default" / name).read_text(encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may write, whatever the umask says: who could, would choose whom a manager becomes.

    Raises:
        OSError: it cannot be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o600)
        file.write(text)


def _manager_config(
    mapping: Path | None, display_name: str | None, contact_email: str | None, protection: Mapping[str, Any]
) -> str:
    keys = "\n".join(f"{key}: {json.dumps(value)}" for key, value in protection.items())
    return (
        (_CONFIG if mapping is not None else _CONFIG_OF_ONE_USER)
        .replace("@DISPLAY_NAME@", _key("display_name", display_name, "My Cluster"))
        .replace("@EMAIL@", _key("email", contact_email, "hpc-help@example.org"))
        .replace("@MAPPING@", json.dumps(str(mapping)))
        .replace("@PROTECTION@", f"\n# Who may use it.\n{keys}\n" if keys else _NO_PROTECTION)
    )


def _key(key: str, value: str | None, example: str) -> str:
    return f"# {key}: {example}" if value is None else f"{key}: {json.dumps(value)}"


_NO_PROTECTION: Final = """
# An authentication policy of the service: who may use this endpoint, and with what kind of login.
# authentication_policy: 8236ad07-2801-468a-b262-9f1814988cc5
"""

_HEAD: Final = """\
# A manager: it starts an endpoint of their own for everybody who submits tasks here. Every key is described in
# docs/reference/config-yaml.md; a wrong one keeps it from starting, with its line number.
# How user endpoints run tasks stands in user_config_template.yaml.j2, what users may choose in
# user_config_schema.json, their environment in user_environment.yaml.

# What people see in lists; without it, the endpoint's name.
@DISPLAY_NAME@

multi_user: true
"""

_TAIL: Final = """\
@PROTECTION@
# Only these functions may run here (ids, as `register_function` returns them); without it, all.
# allowed_functions:
#   - 54460200-b652-4f43-a918-02882fa6114a

# How many user endpoints may run at once, of all and of one local user; without it, any number.
# max_user_endpoints: 200
# max_user_endpoints_per_user: 10

# The broker's port, if the usual one is closed: 443.
# amqp_port: 443
"""

_CONFIG: Final = (
    _HEAD
    + """
# Which local user each identity becomes; nobody else can use the endpoint.
# `farcall-endpoint validate-mapping` tries it out.
identity_mapping_config_path: @MAPPING@

# Whom users can ask about this endpoint.
@EMAIL@

# Whether everybody finds it in lists; that alone lets nobody use it.
public: true

# Ask PAM whether a local user's account counts, and open a session for each user endpoint.
# pam:
#   enable: true
#   service_name: farcall-endpoint
"""
    + _TAIL
)

_CONFIG_OF_ONE_USER: Final = (
    _HEAD
    + """
# User endpoints run as the user who starts this manager: only root can make them other users.

# Whom users can ask about this endpoint.
@EMAIL@
"""
    + _TAIL
)
