"""See `farcall.worker.mpi`."""

from farcall import MPIFunction

__all__ = ["MPIFunction"]
