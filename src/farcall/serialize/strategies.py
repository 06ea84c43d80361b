"""The serialization strategies of the wire protocol, by their two-character codes.

Owns the format of each; which one is used, and what is allowed, is `serializer`'s. Source: wire protocol,
payloads, strategies; what the other ecosystem's 4.19.0 writes is recorded in `conformance/strategies`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from farcall.serialize import dillpickle, mime, source
from farcall.serialize.base import SerializationStrategy, strategy_by_payload
from farcall.wire.errors import DeserializationError, FramingError, SerializationError
from farcall.wire.framing import pack_buffers, unpack_buffers

__all__ = [
    "AllCodeStrategies",
    "AllDataStrategies",
    "CombinedCode",
    "DillCode",
    "DillCodeSource",
    "DillCodeTextInspect",
    "DillDataBase64",
    "JSONData",
    "PickleCode",
    "PureSourceDill",
    "PureSourceTextInspect",
]


class DillDataBase64(SerializationStrategy):
    """Any value that dill can pickle. The default for arguments and results."""

    identifier = "00\n"
    for_code = False

    def serialize(self, data: Any) -> str:
        return "00\n" + mime.encode(dillpickle.dumps(data))

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        return dillpickle.loads(mime.decode(payload[3:]), python_version=python_version)


class JSONData(SerializationStrategy):
    """Plain data as JSON: safe to read, of any language. Tuples become lists, keys of objects become texts."""

    identifier = "11\n"
    for_code = False

    def serialize(self, data: Any) -> str:
        return "11\n" + json.dumps(data)

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        try:
            return json.loads(payload[3:])
        except (ValueError, RecursionError) as exc:
            raise DeserializationError(f"Damaged payload: this is not JSON ({exc}).") from exc


class DillCode(SerializationStrategy):
    """A function as bytecode, or by its import path if it is in a module. The default for functions.

    Only the same minor version of Python can run the bytecode.
    """

    identifier = "01\n"
    for_code = True

    def serialize(self, data: Any) -> str:
        return "01\n" + mime.encode(dillpickle.dumps(data))

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        return dillpickle.loads(mime.decode(payload[3:]), python_version=python_version)


class PickleCode(SerializationStrategy):
    """A function pickled by very old clients. Read only."""

    identifier = "02\n"
    for_code = True
    read_only = True

    def serialize(self, data: Any) -> str:
        raise SerializationError("The strategy PickleCode is kept to read old payloads; use DillCode to write.")

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        return dillpickle.loads(mime.decode(payload[3:]), python_version=python_version)


class _PickledSource(SerializationStrategy):
    """A function as a pickled pair of name and source."""

    for_code = True

    def source_of(self, function: Any) -> tuple[str, str]:
        raise NotImplementedError

    def serialize(self, data: Any) -> str:
        return self.identifier + mime.encode(dillpickle.dumps(self.source_of(data)))

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        pair = dillpickle.loads(mime.decode(payload[3:]), python_version=python_version)
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(x, str) for x in pair)):
            raise DeserializationError("Damaged payload: this is no pair of a function's name and its source.")
        return source.function_from_source(*pair)


class DillCodeTextInspect(_PickledSource):
    """Deprecated; PureSourceTextInspect does the same without a pickle."""

    identifier = "03\n"

    def source_of(self, function: Any) -> tuple[str, str]:
        return source.source_by_inspect(function)


class DillCodeSource(_PickledSource):
    """Deprecated; PureSourceDill does the same without a pickle."""

    identifier = "04\n"

    def source_of(self, function: Any) -> tuple[str, str]:
        return source.source_by_dill(function)


class _PureSource(SerializationStrategy):
    """A function as name, colon, source."""

    for_code = True

    def source_of(self, function: Any) -> tuple[str, str]:
        raise NotImplementedError

    def serialize(self, data: Any) -> str:
        return self.identifier + ":".join(self.source_of(data))

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        name, colon, text = payload[3:].partition(":")
        if not colon:
            raise DeserializationError("Damaged payload: there is no colon between a function's name and its source.")
        return source.function_from_source(name, text)


class PureSourceDill(_PureSource):
    """A function as source, found by `dill.source`. Crosses Python versions."""

    identifier = "sd\n"

    def source_of(self, function: Any) -> tuple[str, str]:
        return source.source_by_dill(function)


class PureSourceTextInspect(_PureSource):
    """A function as source, found by `inspect`. Crosses Python versions."""

    identifier = "st\n"

    def source_of(self, function: Any) -> tuple[str, str]:
        return source.source_by_inspect(function)


class _Combination(SerializationStrategy):
    """Several strategies' texts for one value; the reader takes the first that it can read."""

    parts: ClassVar[tuple[type[SerializationStrategy], ...]]

    def _texts(self, data: Any) -> list[str]:
        texts, failures = [], []
        for part in self.parts:
            try:
                texts.append(part().serialize(data))
            except Exception as exc:  # any: the value's own code may run
                failures.append(f"{part.__name__}: {exc}")
        if not texts:
            raise SerializationError("None of the strategies can write this. " + " ".join(failures))
        return texts

    def _split(self, body: str) -> Iterator[str]:
        try:
            yield from unpack_buffers(body)
        except FramingError as exc:
            raise DeserializationError(f"Damaged payload: {exc}") from exc

    def serialize(self, data: Any) -> str:
        return self.identifier + pack_buffers(self._texts(data))

    def deserialize(self, payload: str, *, python_version: str | None = None) -> Any:
        failures = []
        for text in self._split(payload[3:]):
            try:
                strategy = strategy_by_payload(text)
                if type(strategy) not in self.parts:
                    raise DeserializationError(f"{type(strategy).__name__} is no part of {type(self).__name__}.")
                return strategy.deserialize(text, python_version=python_version)
            except DeserializationError as exc:
                failures.append(f"[{text[:2]}] {exc}")
        raise DeserializationError(
            f"None of the {len(failures)} representations in this payload can be read here. " + " ".join(failures)
        )


class AllDataStrategies(_Combination):
    """A value as JSON and by dill. What JSON can hold arrives as JSON gives it: a tuple as a list."""

    identifier = "13\n"
    for_code = False
    parts = (JSONData, DillDataBase64)


class AllCodeStrategies(_Combination):
    """A function as source and as bytecode: runs on any Python that understands one of them."""

    identifier = "12\n"
    for_code = True
    parts = (PureSourceTextInspect, PureSourceDill, DillCode)


class CombinedCode(_Combination):
    """Deprecated; AllCodeStrategies does the same with a frame that source cannot break."""

    identifier = "10\n"
    for_code = True
    parts = (DillCodeSource, DillCode, DillCodeTextInspect, PureSourceDill, PureSourceTextInspect)

    def serialize(self, data: Any) -> str:
        return self.identifier + ":".join(f"{text[:3]}:{text[3:]}" for text in self._texts(data))

    def _split(self, body: str) -> Iterator[str]:
        # id, colon, text, colon, id … Base64 has no colon, source may: the source chunks come last, and each
        # ends where the next one's header stands.
        while len(body) > 3:
            header, body = body[:3], body[4:]
            if header in ("sd\n", "st\n"):
                end = body.find("\n:st\n:")
                text, body = (body, "") if end < 0 else (body[: end + 1], body[end + 2 :])
            else:
                text, _, body = body.partition(":")
            yield header + text
