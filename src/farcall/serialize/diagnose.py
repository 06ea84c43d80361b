"""Why an object cannot be serialized: which part of it, of what type, and what to do instead.

Only runs after a failure, so it may take its time; it stops after `_PROBES` attempts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

from farcall.wire.errors import SerializationError

__all__ = ["missing_globals", "serialization_error"]

_PROBES = 2000
_DEPTH = 8

_ADVICE = {
    "generator": "Send a list instead: list(...).",
    "async_generator": "Collect it into a list first.",
    "coroutine": "Workers run no event loop: call asyncio.run(...) inside the function.",
    "module": "Import the module inside the function instead.",
    "TextIOWrapper": "Send the file's path and open it inside the function.",
    "BufferedReader": "Send the file's path and open it inside the function.",
    "BufferedWriter": "Send the file's path and open it inside the function.",
}
_GENERAL_ADVICE = (
    "Open files, locks, sockets, connections, threads and the like exist only in this process: make them inside the "
    "function, or send what they are made from (a path, an address, a list)."
)


def serialization_error(
    value: Any, exc: BaseException, attempt: Callable[[Any], object], *, what: str, strategy: str
) -> SerializationError:
    """The error for a value that could not be serialized.

    Args:
        value: what was to be serialized.
        exc: why it failed.
        attempt: raises when it cannot serialize its argument; used to find the smallest part that fails.
        what: how the user knows the value, for example "args" or "the result".
        strategy: the strategy's name.
    """
    if isinstance(exc, SerializationError):
        return exc
    if isinstance(exc, RecursionError):
        return SerializationError(
            f"Cannot serialize {what} with {strategy}: it is nested too deeply (a long chain of objects that refer "
            "to each other). Send it in a flatter form, for example as a list."
        )
    root = "value" if what.startswith("this ") else what
    path, culprit, reason = _smallest_failing_part(value, exc, attempt, root)
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    advice = _ADVICE.get(kind.__name__, _GENERAL_ADVICE)
    if strategy == "JSONData":
        advice = "JSON holds None, bool, int, float, str, lists and dicts: convert it, or use DillDataBase64."
    where = f"it is of type {name}" if path == root else f"{path} is of type {name}"
    return SerializationError(f"Cannot serialize {what} with {strategy}: {where}: {reason} {advice}")


def missing_globals(function: Any) -> list[str]:
    """Global names that a function of `__main__` or a nested one uses, and that will not travel with it.

    A function is sent without the names around it (unless `dill.settings["recurse"]` is set); imports and helpers
    belong inside. Names that are builtins are not listed; sorted; empty for anything but a plain function.
    """
    import builtins

    if not isinstance(function, FunctionType) or function.__module__ not in ("__main__", "__mp_main__"):
        return []
    import dill

    if dill.settings["recurse"]:
        return []
    return sorted(name for name in _global_names(function.__code__) if not hasattr(builtins, name))


def _global_names(code: Any) -> set[str]:
    import dis

    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            names |= _global_names(constant)
    return names


def _smallest_failing_part(
    value: Any, exc: BaseException, attempt: Callable[[Any], object], what: str
) -> tuple[str, Any, str]:
    probes = _PROBES
    path, culprit, reason = what, value, _reason(exc)
    for _ in range(_DEPTH):
        for name, part in _parts(culprit, path):
            probes -= 1
            if probes < 0:
                return path, culprit, reason
            try:
                attempt(part)
            except Exception as inner:
                path, culprit, reason = name, part, _reason(inner)
                break
        else:
            break
    return path, culprit, reason


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    # Only builtin containers and plain attributes: nothing of the user's is called here.
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"{path}[{_short(key)}]", item
            yield f"key {_short(key)} of {path}", key
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", item
    elif isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # an empty cell
                yield f"variable {name!r} that {path} closes over", cell.cell_contents
        for item in value.__defaults__ or ():
            yield f"a default argument of {path}", item
    with contextlib.suppress(Exception):
        attributes = vars(value)
        if isinstance(attributes, Mapping) and not isinstance(value, type):
            for name, item in list(attributes.items()):
                yield f"{path}.{name}", item


def _short(key: Any) -> str:
    return repr(key)[:40] if isinstance(key, (str, int, float, bytes, bool, type(None))) else type(key).__name__


def _reason(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "(its message cannot be shown)"
    return text.rstrip(".") + "." if text else type(exc).__name__ + "."
