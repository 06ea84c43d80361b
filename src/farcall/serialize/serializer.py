"""`ComputeSerializer`: functions, arguments and results to text and back, with the strategies of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from farcall.serialize.allowlist import AllowlistWildcard, parse_allowlist, refuse_unless_allowed
from farcall.serialize.base import (
    SerializationStrategy,
    StrategyLike,
    strategy_by_payload,
    strategy_from,
)
from farcall.serialize.strategies import DillCode, DillDataBase64
from farcall.wire import framing
from farcall.wire.errors import DeserializationError, FramingError, SerializationError

__all__ = ["DEFAULT_STRATEGY_CODE", "DEFAULT_STRATEGY_DATA", "ComputeSerializer"]

DEFAULT_STRATEGY_CODE = DillCode()
DEFAULT_STRATEGY_DATA = DillDataBase64()

_CALL_PARTS = 3


class ComputeSerializer:
    """Turns functions and values into the texts that travel, and back.

    Args:
        strategy_code: writes what can be called; a strategy's class, an instance or its import path in either
            ecosystem's spelling; DillCode by default.
        strategy_data: writes everything else; DillDataBase64 by default.
        allowed_deserializer_types: strategies, import paths or `AllowlistWildcard`s that may be read; None or
            empty allows all.

    Raises:
        ValueError: an argument is no strategy, one of the wrong kind, or the allow-list would refuse every task.
    """

    def __init__(
        self,
        strategy_code: StrategyLike | None = None,
        strategy_data: StrategyLike | None = None,
        *,
        allowed_deserializer_types: Iterable[StrategyLike | AllowlistWildcard] | None = None,
    ) -> None:
        self.code_serializer = strategy_from(strategy_code or DEFAULT_STRATEGY_CODE, for_code=True)
        self.data_serializer = strategy_from(strategy_data or DEFAULT_STRATEGY_DATA, for_code=False)
        self.allowed_deserializer_types = parse_allowlist(allowed_deserializer_types)

    def serialize(self, data: Any, *, what: str | None = None) -> str:
        """One value as text: what can be called with the code strategy, everything else with the data strategy.

        Args:
            what: how the user knows the value ("args", "the result"), for the error; by default from its type.

        Raises:
            SerializationError: naming the part of the value that is to blame.
        """
        strategy = self.code_serializer if callable(data) else self.data_serializer
        return _serialize(data, strategy, what)

    @staticmethod
    def serialize_from_list(data: Any, strategies: Sequence[StrategyLike], *, what: str | None = None) -> str:
        """One value as text, by the first of several strategies that can write it.

        Strategies of the wrong kind (code for data, or the reverse) and unknown ones count as unable; an empty
        list means the default strategies.

        Raises:
            SerializationError: none of them can; says why for each.
        """
        for_code = callable(data)
        failures = []
        for entry in strategies or (DEFAULT_STRATEGY_CODE if for_code else DEFAULT_STRATEGY_DATA,):
            try:
                return _serialize(data, strategy_from(entry, for_code=for_code), what)
            except (SerializationError, ValueError) as exc:
                failures.append(str(exc))
        raise SerializationError(failures[0] if len(failures) == 1 else _joined(failures))

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        """The value of a text that any strategy wrote.

        Args:
            python_version: of the Python that wrote it, if known: bytecode of another minor version is refused
                without being loaded. Payloads of ours say it themselves.

        Raises:
            DeserializationError: unknown header, not allowed, damaged, or it cannot be loaded here.
        """
        strategy = strategy_by_payload(payload)
        refuse_unless_allowed(strategy, self.allowed_deserializer_types)
        return strategy.deserialize(payload, python_version=python_version)

    @staticmethod
    def pack_buffers(buffers: Iterable[str]) -> str:
        """Join texts into one, each behind its length."""
        return framing.pack_buffers(buffers)

    @staticmethod
    def unpack_buffers(packed_buffer: str) -> list[str]:
        """Undo `pack_buffers`. Raises FramingError."""
        return framing.unpack_buffers(packed_buffer)

    def unpack_and_deserialize(self, packed_buffer: str, *, python_version: str | None = None) -> list[Any]:
        """A task's three values: function, positional arguments, keyword arguments.

        Raises:
            DeserializationError: not three texts, or one of them cannot be read.
        """
        try:
            buffers = framing.unpack_buffers(packed_buffer)
        except FramingError as exc:
            raise DeserializationError(f"Damaged task: {exc}") from exc
        if len(buffers) != _CALL_PARTS:
            raise DeserializationError(
                f"Damaged task: {len(buffers)} parts instead of function, arguments and keyword arguments."
            )
        return [self.deserialize(buffer, python_version=python_version) for buffer in buffers]

    def check_strategies(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Send a call through this serializer and back, here, to find trouble before a worker does.

        Same arguments as `Executor.submit`. Warns if the function uses global names that do not travel with it.

        Returns:
            [function, args, kwargs] as a worker would get them, so that the call can be tried.

        Raises:
            SerializationError: naming the part that cannot be sent.
            DeserializationError: it can be written, but not be read back.
        """
        from farcall.serialize.diagnose import missing_globals

        texts = [
            self.serialize(function, what="the function"),
            self.serialize(args, what="args"),
            self.serialize(kwargs, what="kwargs"),
        ]
        missing = missing_globals(function)
        if missing:
            import warnings

            warnings.warn(
                f"{getattr(function, '__name__', 'the function')} uses the global names {', '.join(missing)}, which "
                "do not travel with it: import or define them inside the function, or send them along by setting "
                "dill.settings['recurse'] = True.",
                stacklevel=2,
            )
        return self.unpack_and_deserialize(self.pack_buffers(texts))


def _serialize(data: Any, strategy: SerializationStrategy, what: str | None) -> str:
    try:
        return strategy.serialize(data)
    except Exception as exc:  # any: the value's own code runs
        from farcall.serialize.diagnose import serialization_error

        name = what or ("the function" if callable(data) else f"this {type(data).__name__}")
        raise serialization_error(data, exc, strategy.serialize, what=name, strategy=type(strategy).__name__) from exc


def _joined(failures: list[str]) -> str:
    return "None of the strategies can write this. " + " ".join(failures)
