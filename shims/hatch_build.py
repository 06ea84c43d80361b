"""Refuses to build for an environment that has the packages whose names this one takes."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_CONFLICT = Path(__file__).parent / "src" / "farcall_globus_shim" / "conflict.py"


class Refusal(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is the builder's own affair
    """Looks where pip installs to; a build in isolation still runs the environment's own interpreter."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        paths = sysconfig.get_paths()
        runpy.run_path(str(_CONFLICT))["refuse_beside_the_real"]([paths["purelib"], paths["platlib"]])
