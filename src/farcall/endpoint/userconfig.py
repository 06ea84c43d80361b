"""The configuration of a user endpoint, as its manager's template makes it: which keys a template may not have.

The same keys as an endpoint's own `config.yaml` otherwise (`config`). What a person may submit must not change what
the site has decided: such keys belong into the manager's `config.yaml`.
Source: feature table, user endpoint and template keys.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from farcall.endpoint.config import EndpointConfig, LoadedConfig, loaded_config
from farcall.endpoint.configfile import ConfigInvalid, read_document
from farcall.endpoint.engines.sections import refusal
from farcall.endpoint.manager.line import Begin

__all__ = ["UserEndpointConfig", "parse_user_config"]

NAME: Final = "of the user endpoint, which the endpoint's template makes of your options,"

_REFUSED: Final = ("high_assurance", "authentication_policy", "multi_user", "identity_mapping_config_path", "pam")
_IGNORED: Final = ("admins", "audit_log_path", "ca_file", "email", "public", "subscription_id")


class UserEndpointConfig(EndpointConfig):
    """The keys of a template's result. It ends when nothing has moved for two days, unless it says otherwise."""

    idle_heartbeats_hard: Annotated[int, Field(ge=0)] = 5760

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_the_managers(cls, values: Any) -> Any:
        for key in _REFUSED if isinstance(values, dict) else ():
            if values.get(key):
                raise refusal(
                    ((key,), "cannot be set by a template: it belongs into the config.yaml of the endpoint's manager")
                )
        return values


def parse_user_config(text: str, begin: Begin) -> LoadedConfig:
    """Read what a template has made, and what the manager has to say about it.

    Raises:
        ConfigInvalid: it is wrong, or not fit for protected data.
    """
    document = read_document(text, NAME, is_rendered=True)
    loaded = loaded_config(document, UserEndpointConfig)
    config = loaded.config
    if begin.is_encrypted and not config.is_encrypted:
        raise ConfigInvalid(
            NAME, ("engine.encrypted: must be true (its default): this endpoint is for protected data",)
        )
    changes: dict[str, Any] = {"ca_file": None, "audit_log_path": None}  # the manager's, which says them in `begin`
    if begin.allowed_functions:
        changes["allowed_functions"] = list(begin.allowed_functions)
    if begin.amqp_port is not None:
        changes["amqp_port"] = begin.amqp_port
    notices = [
        f"`{key}:` has no effect in a template: it belongs into the config.yaml of the endpoint's manager."
        for key in _IGNORED
        if document.raw.get(key)
    ]
    return LoadedConfig(config=config.model_copy(update=changes), text=loaded.text, notices=[*loaded.notices, *notices])
