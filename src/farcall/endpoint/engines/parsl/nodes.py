"""Who is connected: the interchange's answer to "which managers", as values. Decides nothing, asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farcall import __version__

__all__ = ["Node", "Nodes", "read_nodes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One manager: the process on a node that keeps its workers."""

    manager: str
    block: str
    workers: int
    tasks: int
    idle_s: float
    is_active: bool
    python_version: str
    parsl_version: str
    farcall_version: str | None

    def info(self) -> dict[str, Any]:
        """One entry of `node_info`. Source: wire protocol, `global_state`."""
        version = self.farcall_version or __version__
        return {
            "worker_count": self.workers,
            "idle_duration": self.idle_s,
            "parsl_version": self.parsl_version,
            "endpoint_version": version,
            "sdk_version": version,
            "python_version": self.python_version,
        }


@dataclass(frozen=True, slots=True)
class Nodes:
    """All that were connected at one moment."""

    nodes: tuple[Node, ...] = ()

    @property
    def count(self) -> int:
        return len(self.nodes)

    @property
    def active(self) -> int:
        """Managers that take tasks."""
        return sum(1 for node in self.nodes if node.is_active)

    @property
    def workers(self) -> int:
        return sum(node.workers for node in self.nodes if node.is_active)

    @property
    def tasks(self) -> int:
        """Tasks that managers have (some of them may wait for a worker there)."""
        return sum(node.tasks for node in self.nodes)

    @property
    def idle_workers(self) -> int:
        return sum(max(0, node.workers - node.tasks) for node in self.nodes)

    def info(self, job_ids: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """`node_info` by the batch system's job id; by the block's number if that is not known."""
        found: dict[str, list[dict[str, Any]]] = {}
        for node in self.nodes:
            found.setdefault(str(job_ids.get(node.block, node.block)), []).append(node.info())
        return found


def read_nodes(managers: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> Nodes:
    """The interchange's list of managers, with Farcall's version on each (`versions`: manager → version)."""
    return Nodes(
        tuple(
            Node(
                manager=manager["manager"],
                block=str(manager["block_id"]),
                workers=manager["worker_count"],
                tasks=manager["tasks"],
                idle_s=manager["idle_duration"],
                is_active=manager["active"] and not manager["draining"],
                python_version=manager["python_version"],
                parsl_version=manager["parsl_version"],
                farcall_version=versions.get(manager["manager"]),
            )
            for manager in managers
        )
    )
