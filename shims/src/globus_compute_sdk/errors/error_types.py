"""See `globus_compute_sdk.errors`."""

from globus_compute_sdk.errors import *  # noqa: F403
from globus_compute_sdk.errors import __all__ as __all__
