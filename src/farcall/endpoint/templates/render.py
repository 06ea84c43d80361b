"""From template, schema and a submitter's options to the text of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from farcall.wire.errors import FarcallError

__all__ = ["RESERVED_NAMES", "TemplateRefused", "render"]

RESERVED_NAMES: Final = ("_FARCALL", "_GC", "mapped_identity", "parent_config", "user_runtime")
"""Variables that every template has; a submitter's options may not be called so."""


class TemplateRefused(FarcallError):
    """The options do not fit the schema, or the template makes no configuration of them.

    Attributes:
        step: `schema`: the submitter can change the options; `template`: mostly the site has to.
        text: for the submitter; it names no path of the site.
        status: the exit status of the process that stops for it (sysexits): 65 or 78.
    """

    code = "TEMPLATE_REFUSED"

    def __init__(self, step: str, text: str) -> None:
        super().__init__(step, text)
        self.step = step
        self.text = text

    @property
    def status(self) -> int:
        return 65 if self.step == "schema" else 78

    def __str__(self) -> str:
        return self.text


def render(
    template: str,
    *,
    options: Mapping[str, Any],
    schema: Any,
    template_dir: Path | None,
    parent_config: Mapping[str, Any],
    user_runtime: Mapping[str, Any],
    mapped_identity: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> str:
    """The text of a user endpoint's configuration: one YAML document that is a mapping.

    Args:
        template: of the administrator.
        options: of the submitter, `user_endpoint_config`; JSON values.
        schema: JSON Schema that they must fit; None: anything.
        template_dir: where what the template includes lies; None: it may include nothing. Read with this process's
            rights: call it as the user.
        parent_config: the manager's configuration; without what is the site's alone (see docs/reference/templates.md).
        user_runtime: what the submitter's SDK said of its Python.
        mapped_identity: `{"local": {uname, uid, gid, groups, gecos, shell, dir}, "globus": {"id"}}`.
        environment: variables of the user endpoint's process, as `_FARCALL.env`; None: there is no such member.

    Raises:
        TemplateRefused: see there.
    """
    raise NotImplementedError
