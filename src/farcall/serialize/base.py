"""What a serialization strategy is, and how one is found by its two-character code or by its import path.

Import paths travel (`result_serializers`, allow-lists), in the spelling of either ecosystem; what we send uses
the other's, which both families load.
"""

from __future__ import annotations

from typing import Any, ClassVar

from farcall.wire.errors import DeserializationError

__all__ = ["SerializationStrategy", "StrategyLike", "import_path_of", "strategy_by_payload", "strategy_from"]

_HEADER = 3
_PATHS = (
    "globus_compute_sdk.serialize.concretes",
    "globus_compute_sdk.serialize",
    "farcall.serialize.strategies",
    "farcall.serialize",
)

_by_identifier: dict[str, SerializationStrategy] = {}
_by_name: dict[str, type[SerializationStrategy]] = {}


class SerializationStrategy:
    """One way to write values as text. The text starts with `identifier`: two characters and a newline.

    A subclass that sets `identifier` is known to every `ComputeSerializer` from then on; the other side must
    have the class too.
    """

    identifier: ClassVar[str]
    for_code: ClassVar[bool]
    read_only: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        identifier = cls.__dict__.get("identifier")
        if identifier is None:
            return
        if len(identifier) != _HEADER or not identifier.endswith("\n"):
            raise ValueError(f"{cls.__name__}.identifier must be two characters and a newline, not {identifier!r}")
        if identifier in _by_identifier:
            taken = type(_by_identifier[identifier]).__name__
            raise ValueError(f"{cls.__name__}.identifier {identifier!r} is already that of {taken}")
        _by_identifier[identifier] = cls()
        _by_name.setdefault(cls.__name__, cls)

    def serialize(self, data: Any) -> str:
        """Write one value, with the header. Raises what the format raises; `ComputeSerializer` explains it."""
        raise NotImplementedError

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        """Read one value back.

        Args:
            payload: with its header.
            python_version: of the Python that wrote it, if known; bytecode from another is refused.

        Raises:
            DeserializationError: it cannot be read here.
        """
        raise NotImplementedError


StrategyLike = SerializationStrategy | type[SerializationStrategy] | str
"""An instance, a class, or the import path of either, in the spelling of either ecosystem."""


def strategy_by_payload(payload: str) -> SerializationStrategy:
    """The strategy that wrote this text.

    Raises:
        DeserializationError: nobody's header.
    """
    strategy = _by_identifier.get(payload[:_HEADER])
    if strategy is None:
        raise DeserializationError(
            f"Unknown serialization header {payload[:_HEADER]!r} in a payload of {len(payload)} characters. It is "
            "damaged, or from a release or a strategy of the sender's own that is not installed here."
        )
    return strategy


def strategy_from(value: StrategyLike, *, for_code: bool | None = None) -> SerializationStrategy:
    """The strategy that is meant.

    Args:
        for_code: True for one that writes functions, False for one that writes data, None for any.

    Raises:
        ValueError: there is no such strategy, it is of the other kind, or it can only read.
    """
    found = _by_path(value) if isinstance(value, str) else value
    if isinstance(found, type) and issubclass(found, SerializationStrategy) and hasattr(found, "identifier"):
        found = _by_identifier.get(found.identifier, found())
    if not isinstance(found, SerializationStrategy):
        raise ValueError(
            f"{value!r} is no serialization strategy. Give a class such as farcall.serialize.JSONData, an instance "
            f"of one, or its import path; known are {', '.join(sorted(_by_name))}."
        )
    if for_code is not None and found.for_code != for_code:
        have, need = ("code", "data") if found.for_code else ("data", "code")
        raise ValueError(f"{type(found).__name__} is a {have} strategy, and a {need} strategy is needed here.")
    if for_code is not None and found.read_only:
        raise ValueError(f"{type(found).__name__} is kept to read old payloads; it does not write any.")
    return found


def import_path_of(value: StrategyLike) -> str:
    """The import path by which either ecosystem's worker finds this strategy.

    Raises:
        ValueError: there is no such strategy.
    """
    cls = type(strategy_from(value))
    if _by_name.get(cls.__name__) is cls and cls.__module__.startswith("farcall.serialize."):
        return f"{_PATHS[0]}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _by_path(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if module in _PATHS:
        return _by_name.get(name)
    if not module or module.partition(".")[0] in ("globus_compute_sdk", "farcall"):
        return None
    import importlib

    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
