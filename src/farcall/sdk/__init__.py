"""What people write programs with: `Executor`, its futures, and `Client`.

from farcall import Executor

with Executor(endpoint_id="…") as ex:
    print(ex.submit(pow, 2, 10).result())
"""

from farcall.sdk.batch import Batch
from farcall.sdk.client import Client
from farcall.sdk.executor import Executor
from farcall.sdk.future import ComputeFuture
from farcall.sdk.session import login
from farcall.serialize import ComputeSerializer
from farcall.worker.mpi import MPIFunction
from farcall.worker.shell import ShellFunction, ShellResult

__all__ = [
    "Batch",
    "Client",
    "ComputeFuture",
    "ComputeSerializer",
    "Executor",
    "MPIFunction",
    "ShellFunction",
    "ShellResult",
    "login",
]
