"""See `farcall.sdk.executor`."""

from farcall.sdk import ComputeFuture, Executor

__all__ = ["ComputeFuture", "Executor"]
