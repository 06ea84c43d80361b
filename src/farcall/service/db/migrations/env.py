"""How Alembic reaches the database: by the connection that `migrate` hands over. No configuration file."""

from __future__ import annotations

from alembic import context

from farcall.service.db.tables import metadata

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
    context.configure(connection=given["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
