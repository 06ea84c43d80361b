"""Functions and arguments as the texts that the service takes, with errors that name what is wrong with them."""

from __future__ import annotations

import functools
import inspect
import json
import platform
import textwrap
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farcall import __version__
from farcall.serialize import ComputeSerializer
from farcall.wire.errors import PayloadTooLarge, SerializationError
from farcall.wire.framing import pack_buffers
from farcall.wire.limits import PAYLOAD_LIMIT_BYTES
from farcall.wire.rest import FunctionRegistration

__all__ = [
    "FunctionCache",
    "FunctionRef",
    "function_registration",
    "json_object",
    "pack_arguments",
    "source_registration",
]

_MIB = 1024 * 1024
_AS_TEXT = ("st", "sd", "10", "12")
_SOURCE_LIMIT_CHARS = 64 * 1024


def pack_arguments(
    serializer: ComputeSerializer, args: Sequence[Any], kwargs: Mapping[str, Any], *, function: object = None
) -> str:
    """The payload of one call.

    Args:
        function: what is called, to name arguments after its parameters in errors; may be a text.

    Raises:
        SerializationError: an argument cannot be serialized; says which.
        PayloadTooLarge: together they are larger than the service takes; says how large.
    """
    try:
        packed = pack_buffers(
            (serializer.serialize(tuple(args), what="args"), serializer.serialize(dict(kwargs), what="kwargs"))
            if kwargs
            else (serializer.serialize(tuple(args), what="args"), _no_kwargs(serializer))
        )
    except SerializationError as exc:
        raise _blamed_on_one(serializer, args, kwargs, function, exc) from exc.__cause__
    _refuse_too_large(packed, f"The arguments of {_name_of(function)} take", "arguments")
    return packed


@functools.lru_cache(maxsize=16)
def _no_kwargs(serializer: ComputeSerializer) -> str:
    return serializer.serialize({}, what="kwargs")


def function_registration(
    serializer: ComputeSerializer,
    function: Callable[..., Any],
    function_name: str | None = None,
    *,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    public: bool = False,
    group: str | None = None,
    ha_endpoint_id: str | None = None,
) -> FunctionRegistration:
    """What registers a function.

    Args:
        description: its docstring if None.
        metadata: further members of `meta`.

    Raises:
        TypeError: it cannot be called, or is a coroutine function or generator function.
        SerializationError: it cannot be serialized.
        PayloadTooLarge: it is larger than the service takes.
    """
    if not callable(function):
        raise TypeError(f"a function is needed, got {type(function).__name__}: {str(function)[:80]!r}")
    for is_kind, kind, instead in (
        (inspect.iscoroutinefunction, "a coroutine function", "call asyncio.run(...) inside a plain function"),
        (inspect.isgeneratorfunction, "a generator function", "return a list"),
    ):
        if is_kind(function):
            raise TypeError(f"{_name_of(function)} is {kind}; workers run plain functions: {instead}")
    name = function_name or _name_of(function)
    code = serializer.serialize(function, what=f"function {name}")
    _refuse_too_large(code, f"The function {name} takes", "code and what it closes over")
    return FunctionRegistration(
        function_name=name,
        function_code=pack_buffers([code]),
        meta={
            "python_version": platform.python_version(),
            "sdk_version": __version__,
            "serde_identifier": code[:2],
            **({} if ha_endpoint_id is not None else _text_beside(function, code)),
            **(metadata or {}),
        },
        description=description if description is not None else inspect.getdoc(function),
        public=public,
        group=group,
        ha_endpoint_id=ha_endpoint_id,
    )


def _text_beside(function: Callable[..., Any], code: str) -> dict[str, str]:
    """The text of a function whose code is pickled, for people who look at it later: the service opens no pickles."""
    if code[:2] in _AS_TEXT:
        return {}
    command = getattr(function, "cmd", None)  # of shell functions
    try:
        text = command if isinstance(command, str) else textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError, SyntaxError, IndexError):  # typed at a prompt, written in C, a file that has changed
        return {}
    return {"source": text} if "\0" not in text and len(text) <= _SOURCE_LIMIT_CHARS else {}


def source_registration(
    source: str,
    function_name: str,
    *,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    public: bool = False,
    group: str | None = None,
    ha_endpoint_id: str | None = None,
) -> FunctionRegistration:
    """What registers a function that is given as source text.

    Raises:
        TypeError: source or name is no text.
        ValueError: the source has no function of that name at its top level, or is no Python at all.
        PayloadTooLarge: it is larger than the service takes.
    """
    import ast

    if not isinstance(source, str) or not isinstance(function_name, str):
        raise TypeError("source and function_name must both be str")
    try:
        body = ast.parse(source).body
    except SyntaxError as exc:
        raise ValueError(f"the source of {function_name!r} is no Python: {exc}") from exc
    defined = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assigned = [t.id for node in body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)]
    if function_name not in defined + assigned:
        raise ValueError(f"the source defines no {function_name!r}; it defines {', '.join(defined) or 'nothing'}")
    _refuse_too_large(source, f"The source of {function_name} takes", "source")
    return FunctionRegistration(
        function_name=function_name,
        function_code=source,
        serialized=False,
        meta={"python_version": platform.python_version(), "sdk_version": __version__, **(metadata or {})},
        description=description,
        public=public,
        group=group,
        ha_endpoint_id=ha_endpoint_id,
    )


class FunctionRef:
    """A function that calls refer to. `function_id` is None until it has been registered."""

    __slots__ = ("__weakref__", "function_id", "name", "registration")

    def __init__(
        self, name: str, *, function_id: str | None = None, registration: FunctionRegistration | None = None
    ) -> None:
        self.name = name
        self.function_id = function_id
        self.registration = registration


class FunctionCache:
    """References by function, so that each is serialized and registered once. Used by one Executor.

    A plain function is found by its identity, everything else that can be called (methods, instances) by equality if it
    has a hash. Plain functions that nobody else holds any more are forgotten. Two threads that come with the same
    function at the same moment may register it twice, which does no harm.
    """

    def __init__(self) -> None:
        self._plain: weakref.WeakKeyDictionary[Callable[..., Any], FunctionRef] = weakref.WeakKeyDictionary()
        self._others: dict[object, tuple[FunctionRef, object]] = {}
        self._registered: dict[str, FunctionRef] = {}

    def find(self, function: Callable[..., Any]) -> FunctionRef | None:
        if inspect.isfunction(function):
            return self._plain.get(function)
        found = self._others.get(_key(function))
        return None if found is None else found[0]

    def add(self, function: Callable[..., Any], ref: FunctionRef) -> FunctionRef:
        if inspect.isfunction(function):
            self._plain[function] = ref
        else:
            # Kept alive by the entry: an id is its own only as long as the object lives.
            self._others[_key(function)] = (ref, function)
        return ref

    def registered(self, function_id: str) -> FunctionRef:
        """The reference of a function that is known by its id alone."""
        ref = self._registered.get(function_id)
        if ref is None:
            ref = self._registered[function_id] = FunctionRef(function_id, function_id=function_id)
        return ref

    def clear(self) -> None:
        self._plain.clear()
        self._others.clear()


def _key(function: Callable[..., Any]) -> object:
    try:
        hash(function)
    except TypeError:
        return ("id", id(function))
    return function


def _name_of(function: object) -> str:
    if isinstance(function, str):
        return function
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else "the call" if function is None else type(function).__name__


def _refuse_too_large(text: str, subject: str, what: str) -> None:
    if len(text) * 4 <= PAYLOAD_LIMIT_BYTES:
        return
    size = len(text) if text.isascii() else len(text.encode())
    if size > PAYLOAD_LIMIT_BYTES:
        raise PayloadTooLarge(
            f"{subject} {size / _MIB:.1f} MiB serialized; the service takes up to {PAYLOAD_LIMIT_BYTES / _MIB:.0f} "
            f"MiB per call (serialized data is about 4/3 of its size in memory). Put large {what} where the worker "
            "can read them (a shared file system, an object store, a URL), and send the path; or split the call."
        )


def _blamed_on_one(
    serializer: ComputeSerializer,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    function: object,
    error: SerializationError,
) -> SerializationError:
    """The same error, in terms of the one argument that is to blame, if there is one."""
    for label, value in _labelled(args, kwargs, function):
        try:
            serializer.serialize([value], what=f"{label} of {_name_of(function)}")
        except SerializationError as exc:
            return exc
    return error


def _labelled(args: Sequence[Any], kwargs: Mapping[str, Any], function: object) -> list[tuple[str, Any]]:
    names: list[str] = []
    if callable(function):
        try:
            kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
        except (TypeError, ValueError):
            names = []
    labels = [f"argument {names[n]!r}" if n < len(names) else f"argument {n + 1}" for n in range(len(args))]
    return [*zip(labels, args, strict=True), *((f"argument {name!r}", value) for name, value in kwargs.items())]


def json_object(value: Mapping[str, Any] | None, what: str) -> dict[str, Any] | None:
    """A copy of what the user gave, unless it is a dict already: that one may be changed in place later.

    Raises:
        TypeError: it is no mapping.
        ValueError: JSON cannot carry it.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict, got {type(value).__name__}")
    made = value if isinstance(value, dict) else dict(value)
    try:
        json.dumps(made, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{what} must be made of JSON values (text, numbers, lists, dicts): {exc}") from exc
    return made
