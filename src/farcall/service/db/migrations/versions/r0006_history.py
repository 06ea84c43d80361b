"""What went on at endpoints, per minute and per hour. Only adds: the release before runs on this schema too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "endpoint_history",
        sa.Column("endpoint_id", sa.String(36), nullable=False),
        sa.Column("step_s", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("is_online", sa.Boolean),
        sa.Column("workers", sa.Float),
        sa.Column("idle_workers", sa.Float),
        sa.Column("outstanding", sa.Float),
        sa.Column("pending", sa.Float),
        sa.Column("submitted", sa.Integer, nullable=False),
        sa.Column("succeeded", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id", "step_s", "at", name="pk_endpoint_history"),
    )
    op.create_index("ix_endpoint_history_step_s_at", "endpoint_history", ["step_s", "at"])
