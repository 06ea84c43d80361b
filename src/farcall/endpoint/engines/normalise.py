"""Flattened configuration files, as slides and older pages print them, put right: each key where it belongs.

Only moves keys; whether they make sense is `config`'s. Pure: a dictionary in, a dictionary and notices out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Normalised", "normalise"]

_ENGINE_KEYS = (
    "address",
    "container_cmd_options",
    "container_type",
    "container_uri",
    "cores_per_worker",
    "max_retries_on_system_failure",
    "max_workers_per_node",
    "mem_per_worker",
    "provider",
    "worker_debug",
)
"""May stand beside `engine:` and mean the engine's (no key of the endpoint itself is called so)."""

_PROVIDER_KEYS = (
    "account",
    "cmd_timeout",
    "constraint",
    "init_blocks",
    "launcher",
    "max_blocks",
    "min_blocks",
    "nodes_per_block",
    "parallelism",
    "partition",
    "qos",
    "queue",
    "scheduler_options",
    "select_options",
    "walltime",
    "worker_init",
)
"""May stand in or beside `engine:` and mean the provider's."""

_ENGINE_KEYS_SEEN_IN_PROVIDERS = ("max_workers_per_block", "max_workers_per_node")
"""Some documentation prints them there."""

_WITH_PROVIDER = ("GlobusComputeEngine", "GlobusMPIEngine")
_PATHS = {"engine": ("engine",), "provider": ("engine", "provider")}


class Normalised(NamedTuple):
    """A configuration with each key in its place.

    Args:
        config: the whole, a new dictionary; the given one is untouched.
        notices: one sentence for each key that was moved, for the person who starts the endpoint.
        moved: path in `config` → path in the given one, of the keys that were moved: an error about such a key is
            an error about the line where it stood.
    """

    config: dict[str, Any]
    notices: list[str]
    moved: dict[tuple[str, ...], tuple[str, ...]]

    def origin(self, path: tuple[Any, ...]) -> tuple[Any, ...]:
        """Where the key at `path` of `config` stood in the given dictionary."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.moved:
                return (*self.moved[path[:length]], *path[length:])
        return path


def normalise(raw: Mapping[str, Any]) -> Normalised:
    """Put keys of the engine and its provider that stand too far out where they belong.

    Args:
        raw: the whole of a `config.yaml` as read.

    Returns:
        See `Normalised`. A key that would overwrite another stays where it is, to be refused there.
    """
    config = dict(raw)
    mover = _Mover()
    is_flat = any(key in config for key in (*_ENGINE_KEYS, *_PROVIDER_KEYS))
    engine = config.get("engine")
    if isinstance(engine, str):
        engine = {"type": engine}
    if engine is None and is_flat:
        engine = {}
    if not isinstance(engine, Mapping):
        return Normalised(config, [], {})
    config["engine"] = engine = dict(engine)
    if engine.get("type", _WITH_PROVIDER[0]) not in _WITH_PROVIDER:
        return Normalised(config, [], {})
    mover.move(config, (), engine, "engine", _ENGINE_KEYS)
    provider = engine.get("provider")
    if isinstance(provider, Mapping):
        engine["provider"] = provider = dict(provider)
        mover.move(config, (), provider, "provider", _PROVIDER_KEYS)
        mover.move(engine, ("engine",), provider, "provider", _PROVIDER_KEYS)
        mover.move(
            provider, ("engine", "provider"), engine, "engine", ("max_workers_per_block", "max_workers_per_node")
        )
    elif provider is None and mover.stands_in((config, engine), _PROVIDER_KEYS):
        engine["provider"] = provider = {"type": "LocalProvider"}
        mover.notices.append("No `provider:` is given; LocalProvider is assumed: workers run on this machine.")
        mover.move(config, (), provider, "provider", _PROVIDER_KEYS)
        mover.move(engine, ("engine",), provider, "provider", _PROVIDER_KEYS)
    return Normalised(config, mover.notices, mover.moved)


class _Mover:
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.moved: dict[tuple[str, ...], tuple[str, ...]] = {}

    @staticmethod
    def stands_in(sections: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> bool:
        return any(key in section for section in sections for key in keys)

    def move(
        self, source: dict[str, Any], path: tuple[str, ...], target: dict[str, Any], name: str, keys: Iterable[str]
    ) -> None:
        for key in keys:
            if key not in source or key in target:
                continue
            target[key] = source.pop(key)
            old, new = (*path, key), (*_PATHS[name], key)
            self.moved[new] = self.moved.pop(old, old)
            stood = f"in `{': '.join(path)}:`" if path else "at the top level"
            belongs = f"`{': '.join(_PATHS[name])}:`"
            self.notices.append(f"`{key}:` stands {stood}; it belongs in {belongs} and was taken as if it stood there.")
