"""How Alembic reaches the database: by the connection that `migrate` hands over. No configuration file."""

from __future__ import annotations

from alembic import context
from sqlalchemy import delete, insert

from farcall.service.db.migrations.plan import oldest_code
from farcall.service.db.tables import metadata, settings

given = context.config.attributes
if context.is_offline_mode():  # the statements are printed
    context.configure(
        dialect_name=given["dialect"],
        output_buffer=given["output"],
        target_metadata=metadata,
        render_as_batch=True,
        literal_binds=True,
    )
else:
    context.configure(
        connection=given["connection"],
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,  # as we begin transactions, SQLite can do it, too
    )
with context.begin_transaction():
    context.run_migrations()
    # For the releases to come: which of them may still use this.
    context.execute(delete(settings).where(settings.c.key == "oldest_code"))
    context.execute(insert(settings).values(key="oldest_code", value=oldest_code(given["to"])))
