"""`config.yaml` of an endpoint that runs tasks itself, and of a user endpoint: its keys, what is refused with which
words, and what is taken with a notice.

The `engine:` section is `engines.config`'s, a manager's file `manager.config`'s. Keys and their meaning are the other
ecosystem's, so that a site's file works when copied; a key that this release does not act on is named in a notice, or
refused if ignoring it could do harm. Source: feature table, `config.yaml` keys.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from farcall.endpoint.configfile import (
    OTHER_SERVICES,
    TEMPLATE_NAME,
    CommonKeys,
    ConfigInvalid,
    Document,
    NotNegative,
    notices_of,
    read_config_file,
    read_document,
)
from farcall.endpoint.engines.config import AnyEngine, EngineField, validate_engine
from farcall.endpoint.engines.normalise import normalise
from farcall.endpoint.engines.sections import Text, refusal

__all__ = ["ConfigInvalid", "EndpointConfig", "LoadedConfig", "load_config", "loaded_config", "parse_config"]

_ONLY_MANAGERS = {
    "identity_mapping_config_path": "only managers map identities",
    "user_config_template_path": "only managers start user endpoints",
    "user_config_schema_path": "only managers start user endpoints",
    "pam": "only managers ask PAM",
    "mu_child_ep_grace_period_s": "only managers start user endpoints",
    "max_user_endpoints": "only managers start user endpoints",
    "max_user_endpoints_per_user": "only managers start user endpoints",
}


class EndpointConfig(CommonKeys):
    """The keys of an endpoint that runs tasks.

    Args:
        engine: what runs the tasks.
        heartbeat_threshold: seconds; at least twice the period. Of other releases.
        idle_heartbeats_soft, idle_heartbeats_hard: end after so many periods without tasks, or without movement;
            0: never.
        endpoint_setup, endpoint_teardown: shell commands before the engine starts and after it has ended.
        shutdown_grace_period: seconds that running tasks get when the endpoint stops. Ours.
    """

    engine: EngineField = Field(default_factory=lambda: validate_engine({"provider": {"type": "LocalProvider"}}))
    heartbeat_threshold: NotNegative = 120.0
    idle_heartbeats_soft: Annotated[int, Field(ge=0)] = 0
    idle_heartbeats_hard: Annotated[int, Field(ge=0)] = 0
    endpoint_setup: Text | None = None
    endpoint_teardown: Text | None = None
    shutdown_grace_period: NotNegative = 10.0
    # Of managers; see `_ONLY_MANAGERS` and `_refuse_harm`.
    identity_mapping_config_path: Text | None = None
    user_config_template_path: Text | None = None
    user_config_schema_path: Text | None = None
    pam: Any = None
    mu_child_ep_grace_period_s: Any = None
    max_user_endpoints: Any = None
    max_user_endpoints_per_user: Any = None

    @model_validator(mode="after")
    def _refuse_harm(self) -> EndpointConfig:
        if self.multi_user:
            raise refusal(
                (
                    ("multi_user",),
                    "is only for managers, which run no tasks themselves: this configuration runs every task as the "
                    "user who starts it. Remove the key",
                )
            )
        if _is_root() and self.identity_mapping_config_path is not None:
            raise refusal(
                (
                    ("identity_mapping_config_path",),
                    "an endpoint with an `engine:` in its config.yaml runs everybody's tasks as the user who starts "
                    f"it, here root, whatever the mapping says. Move `engine:` into {TEMPLATE_NAME} (`farcall-endpoint "
                    "configure NAME --multi-user` writes one), or start it as an ordinary user, or remove the key",
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
        self.check_high_assurance()
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
    """Read the `config.yaml` of an endpoint that is no manager (`manager.config.is_manager`).

    Raises:
        ConfigInvalid: it is missing, cannot be read, or is wrong.
    """
    loaded = loaded_config(read_config_file(directory))
    if not (directory / TEMPLATE_NAME).exists():
        return loaded
    notice = (
        f"{TEMPLATE_NAME} has no effect here: config.yaml has an `engine:`, so this endpoint runs tasks itself. "
        "Without that section it is a manager, which starts user endpoints from the template."
    )
    return LoadedConfig(config=loaded.config, text=loaded.text, notices=[*loaded.notices, notice])


def parse_config(text: str, path: str = "config.yaml", *, is_rendered: bool = False) -> LoadedConfig:
    """Read the text of a configuration.

    Args:
        path: only for messages.
        is_rendered: it was made of a template; what looks like a placeholder in it is a user's text.

    Raises:
        ConfigInvalid: see `load_config`.
    """
    return loaded_config(read_document(text, path, is_rendered=is_rendered))


def loaded_config(document: Document, model: type[EndpointConfig] = EndpointConfig) -> LoadedConfig:
    """A configuration that was read, checked as `model`. Raises ConfigInvalid."""
    tidy = normalise(document.raw)
    config = document.checked(model, tidy.config, tidy.origin)
    notices = [*tidy.notices, *notices_of(document.raw, {**_ONLY_MANAGERS, **OTHER_SERVICES})]
    return LoadedConfig(config=config, text=document.text, notices=notices)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
