"""How Alembic reaches the database: by the connection that `migrate` hands over. No configuration file."""

from __future__ import annotations

from alembic import context

from farcall.service.db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
