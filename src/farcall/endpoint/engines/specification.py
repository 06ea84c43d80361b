"""What a task may ask for: resource specifications, checked and completed before a worker sees them. Decides only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["mpi_specification", "single_node_specification"]

_MPI_KEYS = ("launcher_options", "num_nodes", "num_ranks", "ranks_per_node")


def single_node_specification(given: Mapping[str, Any]) -> dict[str, Any]:
    """For GlobusComputeEngine: nothing, or `priority`, a whole number; lower ones run first.

    Raises:
        ValueError: anything else; the message is for the user.

    Source: Parsl's HighThroughputExecutor.
    """
    wrong = sorted(set(given) - {"priority"})
    if wrong:
        raise ValueError(
            f"GlobusComputeEngine takes only 'priority' in a resource specification, not {', '.join(wrong)}. "
            "Tasks that need several nodes or ranks need an endpoint with GlobusMPIEngine."
        )
    if given and not _is_whole(given["priority"]):
        raise ValueError("'priority' in a resource specification is a whole number; lower numbers run first.")
    return dict(given)


def mpi_specification(given: Mapping[str, Any], *, nodes_per_block: int) -> dict[str, Any]:
    """For GlobusMPIEngine: nodes, and two of nodes, ranks and ranks per node; the third follows.

    Args:
        nodes_per_block: what a task can have at most.

    Returns:
        The specification with all three numbers.

    Raises:
        ValueError: it is incomplete or makes no sense; the message is for the user.

    Source: Parsl's MPIExecutor; which, given nodes and ranks, would compute a fraction.
    """
    wrong = sorted(set(given) - set(_MPI_KEYS))
    if wrong:
        raise ValueError(
            f"GlobusMPIEngine does not know {', '.join(wrong)} in a resource specification. It takes: "
            + ", ".join(_MPI_KEYS)
        )
    numbers = {name: given[name] for name in _MPI_KEYS[1:] if given.get(name) is not None}
    for name, value in numbers.items():
        if not _is_whole(value) or value < 1:
            raise ValueError(f"{name} in a resource specification is a whole number of at least 1, not {value!r}.")
    if "num_nodes" not in numbers or len(numbers) < 2:
        raise ValueError(
            "GlobusMPIEngine needs a resource specification with num_nodes and ranks_per_node, such as "
            '{"num_nodes": 2, "ranks_per_node": 4}.'
        )
    nodes = numbers["num_nodes"]
    if nodes > nodes_per_block:
        raise ValueError(f"The task asks for {nodes} nodes, and a block of this endpoint has {nodes_per_block}.")
    ranks = numbers.get("num_ranks", nodes * numbers.get("ranks_per_node", 1))
    per_node = numbers.get("ranks_per_node", -(-ranks // nodes))
    if ranks > nodes * per_node or ranks < nodes:
        raise ValueError(f"{ranks} ranks do not fit on {nodes} nodes with {per_node} ranks each.")
    return {**given, "num_nodes": nodes, "num_ranks": ranks, "ranks_per_node": per_node}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
