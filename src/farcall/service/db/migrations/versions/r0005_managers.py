"""User endpoints of managers are endpoints with a manager. Only adds: the release before runs on this schema too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("manager_id", sa.String(36)))
    op.add_column("endpoints", sa.Column("user_options_json", sa.Text))
    op.add_column("endpoints", sa.Column("user_runtime_json", sa.Text))
    op.add_column("endpoints", sa.Column("reached_host", sa.String(255)))
    op.add_column("endpoints", sa.Column("incarnation", sa.String(64)))
    op.create_index("ix_endpoints_manager_id", "endpoints", ["manager_id"])
