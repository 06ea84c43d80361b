"""Changes of the schema, one Alembic revision each, and `migrate`, which applies those that are missing; `plan` says
which may be.

Alembic is imported only when something is to be done: it would cost an idle service 10 MB.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from farcall.service.db.migrations.plan import HEAD, Half, SchemaTooNew, check_code, to_apply

__all__ = ["HEAD", "Half", "SchemaTooNew", "check_schema", "migrate", "migration_sql", "revision_of"]


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema that is there; None if there is none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def check_schema(connection: Connection) -> str | None:
    """The revision of the schema that is there; None if there is none.

    Raises:
        SchemaTooNew: this release cannot use it.
    """
    found = revision_of(connection)
    if found is not None and found > HEAD:
        check_code(found, connection.execute(text("SELECT value FROM settings WHERE key = 'oldest_code'")).scalar())
    return found


def migrate(
    engine: Engine, half: Half | None = None, *, running: Sequence[str] = (), connection: Connection | None = None
) -> bool:
    """Bring the schema to `HEAD`, or to the end of its first half. Returns whether anything had to be done.

    Args:
        running: for what revisions the processes that use the database now were written.
        connection: to be used; a new one if None.

    Raises:
        SchemaTooNew: the database is ahead of this release.
        OldCodeRuns: a process could not go on.
    """
    if connection is None:
        with engine.connect() as connection:
            return migrate(engine, half, running=running, connection=connection)
    found = check_schema(connection)
    revisions = to_apply(found, half, running)
    connection.rollback()
    if revisions:
        _upgrade(revisions[-1].id, connection=connection)
    return bool(revisions)


def migration_sql(engine: Engine, found: str | None, half: Half | None = None) -> str:
    """The statements that `migrate` would run on a schema of revision `found`, for the engine's kind of database."""
    if found is not None and found > HEAD:
        raise SchemaTooNew(found)
    revisions = to_apply(found, half)
    if not revisions:
        return ""
    output = io.StringIO()
    _upgrade(f"{found or 'base'}:{revisions[-1].id}", dialect=engine.dialect.name, output=output)
    return output.getvalue()


def _upgrade(revision: str, **attributes: Any) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(attributes, to=revision.rpartition(":")[2])
    command.upgrade(config, revision, sql="connection" not in attributes)
