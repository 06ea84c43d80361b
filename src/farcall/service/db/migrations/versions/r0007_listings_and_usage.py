"""Whose tasks a submission has, for listings; when tasks moved; what was used, per day. Only adds: the release before
runs on this schema too. What it writes meanwhile, and what was there, the sweeper completes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.String(36)


def upgrade() -> None:
    op.add_column("submissions", sa.Column("owner_id", _ID))
    op.add_column("submissions", sa.Column("endpoint_id", _ID))
    op.create_index("ix_submissions_owner_id_first_seq", "submissions", ["owner_id", "first_seq"])
    op.create_index(
        "ix_submissions_owner_id_endpoint_id_first_seq", "submissions", ["owner_id", "endpoint_id", "first_seq"]
    )
    op.add_column("tasks", sa.Column("taken_at", sa.Float))
    op.add_column("tasks", sa.Column("started_at", sa.Float))
    op.create_index("ix_functions_owner_id_created_at", "functions", ["owner_id", "created_at"])
    public, grouped = sa.text("public"), sa.text("group_id IS NOT NULL")
    op.create_index(
        "ix_functions_public_created_at", "functions", ["created_at"], sqlite_where=public, postgresql_where=public
    )
    op.create_index(
        "ix_functions_group_id_created_at",
        "functions",
        ["group_id", "created_at"],
        sqlite_where=grouped,
        postgresql_where=grouped,
    )
    op.create_table(
        "usage",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("function_id", _ID, nullable=False),
        sa.Column("succeeded", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("cancelled", sa.Integer, nullable=False),
        sa.Column("run_s", sa.Float, nullable=False),
        sa.Column("last_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("day", "owner_id", "endpoint_id", "function_id", name="pk_usage"),
    )
    for column in ("owner_id", "endpoint_id", "function_id"):
        op.create_index(f"ix_usage_{column}_day", "usage", [column, "day"])
