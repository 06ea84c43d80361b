"""Which commands of a batch system an endpoint's provider calls, and which of them are not here.

Only looks and tells: a missing command may still come (a module that `endpoint_setup` loads does not count, since the
provider runs with the endpoint's own PATH), so nobody is kept from starting.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["PROVIDER_COMMANDS", "missing_commands_notice"]

PROVIDER_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "CondorProvider": ("condor_submit", "condor_q", "condor_rm"),
    "GridEngineProvider": ("qsub", "qstat", "qdel"),
    "LSFProvider": ("bsub", "bjobs", "bkill"),
    "PBSProProvider": ("qsub", "qstat", "qdel"),
    "SlurmProvider": ("sbatch", "squeue", "scancel"),
    "TorqueProvider": ("qsub", "qstat", "qdel"),
}
"""By the provider's name in `config.yaml`: what submits, looks after and ends its jobs. Source: Parsl's providers."""


def missing_commands_notice(engine: Any, which: Callable[[str], str | None] = shutil.which) -> str | None:
    """What to tell the person who starts an endpoint whose provider cannot work here; None if nothing is missing.

    Args:
        engine: a validated `engine:` section of any type.
        which: the path of a command, or None; looks in PATH.
    """
    provider = getattr(getattr(engine, "provider", None), "type", None)
    missing = [command for command in PROVIDER_COMMANDS.get(str(provider), ()) if which(command) is None]
    if not missing:
        return None
    return (
        f"{provider} needs {_and(missing)}, which cannot be found here (PATH). Tasks will wait, and then fail, unless "
        "this is a machine that submits jobs: start the endpoint on one, or load the batch system's module first."
    )


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
