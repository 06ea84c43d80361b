"""Whether the real packages are there. Imports the standard library only: the build runs this, too."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

__all__ = ["refuse_beside_the_real"]

_REAL = ("globus-compute-sdk", "globus-compute-endpoint")


def refuse_beside_the_real(path: Sequence[str] | None = None) -> None:
    """Raises ImportError if one of the packages whose names are taken here is installed.

    Args:
        path: directories in which packages are installed; None means those of this interpreter.
    """
    found = metadata.distributions() if path is None else metadata.distributions(path=list(path))
    there = sorted({str(each.metadata["Name"]) for each in found} & set(_REAL))
    if there:
        raise ImportError(
            f"farcall-globus-shim cannot be used beside {' and '.join(there)}: both provide the module "
            "globus_compute_sdk or the command globus-compute-endpoint, and files of one would overwrite the other's. "
            f"Either use the real packages, which work with a Farcall service as they are (pip uninstall "
            f"farcall-globus-shim), or Farcall under their names (pip uninstall farcall-globus-shim {' '.join(there)}; "
            "pip install farcall-globus-shim)."
        )
