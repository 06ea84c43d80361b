"""A new endpoint's directory: what `configure` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from farcall.endpoint.directory import EndpointDirectory
from farcall.wire.errors import FarcallError
from farcall.wire.names import endpoint_name_fault

__all__ = ["EndpointExists", "InvalidName", "check_new", "create_profile", "default_config"]


class EndpointExists(FarcallError):
    """There is an endpoint of this name already."""

    code = "ENDPOINT_EXISTS"

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.name = name
        self.path = path

    def __str__(self) -> str:
        return (
            f"Endpoint '{self.name}' exists already ({self.path}). Choose another name, or remove it with "
            f"`farcall-endpoint delete {self.name}`."
        )


class InvalidName(FarcallError):
    """The text cannot be an endpoint's name."""

    code = "INVALID_ENDPOINT_NAME"

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.fault[0].upper()}{self.fault[1:]}."


def create_profile(
    directory: EndpointDirectory, *, display_name: str | None = None, protection: Mapping[str, Any] | None = None
) -> None:
    """Make the directory (mode 0700) with a commented `config.yaml`.

    Args:
        protection: further keys, by which its use is restricted.

    Raises:
        InvalidName: the directory's name cannot be an endpoint's.
        EndpointExists: there is one already.
        OSError: it cannot be written.
    """
    check_new(directory)
    directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.make_private()
    directory.config_path.write_text(default_config(display_name, protection), encoding="utf-8")


def check_new(directory: EndpointDirectory) -> None:
    """Whether an endpoint can be made there. Raises InvalidName, EndpointExists."""
    fault = endpoint_name_fault(directory.name)
    if fault is not None:
        raise InvalidName(fault)
    if directory.is_configured:
        raise EndpointExists(directory.name, str(directory.path))


def default_config(display_name: str | None = None, protection: Mapping[str, Any] | None = None) -> str:
    """The text of a new `config.yaml`: workers on this machine, ready as soon as the endpoint runs.

    Args:
        protection: as for `create_profile`.
    """
    shown = f"display_name: {json.dumps(display_name)}" if display_name else "# display_name: My Endpoint"
    if protection:
        shown += "\n\n# Who may use it, besides what `farcall-endpoint shares` lists.\n"
        shown += "\n".join(f"{key}: {json.dumps(value)}" for key, value in protection.items())
    return _CONFIG.replace("@DISPLAY_NAME@", shown)


_CONFIG: Final = """\
# How this endpoint runs tasks. Every key is described in docs/reference/config-yaml.md.
# A wrong key or value keeps the endpoint from starting, with its line number.

# What people see in lists; without it, the endpoint's name.
@DISPLAY_NAME@

engine:
  # Workers on this machine or on a cluster's nodes. For one machine, ProcessPoolEngine is lighter:
  #   type: ProcessPoolEngine
  #   max_workers: 4
  type: GlobusComputeEngine

  # Tasks that run at once on a node; without it, one per core.
  # max_workers_per_node: 4

  # How often a task is run again if its worker, its node or this endpoint was lost while it ran.
  # Leave it at 0 if running a task twice could do harm.
  # max_retries_on_system_failure: 0

  provider:
    # Where workers run: LocalProvider is this machine. On a cluster, for example:
    #   type: SlurmProvider
    #   partition: compute
    #   account: my-account
    #   walltime: 01:00:00
    #   launcher:
    #     type: SrunLauncher
    type: LocalProvider

    # A block is a group of workers that comes and goes as one. The first starts with the endpoint;
    # when there has been nothing to do for two minutes it is given back, and started again when tasks come.
    init_blocks: 1
    min_blocks: 0
    max_blocks: 1

    # Shell commands before a worker starts, for example to choose a Python environment:
    # worker_init: module load python; source activate my-env

# Only these functions may run here (ids, as `register_function` returns them); without it, all.
# allowed_functions:
#   - 54460200-b652-4f43-a918-02882fa6114a

# Seconds that running tasks get when the endpoint is stopped.
# shutdown_grace_period: 10
"""
