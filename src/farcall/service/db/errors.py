"""What can be wrong with a store as a whole, told to the operator. Imports no database."""

from __future__ import annotations

from farcall.wire.errors import FarcallError

__all__ = ["StoreBusy", "StoreError", "StoreMisnamed", "StoreReadOnly", "StoreUnreachable"]


class StoreError(FarcallError):
    """The service cannot work with its store. No text of this family holds a password."""

    code = "STORE_ERROR"


class StoreMisnamed(StoreError):
    """The store's URL is not one."""

    code = "STORE_MISNAMED"


class StoreUnreachable(StoreError):
    """The database server does not let us in, or does not answer."""

    code = "STORE_UNREACHABLE"
    retryable = True

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"The store {self.store} cannot be used: {self.reason}. `farcall-service check` looks closer."


class StoreBusy(StoreError):
    """Another service works on this database."""

    code = "STORE_BUSY"

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder

    def __str__(self) -> str:
        return (
            f"Another Farcall service uses this database ({self.holder}). Stop it, or choose another database with "
            "`--store`. Several service processes can share one only if each of them has its store on PostgreSQL "
            "and its messages on RabbitMQ (`--broker`)."
        )


class StoreReadOnly(StoreError):
    """The server does not take writes: it is a standby."""

    code = "STORE_READ_ONLY"

    def __str__(self) -> str:
        return (
            "The PostgreSQL server is a standby, which takes no writes. Name the primary with `--store`, or name "
            "both and add `target_session_attrs=read-write` to the URL."
        )
