"""Which revisions of the schema there are, which may be applied while which code runs, and which code runs on which
schema. Decides only.

A revision is of the first half ("pre": it only adds, so that the code before it goes on running) or of the second
("post": it removes what only older code needs). So a site with several service processes upgrades without a pause:
`migrate --pre`, new code process by process, `migrate --post`. To add a revision: a file in `versions`, a line in
`REVISIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from farcall.wire.errors import FarcallError

__all__ = [
    "HEAD",
    "NEEDED",
    "REVISIONS",
    "Half",
    "OldCodeRuns",
    "Revision",
    "SchemaTooNew",
    "check_code",
    "oldest_code",
    "to_apply",
]

Half = Literal["pre", "post"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """One change of the schema.

    Attributes:
        id: four digits, ascending.
        oldest_code: for a "post": the oldest `HEAD` whose code can do without what is removed.
    """

    id: str
    half: Half = "pre"
    oldest_code: str = "0001"


REVISIONS: Final = (
    Revision(id="0001"),
    Revision(id="0002"),
    Revision(id="0003"),
    Revision(id="0004"),
    Revision(id="0005"),
    Revision(id="0006"),
    Revision(id="0007"),
)
HEAD: Final = REVISIONS[-1].id
"""The newest revision; a test compares it with the files."""
NEEDED: Final = max(revision.id for revision in REVISIONS if revision.half == "pre")
"""What this code needs to run."""


class SchemaTooNew(FarcallError):
    """The database was written by a newer release of Farcall, and this one cannot use it any more."""

    code = "SCHEMA_TOO_NEW"

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return (
            f"The database has schema revision {self.found!r}, and this release of Farcall knows revisions up to "
            f"{HEAD!r}: a newer release has used it. Upgrade Farcall, or choose another data directory."
        )


class OldCodeRuns(FarcallError):
    """A revision would take from a running service process what it needs."""

    code = "OLD_CODE_RUNS"

    def __init__(self, revision: str, running: str) -> None:
        super().__init__(revision, running)
        self.revision = revision
        self.running = running

    def __str__(self) -> str:
        return (
            f"Schema revision {self.revision} removes what a service process that is running now needs (its release "
            f"was made for revision {self.running}). Replace that process by this release, then migrate again."
        )


def check_code(found: str, recorded_oldest: str | None, *, head: str = HEAD) -> None:
    """Whether the code of `head` may use a schema of revision `found`.

    Args:
        recorded_oldest: the oldest code that can, as noted by who migrated; None: nobody noted it.

    Raises:
        SchemaTooNew: it may not.
    """
    if found > head and (recorded_oldest is None or recorded_oldest > head):
        raise SchemaTooNew(found)


def oldest_code(found: str, revisions: Iterable[Revision] = REVISIONS) -> str:
    """The oldest code that can use a schema of revision `found`, to be noted there."""
    return max((revision.oldest_code for revision in revisions if revision.id <= found), default="0001")


def to_apply(
    found: str | None,
    half: Half | None,
    running: Sequence[str] = (),
    revisions: Sequence[Revision] = REVISIONS,
) -> Sequence[Revision]:
    """What is to be applied to a schema of revision `found`, oldest first.

    Args:
        half: "pre": up to the last that adds something; "post" and None: everything.
        running: for what revisions the processes that use the database now were written.

    Raises:
        OldCodeRuns: one of them would be hurt.
    """
    pending = [revision for revision in revisions if found is None or revision.id > found]
    if half == "pre":
        while pending and pending[-1].half == "post":
            pending.pop()
    for revision in pending:
        hurt = [code for code in running if code < revision.oldest_code]
        if hurt:
            raise OldCodeRuns(revision.id, min(hurt))
    return pending
