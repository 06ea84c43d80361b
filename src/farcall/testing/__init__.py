"""For tests of programs that use Farcall: a whole system in this process (`local_system`), or real processes
(`farcall.testing.processes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farcall.testing.local import LocalSystem, local_system

__all__ = ["LocalSystem", "local_system"]


def __getattr__(name: str) -> Any:
    # On first use: it loads service and endpoint, which `farcall.testing.processes` has no need of.
    if name in __all__:
        from farcall.testing import local

        return getattr(local, name)
    raise AttributeError(f"module 'farcall.testing' has no attribute {name!r}")
