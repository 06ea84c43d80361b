"""What a submission tells about the submitter's Python and machine (`user_runtime`). Source: wire protocol, submit.

Computed once per process, and without the child processes that `platform.architecture` and
`platform.processor` start.
"""

from __future__ import annotations

import functools
import platform
import struct
import sys
from typing import Any

from farcall import __version__
from farcall.wire.topology import COMPAT_SDK_VERSION

__all__ = ["user_runtime"]


@functools.cache
def user_runtime() -> dict[str, Any]:
    """The document; do not change it."""
    info = sys.version_info
    return {
        "globus_compute_sdk_version": COMPAT_SDK_VERSION,
        "globus_sdk_version": COMPAT_SDK_VERSION,
        "farcall_version": __version__,
        "python_version": sys.version,
        "python": {
            "version": platform.python_version(),
            "version_description": sys.version,
            "version_tuple": [info.major, info.minor, info.micro],
            "version_info": [info.major, info.minor, info.micro, info.releaselevel, info.serial],
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "platform": {
            "architecture": [f"{8 * struct.calcsize('P')}bit", "ELF" if sys.platform == "linux" else ""],
            "machine": platform.machine(),
            "node": platform.node(),
            "platform": platform.platform(),
            "processor": platform.machine(),
            "release": platform.release(),
        },
    }
