"""See `farcall.serialize`."""

from farcall.serialize import *  # noqa: F403
from farcall.serialize import __all__ as __all__
