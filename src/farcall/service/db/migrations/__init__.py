"""Changes of the schema, one Alembic revision each, and `migrate`, which applies those that are missing.

Alembic is imported only when something is to be done: it would cost an idle service 10 MB.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, inspect, text

from farcall.wire.errors import FarcallError

__all__ = ["HEAD", "SchemaTooNew", "migrate", "migration_sql", "revision_of"]

HEAD: Final = "0004"
"""The newest revision; a test compares it with the files."""


class SchemaTooNew(FarcallError):
    """The database was written by a newer release of Farcall."""

    code = "SCHEMA_TOO_NEW"

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return (
            f"The database has schema revision {self.found!r}, and this release of Farcall knows revisions up to "
            f"{HEAD!r}: a newer release has used it. Upgrade Farcall, or choose another data directory."
        )


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema that is there; None if there is none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def migrate(engine: Engine) -> bool:
    """Bring the schema to `HEAD`. Returns whether anything had to be done.

    Raises:
        SchemaTooNew: the database is ahead of this release.
    """
    with engine.connect() as connection:
        found = revision_of(connection)
        if found == HEAD:
            return False
        if found is not None and found > HEAD:
            raise SchemaTooNew(found)
        connection.rollback()
        _upgrade(connection=connection)
    return True


def migration_sql(engine: Engine, found: str | None) -> str:
    """The statements that bring a schema of revision `found` to `HEAD`, for the engine's kind of database."""
    if found is not None and found > HEAD:
        raise SchemaTooNew(found)
    output = io.StringIO()
    _upgrade(f"{found or 'base'}:head", dialect=engine.dialect.name, output=output)
    return output.getvalue()


def _upgrade(revision: str = "head", **attributes: Any) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(attributes)
    command.upgrade(config, revision, sql="connection" not in attributes)
