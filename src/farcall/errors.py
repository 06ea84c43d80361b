"""The errors that callers of Farcall may want to catch: `from farcall import errors`."""

from farcall.wire.errors import *  # noqa: F403
from farcall.wire.errors import __all__ as __all__
