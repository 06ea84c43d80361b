"""What several service processes tell each other by the database. Of the first half: it only adds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("attached_at", sa.Float))
    op.create_table(
        "relays",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("backend_pid", sa.Integer, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("beat_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_relays"),
    )
