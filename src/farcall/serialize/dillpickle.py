"""Python objects to pickle bytes and back: dill's reach, the C pickler's speed, both ecosystems' class names.

`dumps` first tries the C pickler, which gives up as soon as it meets something that only dill handles well
(anything defined in `__main__`, lambdas, modules, locks) or a class that must go by another name; then dill
does it. For data from importable modules the two write the same, and C is some thirty times faster.
dill is imported when it is first needed. The bytes are pickle protocol 4, as the other ecosystem writes them.

(dill asks for "dill" in the name of a pickler's module to decide whether it is one of its own; hence the name
of this one.)
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from farcall.serialize import bytecode
from farcall.serialize.aliases import INCOMING, OUTGOING
from farcall.wire.errors import DeserializationError

__all__ = ["PROTOCOL", "TooLarge", "dumps", "loads"]

PROTOCOL = 4

_BY_VALUE = frozenset({"__main__", "__mp_main__", None})


def dumps(value: Any, *, limit_bytes: int | None = None) -> bytes:
    """Pickle any object.

    Args:
        limit_bytes: give up when the pickle gets larger; None: never.

    Returns:
        Pickle protocol 4; with a version tag behind it (`bytecode.tag`) if code objects are inside.

    Raises:
        TooLarge: it has more than `limit_bytes`.
        Exception: whatever dill, or the object's own `__reduce__`, raises; callers name the culprit.
    """
    buffer = io.BytesIO() if limit_bytes is None else _LimitedBuffer(limit_bytes)
    try:
        _PlainPickler(buffer, PROTOCOL).dump(value)
        return buffer.getvalue()
    except TooLarge:
        raise
    except Exception:  # any: the object itself may raise; if it is at fault, dill will say so again
        return _dumps_with_dill(value, io.BytesIO() if limit_bytes is None else _LimitedBuffer(limit_bytes))


def loads(pickled: bytes, *, python_version: str | None = None) -> Any:
    """Unpickle what `dumps`, dill or pickle wrote.

    Args:
        pickled: the bytes; anything behind the STOP opcode is ignored, but for our version tag.
        python_version: of the Python that wrote it, if known; a tag in the pickle has precedence.

    Raises:
        DeserializationError: bytecode of another Python version (it is never loaded), a module or class that
            does not exist here, damaged bytes, or an object that fails while it is rebuilt.
    """
    origin = bytecode.read_tag(pickled) or python_version
    try:
        value = _Unpickler(io.BytesIO(pickled), origin).load()
    except DeserializationError:
        raise
    except Exception as exc:
        raise DeserializationError(_explain(exc, origin)) from exc
    return _of_this_main(value)


class TooLarge(Exception):
    """A pickle got larger than its caller wants. Caught by that caller."""


class _LimitedBuffer(io.BytesIO):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._left = limit_bytes

    def write(self, data: Any) -> int:  # any bytes-like object
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge
        return super().write(data)


class _NeedsDill(Exception):
    """The C pickler gives up."""


class _PlainPickler(pickle.Pickler):
    """The C pickler, for objects that dill would write no differently."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType or issubclass(kind, type):
            module = getattr(obj, "__module__", None)
            if module in _BY_VALUE or (module, obj.__qualname__) in OUTGOING or _is_namedtuple(obj):
                raise _NeedsDill
        elif _is_array_subclass(kind):
            raise _NeedsDill
        return NotImplemented


def _is_namedtuple(cls: Any) -> bool:
    # dill sends these by value, so that they load where their module is missing.
    return getattr(cls, "__bases__", None) == (tuple,) and hasattr(cls, "_fields")


def _is_array_subclass(kind: type) -> bool:
    # dill keeps the attributes that instances of an ndarray subclass have; numpy's own reduction drops them.
    numpy = sys.modules.get("numpy")
    array = getattr(numpy, "ndarray", None)
    return array is not None and kind is not array and issubclass(kind, array)


def _dumps_with_dill(value: Any, buffer: io.BytesIO) -> bytes:
    pickler = _dill_pickler()(buffer)
    pickler.dump(value)
    return buffer.getvalue() + bytecode.tag() if pickler.has_code else buffer.getvalue()


_cached_dill_pickler: Any = None


def _dill_pickler() -> Any:  # a class that can only be made once dill is imported
    global _cached_dill_pickler
    if _cached_dill_pickler is None:
        _cached_dill_pickler = _make_dill_pickler()
    return _cached_dill_pickler


def _make_dill_pickler() -> Any:
    import dill
    from dill import _dill

    theirs = dill.Pickler.dispatch  # not copied: dill registers further types while it runs

    def save_type(pickler: Any, cls: type) -> None:
        alias = OUTGOING.get((cls.__module__, cls.__qualname__))
        if alias is None:
            _dill.save_type(pickler, cls)
            return
        pickler.save(alias[0])
        pickler.save(alias[1])
        pickler.write(pickle.STACK_GLOBAL)
        pickler.memoize(cls)

    def save_code(pickler: Any, code: CodeType) -> None:
        pickler.has_code = True
        theirs[CodeType](pickler, code)

    ours: dict[type, Callable[[Any, Any], None]] = {type: save_type, CodeType: save_code}

    class Dispatch(dict):  # type: ignore[type-arg]  # only `get` and `[]` of it are used
        def get(self, kind: type, default: Any = None) -> Any:
            return ours.get(kind) or theirs.get(kind, default)

        def __missing__(self, kind: type) -> Any:
            return theirs[kind]

    class Pickler(dill.Pickler):  # type: ignore[misc]  # dill has no types
        dispatch = Dispatch(ours)
        has_code = False

        def __init__(self, file: io.BytesIO) -> None:
            super().__init__(file, PROTOCOL)  # the rest as in dill.settings, which users may set

    return Pickler


class _Unpickler(pickle.Unpickler):
    """The C unpickler with the names of both ecosystems and of dill, and with a guard against foreign bytecode."""

    def __init__(self, file: io.BytesIO, origin: str | None) -> None:
        super().__init__(file)
        self._origin = origin

    def find_class(self, module: str, name: str) -> Any:
        alias = INCOMING.get((module, name))
        if alias is not None:
            return super().find_class(*alias)
        if module == "__builtin__":  # dill's own spelling of two things
            if name == "__main__":
                return sys.modules["__main__"].__dict__
            if name == "NoneType":
                return type(None)
        if module == "dill.dill":
            module = "dill._dill"
        if (module, name) in _MAKES_CODE:
            return self._guarded(super().find_class(module, name))
        return super().find_class(module, name)

    def _guarded(self, make: Callable[..., Any]) -> Callable[..., Any]:
        origin = self._origin
        if bytecode.is_foreign(origin):
            raise bytecode.foreign_bytecode_error(origin)
        if origin is not None:
            return make

        def make_checked(*args: Any) -> Any:
            made = make(*args)
            if isinstance(made, CodeType) and not bytecode.looks_native(made):
                raise bytecode.foreign_bytecode_error(None)
            return made

        return make_checked


_MAKES_CODE = frozenset({("dill._dill", "_create_code"), ("dill._dill", "_unmarshal")})


def _of_this_main(value: Any) -> Any:
    """An instance of a class of the sender's `__main__` becomes one of ours, if ours has it; as dill does."""
    kind = type(value)
    if kind.__module__ == "__main__":
        try:
            value.__class__ = getattr(sys.modules["__main__"], kind.__name__)
        except (AttributeError, TypeError):
            pass
    return value


def _explain(exc: Exception, origin: str | None) -> str:
    here = f"Python {sys.version.split()[0]} here"
    there = f", written by Python {origin}" if origin else ""
    reason = f"{type(exc).__name__}: {_text_of(exc)}"
    if isinstance(exc, ModuleNotFoundError):
        return (
            f"Cannot load this: module {exc.name!r} is not installed in the environment of {here}. "
            "Install it there (for workers: in the endpoint's environment or `worker_init`), or do not send "
            f"objects that need it. ({reason})"
        )
    if isinstance(exc, (AttributeError, ImportError)):
        return (
            f"Cannot load this with {here}{there}: {reason}. A class or function that it names is missing here: "
            "another version of that package is installed, or its module is not the same on both sides."
        )
    return f"Cannot load this with {here}{there}: {reason}."


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return "(its message cannot be shown)"
