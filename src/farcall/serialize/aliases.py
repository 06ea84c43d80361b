"""Which class names in a pickle stand for which classes here, in both ecosystems' spelling.

A pickle names classes by module path. The other ecosystem's payloads name its own paths
(`globus_compute_sdk.sdk.shell_function.ShellFunction`), and its workers can load only those; so `INCOMING`
turns its names into ours, whether or not its package is installed, and `OUTGOING` turns ours into its names
where the two classes have the same attributes. Owns the table; `dillpickle` applies it.

Source: wire protocol, payloads, names that pickles refer to; shapes of the errors observed with
globus-compute-sdk 4.19.0.
"""

from __future__ import annotations

from farcall.wire.errors import FarcallError, MaxResultSizeExceeded, TaskPending

__all__ = ["INCOMING", "OUTGOING"]

_SHELL = "globus_compute_sdk.sdk.shell_function"
_MPI = "globus_compute_sdk.sdk.mpi_function"
_ERRORS = ("globus_compute_sdk.errors.error_types", "globus_compute_sdk.errors")
_OWN_ERRORS = "farcall.wire.errors"
_HERE = __name__

_SAME_ERRORS = ("SerializationError", "DeserializationError", "TaskExecutionFailed")
"""Constructed from the same arguments in both families."""

_ADAPTED_ERRORS = {
    "ComputeError": "_plain_error",
    "MaxResultSizeExceeded": "_max_result_size_exceeded",
    "SerdeError": "_plain_error",
    "TaskPending": "_task_pending",
    "VersionMismatch": "_plain_error",
}
"""Constructed from other arguments there: the function here that makes ours of theirs."""

OUTGOING: dict[tuple[str, str], tuple[str, str]] = {
    ("farcall.worker.shell", "ShellFunction"): (_SHELL, "ShellFunction"),
    ("farcall.worker.shell", "ShellResult"): (_SHELL, "ShellResult"),
    ("farcall.worker.mpi", "MPIFunction"): (_MPI, "MPIFunction"),
    **{(_OWN_ERRORS, name): (_ERRORS[0], name) for name in _SAME_ERRORS},
}
"""(module, qualified name) of a class of ours → what a pickle that we write calls it."""

INCOMING: dict[tuple[str, str], tuple[str, str]] = {
    **{theirs: ours for ours, theirs in OUTGOING.items()},
    **{(module, name): (_OWN_ERRORS, name) for module in _ERRORS for name in _SAME_ERRORS},
    **{(module, name): (_HERE, made_by) for module in _ERRORS for name, made_by in _ADAPTED_ERRORS.items()},
}
"""(module, name) as it stands in a pickle → (module, name) of what is loaded here."""


def _plain_error(message: str = "") -> FarcallError:
    return FarcallError(message)


def _task_pending(reason: str = "") -> TaskPending:
    return TaskPending("", reason)


def _max_result_size_exceeded(size: int, limit: int) -> MaxResultSizeExceeded:
    return MaxResultSizeExceeded(f"The result has {size} characters; the limit is {limit}.")
