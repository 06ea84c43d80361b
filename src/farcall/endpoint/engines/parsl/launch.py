"""The command that starts a node's workers, and the addresses at which they find the agent. Texts and look-ups only."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from farcall.endpoint.engines.config import GlobusComputeConfig, GlobusMPIConfig
from farcall.worker.pool import WORKER_VARIABLE

__all__ = ["contained", "is_on_this_machine", "own_addresses", "with_own_path"]

_SHARES_NO_FILES = ("AWSProvider", "AzureProvider", "GoogleCloudProvider", "KubernetesProvider")
_STAYS_HERE = ("SingleNodeLauncher", "SimpleLauncher", "WrappedLauncher")


def is_on_this_machine(config: GlobusComputeConfig | GlobusMPIConfig, provider: Any) -> bool:
    """Whether all workers run on the agent's machine, outside of containers, so that loopback reaches them."""
    return (
        type(provider).__name__ == "LocalProvider"
        and type(provider.launcher).__name__ in _STAYS_HERE
        and provider.nodes_per_block == 1
        and config.container_type is None
    )


def with_own_path(command: str, provider: Any, marker: str | None) -> str:
    """Let the node's shell find Parsl's worker program: in the environment that `worker_init` activates, else in ours.

    The agent's own directory of programs comes last, since an environment that the site activates shall win.

    Args:
        marker: put into the environment of all that the block starts, by which it can be found and ended.
    """
    if type(provider).__name__ in _SHARES_NO_FILES:
        return command
    programs = _escaped(shlex.quote(str(Path(sys.executable).parent)))
    mark = f"{WORKER_VARIABLE}={marker} " if marker else ""
    return f'env {mark}PATH="$PATH":{programs} {command}'


def contained(command: str, config: GlobusComputeConfig | GlobusMPIConfig, run_dir: Path) -> str:
    """The command, inside of the configured container.

    The endpoint's directory (`run_dir`) is mounted at the same path: logs, certificates and tasks' files are there.
    Source: keys as in the other ecosystem; options of each runtime from its own manual.
    """
    kind, options = config.container_type, config.container_cmd_options or ""
    if kind is None:
        return command
    if kind == "custom":
        parts = re.split(r"(\{EXECUTOR_RUNDIR\}|\{EXECUTOR_LAUNCH_CMD\})", options)
        filled = {"{EXECUTOR_RUNDIR}": _escaped(str(run_dir)), "{EXECUTOR_LAUNCH_CMD}": command}
        return "".join(filled.get(part) or _escaped(part) for part in parts)
    image, mount = config.container_uri or "", shlex.quote(f"{run_dir}:{run_dir}")
    options = f"{_escaped(options)} " if options else ""
    if kind in ("apptainer", "singularity"):
        return f"{kind} exec --bind {_escaped(mount)} {options}{_escaped(image)} {command}"
    return f"{kind} run --rm -v {_escaped(mount)} {options}{_escaped(image)} {command}"


def own_addresses() -> set[str]:
    """This machine's addresses, for workers to try: of its interfaces, by name and by route. Asks nobody outside."""
    import psutil
    from parsl.addresses import address_by_hostname, address_by_route

    found = {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family.name == "AF_INET"
    }
    for look_up in (address_by_hostname, address_by_route):
        try:
            found.add(look_up())
        except Exception:
            continue  # no name service, no default route: others remain
    return found or {"127.0.0.1"}


def _escaped(text: str) -> str:
    """For Parsl, which formats the command twice later on: once for the executor, once for the block."""
    return text.replace("{", "{{{{").replace("}", "}}}}")
