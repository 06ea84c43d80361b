"""Functions as source text: finding the text of a function, and making a function of a text again.

Source crosses Python versions, bytecode does not. A function made here runs in a namespace of its own, in which
only what its source defines exists: imports belong inside the function.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

from farcall.wire.errors import DeserializationError, SerializationError

__all__ = ["function_from_source", "show_in_tracebacks", "source_by_dill", "source_by_inspect"]

_CACHE_LIMIT = 128
_AS_TEXT = annotations.compiler_flag
"""Annotations are not evaluated: they name what the function's module imports, and that is not sent along. Source: the
other ecosystem's worker (4.19), in which `def f(x: np.ndarray)` travels as source and runs.
"""
_lock = threading.Lock()
_compiled: dict[str, tuple[CodeType, str]] = {}
"""Source text → its code object and file name. Code objects are immutable, so tasks may share them."""


def source_by_inspect(function: Callable[..., Any]) -> tuple[str, str]:
    """Name and source of a function, by `inspect`, without common indentation.

    Raises:
        SerializationError: there is no source to be had, or it is not that of a `def` of this name.
    """
    import inspect
    import textwrap

    name = _name_of(function)
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as exc:
        raise _no_source(function, f"{type(exc).__name__}: {exc}") from exc
    if not _defines(text, name):
        raise _no_source(function, f"what was found in its place does not define {name!r}")
    return name, text


def source_by_dill(function: Callable[..., Any]) -> tuple[str, str]:
    """Name and source of a function, by `dill.source`, which also finds what was typed at a prompt.

    Where dill finds nothing, or another object's text (it looks lines up in the wrong file at times), `inspect`
    is asked.

    Raises:
        SerializationError: as `source_by_inspect`.
    """
    import dill.source

    name = _name_of(function)
    try:
        text = dill.source.getsource(function, lstrip=True)
    except (OSError, TypeError, AttributeError, IndexError, SyntaxError):
        return source_by_inspect(function)
    return (name, text) if _defines(text, name) else source_by_inspect(function)


def function_from_source(name: str, source: str) -> Any:
    """Execute `source` in an empty namespace and return what it calls `name`.

    Raises:
        DeserializationError: the text is no Python for this version, fails while it is executed, or does not
            define `name`.
    """
    code = _compile(name, source)
    namespace: dict[str, Any] = {"__name__": "__farcall__", "__builtins__": builtins}
    try:
        exec(code, namespace)  # noqa: S102  # running what the user sent is a worker's purpose
    except Exception as exc:
        raise DeserializationError(
            f"The source of function {name!r} failed before the function was called: {type(exc).__name__}: {exc}. "
            "Only the function's own text was sent: import and define what it needs inside of it."
        ) from exc
    if name not in namespace:
        raise DeserializationError(
            f"The source that was sent does not define {name!r}. Lambdas and methods cannot travel as source: "
            "use a plain `def`, or the strategy DillCode."
        )
    return namespace[name]


def show_in_tracebacks() -> None:
    """Let tracebacks quote the lines of functions that were made here."""
    import linecache

    for source, (_, filename) in list(_compiled.items()):
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)


def _compile(name: str, source: str) -> CodeType:
    found = _compiled.get(source)
    if found is not None:
        return found[0]
    filename = f"<farcall {name} {hash(source) & 0xFFFFFFFF:08x}>"
    try:
        code = _compile_indented(source, filename)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise DeserializationError(
            f"The source of function {name!r} is not valid for Python {sys.version.split()[0]}: {exc}"
        ) from exc
    with _lock:
        while len(_compiled) >= _CACHE_LIMIT:
            _, forgotten = _compiled.pop(next(iter(_compiled)))
            if "linecache" in sys.modules:
                sys.modules["linecache"].cache.pop(forgotten, None)
        _compiled[source] = (code, filename)
    return code


def _compile_indented(source: str, filename: str) -> CodeType:
    try:
        code: CodeType = compile(source, filename, "exec", _AS_TEXT, dont_inherit=True)
    except IndentationError:
        import textwrap  # the other ecosystem sends nested functions as they stand, indented

        code = compile(textwrap.dedent(source), filename, "exec", _AS_TEXT, dont_inherit=True)
    return code


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    has_text = isinstance(function, (FunctionType, MethodType, type)) or hasattr(function, "__wrapped__")
    if not has_text or not isinstance(name, str) or not name.isidentifier():
        raise SerializationError(
            f"{_described(function)} cannot travel as source, because no `def` of its own gives it a name. "
            "Use a plain `def`, or the strategy DillCode."
        )
    return name


def _defines(text: str, name: str) -> bool:
    import ast

    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, definitions) and node.name == name for node in body)


def _no_source(function: Callable[..., Any], why: str) -> SerializationError:
    return SerializationError(
        f"No source text was found for {_described(function)} ({why}). Functions written in C, "
        "ShellFunctions and other objects, and functions typed at a plain prompt have none: use the strategy "
        "DillCode or AllCodeStrategies for them, or put the function into a file."
    )


def _described(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return f"{type(function).__name__} {name!r}" if name else f"An object of type {type(function).__name__}"
