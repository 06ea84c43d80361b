"""The engine on Parsl's HighThroughputExecutor. Only this package imports Parsl, and only when it is used.

Importing this package imports Parsl, without the optional packages that Parsl would load whenever they are installed:
SQLAlchemy for its monitoring, which is not used here (half of the time and a third of the memory of the import), and
the other ecosystem's SDK.
"""

from __future__ import annotations

import sys

_NOT_NEEDED = ("globus_compute_sdk", "sqlalchemy")


def _import_parsl() -> None:
    hidden = [name for name in _NOT_NEEDED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import parsl.executors.high_throughput.executor  # noqa: F401  # all that the package uses comes with it
    finally:
        for name in hidden:
            del sys.modules[name]


_import_parsl()
