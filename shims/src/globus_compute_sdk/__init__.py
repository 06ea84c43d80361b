"""Farcall's SDK under the other ecosystem's name. Refuses to be imported where that one's own package is installed."""

from farcall_globus_shim.conflict import refuse_beside_the_real

refuse_beside_the_real()

from farcall import Client, Executor, MPIFunction, ShellFunction, ShellResult  # noqa: E402
from globus_compute_sdk.version import __version__  # noqa: E402

__all__ = ["Client", "Executor", "MPIFunction", "ShellFunction", "ShellResult", "__version__"]
