"""Farcall: submit a Python function, get a future, wherever it runs.

Public names are resolved on first use (PEP 562): `import farcall.worker` on a compute node must not load
the SDK, its HTTP client or its AMQP client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from farcall import errors
    from farcall.sdk import Batch, Client, ComputeFuture, Executor, login
    from farcall.serialize import ComputeSerializer
    from farcall.worker.mpi import MPIFunction
    from farcall.worker.shell import ShellFunction, ShellResult

_WHERE = {
    "Batch": "farcall.sdk",
    "Client": "farcall.sdk",
    "ComputeFuture": "farcall.sdk",
    "ComputeSerializer": "farcall.serialize",
    "Executor": "farcall.sdk",
    "MPIFunction": "farcall.worker.mpi",
    "ShellFunction": "farcall.worker.shell",
    "ShellResult": "farcall.worker.shell",
    "login": "farcall.sdk",
}

__all__ = [
    "Batch",
    "Client",
    "ComputeFuture",
    "ComputeSerializer",
    "Executor",
    "MPIFunction",
    "ShellFunction",
    "ShellResult",
    "__version__",
    "errors",
    "login",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("farcall.errors")
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'farcall' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
