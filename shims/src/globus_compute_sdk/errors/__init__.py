"""See `farcall.errors`. The two bases have other names there."""

from farcall.errors import *  # noqa: F403
from farcall.errors import DeserializationError, SerializationError
from farcall.errors import FarcallError as ComputeError
from farcall.errors import __all__ as _ours

SerdeError = (SerializationError, DeserializationError)
"""For `except` and `isinstance`."""

__all__ = [*_ours, "ComputeError", "SerdeError"]
