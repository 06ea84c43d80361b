"""Functions of a test module, made fit to travel.

A function of an importable module travels by its import path, and a worker does not have your test module.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

__all__ = ["by_value"]

F = TypeVar("F", bound=Callable[..., Any])


def by_value(function: F) -> F:
    """A copy of a function that is serialized by value, as one typed in a notebook is.

    The copy sees none of its module's globals: what it needs must be imported inside, as in every function that
    is shipped. Usable as a decorator.
    """
    source = cast(FunctionType, function)
    copy = FunctionType(
        source.__code__, {"__builtins__": builtins, "__name__": "__main__"}, source.__name__, source.__defaults__
    )
    copy.__module__ = "__main__"
    copy.__kwdefaults__ = source.__kwdefaults__
    copy.__doc__ = source.__doc__
    return cast(F, copy)
