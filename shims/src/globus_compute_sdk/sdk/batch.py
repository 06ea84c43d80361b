"""See `farcall.sdk.batch`."""

from farcall.sdk import Batch

__all__ = ["Batch"]
