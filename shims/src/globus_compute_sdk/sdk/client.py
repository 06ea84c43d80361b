"""See `farcall.sdk.client`."""

from farcall import Client

__all__ = ["Client"]
