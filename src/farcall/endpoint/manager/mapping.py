"""Which local user an identity becomes: the documents of an identity mapping file, asked in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farcall.wire.errors import FarcallError

__all__ = ["IdentityMap", "Mapped", "MappingInvalid", "Unmapped"]


class MappingInvalid(FarcallError):
    """The identity mapping file cannot be used. One line per problem, with document and mapping."""

    code = "MAPPING_INVALID"

    def __init__(self, path: str, problems: tuple[str, ...]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        return f"The identity mapping {self.path} cannot be used:\n" + "\n".join(f"  {text}" for text in self.problems)


class Unmapped(FarcallError):
    """No rule makes a local user of the identities. The message is for the submitter."""

    code = "IDENTITY_UNMAPPED"

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.names = names

    def __str__(self) -> str:
        who = ", ".join(self.names) or "nobody"
        return (
            f"Identity failed to map to a local user name ({who}). Ask the endpoint's administrator for an account, "
            "or submit with an identity that has one."
        )


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What was found.

    Attributes:
        local_user: name of the local account; whether there is one has not been asked.
        identity: the one of the set that matched.
        rule: which rule, for people: "document 1, mapping 2".
    """

    local_user: str
    identity: Mapping[str, Any]
    rule: str


class IdentityMap:
    """The rules of one file, as they stood when it was read."""

    @classmethod
    def load(cls, path: Path) -> IdentityMap:
        """Read the file.

        Raises:
            MappingInvalid: it is missing, others may write it, or it makes no sense.
        """
        raise NotImplementedError

    def map(self, identity_set: Sequence[Mapping[str, Any]]) -> Mapped:
        """The local user of the first rule that matches one of the identities.

        Raises:
            Unmapped: none does.
        """
        raise NotImplementedError

    def refreshed(self) -> IdentityMap:
        """Itself, or the newly read file if it has changed and is valid; if it is not, that is logged once."""
        raise NotImplementedError
