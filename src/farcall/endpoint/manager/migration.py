"""From an endpoint that runs tasks itself to a manager with a template: which lines of `config.yaml` go where."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farcall.endpoint.config import LoadedConfig, parse_config
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.manager.config import is_manager
from farcall.endpoint.manager.profile import default_text, write_private
from farcall.wire.errors import FarcallError

__all__ = ["CannotMigrate", "Migration", "migrate", "plan_migration"]

_MANAGERS_KEYS: Final = frozenset(
    {
        "admins",
        "allowed_functions",
        "amqp_port",
        "audit_log_path",
        "authentication_policy",
        "ca_file",
        "description",
        "display_name",
        "email",
        "high_assurance",
        "multi_user",
        "public",
        "subscription_id",
    }
)
_BOTH: Final = frozenset({"debug", "heartbeat_period"})
_KEY: Final = re.compile(r"""(?:["']?)([A-Za-z_][A-Za-z0-9_]*)(?:["']?)\s*:(?:\s|$)""")


class CannotMigrate(FarcallError):
    """The endpoint cannot become a manager; nothing was changed."""

    code = "CANNOT_MIGRATE"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, kw_only=True)
class Migration:
    """What is to be written.

    Attributes:
        moved, kept: keys, for people.
        mapping_path: of an example identity mapping that is needed; None: it is not.
    """

    directory: EndpointDirectory
    before: str
    config: str
    template: str
    template_path: Path
    mapping_path: Path | None
    moved: Sequence[str]
    kept: Sequence[str]


def plan_migration(directory: EndpointDirectory, *, is_privileged: bool) -> Migration:
    """Read what there is and decide.

    Raises:
        ConfigInvalid: its `config.yaml` is wrong as it is.
        CannotMigrate: it is a manager already, or its lines cannot be told apart.
    """
    if is_manager(directory.path):
        raise CannotMigrate(f"Endpoint '{directory.name}' has a template already.")
    template_path = directory.path / "user_config_template.yaml.j2"
    if template_path.exists():
        raise CannotMigrate(f"{template_path} is there already; move it away first.")
    try:
        text = directory.config_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CannotMigrate(f"{directory.config_path} cannot be read: {exc}") from exc
    before = parse_config(text, str(directory.config_path))
    config, template, kept, moved = [], [], [], []
    for key, lines in _sections(text):
        if key is None or key in _MANAGERS_KEYS or key in _BOTH:
            config.append(lines)
            kept += [key] if key is not None else []
        if key is not None and key not in _MANAGERS_KEYS:
            template.append(_escaped(lines))
            moved += [key]
    mapping = directory.path / "example_identity_mapping_config.json" if is_privileged else None
    made = Migration(
        directory=directory,
        before=text,
        config="".join(config) + _config_end(mapping),
        template=_template_begin() + "".join(template) + _template_end(moved),
        template_path=template_path,
        mapping_path=mapping,
        moved=moved,
        kept=kept,
    )
    _check(made, before)
    return made


def migrate(plan: Migration) -> None:
    """Write it. `config.yaml` is last: until then it is the endpoint that it was. Raises OSError."""
    path = plan.directory.path
    write_private(path / "config.yaml.before-template", plan.before)
    if plan.mapping_path is not None and not plan.mapping_path.exists():
        write_private(plan.mapping_path, default_text(plan.mapping_path.name))
    for name in ("user_config_schema.json", "user_environment.yaml"):
        if not (path / name).exists():
            write_private(path / name, default_text(name))
    write_private(plan.template_path, plan.template)
    new = path / "config.yaml.new"
    write_private(new, plan.config)
    os.replace(new, plan.directory.config_path)


def _sections(text: str) -> list[tuple[str | None, str]]:
    """The text cut before each top-level key; comments and blank lines in front of a key belong to it."""
    found: list[tuple[str | None, str]] = []
    key: str | None = None
    lines: list[str] = []
    ahead: list[str] = []
    for line in text.splitlines(keepends=True):
        begins = _KEY.match(line)
        if begins is not None:
            found.append((key, "".join(lines)))
            key, lines, ahead = begins[1], [*ahead, line], []
        elif line.strip() == "" or line.startswith("#"):
            ahead.append(line)
        else:
            lines += [*ahead, line]
            ahead = []
    found += [(key, "".join(lines)), (None, "".join(ahead))]
    return [each for each in found if each[1]]


def _escaped(lines: str) -> str:
    is_jinja = any(mark in lines for mark in ("{{", "{%", "{#"))
    return f"{{% raw %}}{lines}{{% endraw %}}" if is_jinja else lines


def _config_end(mapping: Path | None) -> str:
    end = "\nmulti_user: true\n"
    return end if mapping is None else f'{end}identity_mapping_config_path: "{mapping}"\n'


def _template_begin() -> str:
    return (
        "# How user endpoints run tasks; moved here from config.yaml. Write {{ '{{ NAME }}' }} where users may choose\n"
        "# a value; docs/reference/templates.md says more.\n\n"
    )


def _template_end(moved: Sequence[str]) -> str:
    if "idle_heartbeats_soft" in moved:
        return ""
    return "\n# A user endpoint ends after ten heartbeats (five minutes) without a task.\nidle_heartbeats_soft: 10\n"


def _check(made: Migration, before: LoadedConfig) -> None:
    """Whether user endpoints will run tasks as the endpoint did. Raises CannotMigrate."""
    from farcall.endpoint.templates import TemplateRefused, render

    try:
        text = render(
            made.template,
            options={},
            schema=None,
            template_dir=None,
            parent_config={},
            user_runtime={},
            mapped_identity={},
        )
        after = parse_config(text, made.template_path.name, is_rendered=True)
        kept = parse_config(
            made.config.replace("\nmulti_user: true\n", "\n").partition("identity_mapping_config_path")[0]
        )
    except (TemplateRefused, FarcallError) as exc:
        raise CannotMigrate(f"Its config.yaml cannot be divided: {exc}") from exc
    is_same = after.config.engine == before.config.engine and all(
        getattr(kept.config, key) == getattr(before.config, key) for key in _MANAGERS_KEYS
    )
    if not is_same:
        raise CannotMigrate(
            "Its config.yaml cannot be divided line by line (keys at the margin, one below the other, are expected). "
            "Configure a new endpoint with --multi-user, and move the keys by hand."
        )
