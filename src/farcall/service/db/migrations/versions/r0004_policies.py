"""Authentication policies, projects, subscriptions, shares, high assurance. Only adds: the release before runs on this
schema too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.String(36)


def upgrade() -> None:
    op.add_column("functions", sa.Column("ha_endpoint_id", _ID))
    op.add_column("functions", sa.Column("last_run_at", sa.Float))
    op.create_index("ix_functions_ha_endpoint_id", "functions", ["ha_endpoint_id"])
    op.add_column("endpoints", sa.Column("authentication_policy_id", _ID))
    op.create_index("ix_endpoints_authentication_policy_id", "endpoints", ["authentication_policy_id"])
    op.create_table(
        "projects",
        sa.Column("id", _ID, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("contact_email", sa.Text),
        sa.Column("admin_ids_json", sa.Text, nullable=False),
        sa.Column("admin_group_ids_json", sa.Text, nullable=False),
        sa.Column("owner_id", _ID),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
    )
    op.create_index("ix_projects_owner_id", "projects", ["owner_id"])
    op.create_table(
        "auth_policies",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project_id", _ID),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("include_json", sa.Text, nullable=False),
        sa.Column("exclude_json", sa.Text, nullable=False),
        sa.Column("high_assurance", sa.Boolean, nullable=False),
        sa.Column("timeout_s", sa.Integer),
        sa.Column("required_mfa", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_auth_policies"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_auth_policies_project_id_projects"),
    )
    op.create_index("ix_auth_policies_project_id", "auth_policies", ["project_id"])
    op.create_table(
        "subscriptions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("high_assurance", sa.Boolean, nullable=False),
        sa.Column("admin_ids_json", sa.Text, nullable=False),
        sa.Column("group_ids_json", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscriptions"),
    )
    op.create_table(
        "endpoint_shares",
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("grantee_id", _ID, nullable=False),
        sa.Column("is_group", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id", "grantee_id", name="pk_endpoint_shares"),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name="fk_endpoint_shares_endpoint_id_endpoints"),
    )
    op.create_index("ix_endpoint_shares_grantee_id", "endpoint_shares", ["grantee_id"])


def downgrade() -> None:
    for table in ("endpoint_shares", "subscriptions", "auth_policies", "projects"):
        op.drop_table(table)
    op.drop_index("ix_endpoints_authentication_policy_id", "endpoints")
    op.drop_column("endpoints", "authentication_policy_id")
    op.drop_index("ix_functions_ha_endpoint_id", "functions")
    for name in ("ha_endpoint_id", "last_run_at"):
        op.drop_column("functions", name)
