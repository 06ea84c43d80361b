"""The first tables. Written out, not taken from `tables`: a revision must never change with the code."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ID = sa.String(36)
_OPEN = sa.text("state IN ('received', 'waiting-for-nodes', 'running')")


def upgrade() -> None:
    _accounts()
    _things()
    _tasks()


def _accounts() -> None:
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.bulk_insert(counters, [{"name": "tasks", "value": 0}, {"name": "results", "value": 0}])
    op.create_table(
        "identities",
        sa.Column("id", _ID, nullable=False),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("credential_generation", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("username", name="uq_identities_username"),
    )
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.PrimaryKeyConstraint("hash", name="pk_tokens"),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_tokens_identity_id_identities"),
    )
    op.create_index("ix_tokens_identity_id", "tokens", ["identity_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("response_json", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("identity_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _things() -> None:
    op.create_table(
        "functions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("code_chars", sa.Integer, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("metadata_json", sa.Text),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("group_id", _ID),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_functions"),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name="fk_functions_owner_id_identities"),
    )
    op.create_index("ix_functions_owner_id", "functions", ["owner_id"])
    op.create_table(
        "endpoints",
        sa.Column("id", _ID, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("display_name", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("multi_user", sa.Boolean, nullable=False),
        sa.Column("high_assurance", sa.Boolean, nullable=False),
        sa.Column("direct", sa.Boolean, nullable=False),
        sa.Column("subscription_id", _ID),
        sa.Column("subscription_admin_verified", sa.Boolean, nullable=False),
        sa.Column("allowed_functions_json", sa.Text),
        sa.Column("admins_json", sa.Text),
        sa.Column("metadata_json", sa.Text, nullable=False),
        sa.Column("ip_address", sa.String(64)),
        sa.Column("credential_generation", sa.Integer, nullable=False),
        sa.Column("locked_until", sa.Float),
        sa.Column("last_report_json", sa.Text),
        sa.Column("last_seen_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("registered_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_endpoints"),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name="fk_endpoints_owner_id_identities"),
    )
    op.create_index("ix_endpoints_owner_id", "endpoints", ["owner_id"])


def _tasks() -> None:
    op.create_table(
        "task_groups",
        sa.Column("id", _ID, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("has_queue", sa.Boolean, nullable=False),
        sa.Column("delivered_seq", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_task_groups"),
    )
    op.create_index("ix_task_groups_created_at", "task_groups", ["created_at"])
    op.create_table(
        "submissions",
        sa.Column("first_seq", _SEQ, autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("user_runtime_json", sa.Text),
        sa.Column("resource_specification_json", sa.Text),
        sa.Column("result_serializers_json", sa.Text),
        sa.Column("user_endpoint_config_json", sa.Text),
        sa.Column("python_version", sa.String(16)),
        sa.PrimaryKeyConstraint("first_seq", name="pk_submissions"),
    )
    op.create_table(
        "tasks",
        sa.Column("seq", _SEQ, autoincrement=False, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("submission_seq", sa.BigInteger, nullable=False),
        sa.Column("group_id", _ID, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("function_id", _ID, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("size_chars", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("completed_at", sa.Float),
        sa.PrimaryKeyConstraint("seq", name="pk_tasks"),
        sa.UniqueConstraint("id", name="uq_tasks_id"),
    )
    op.create_index("ix_tasks_group_id_seq", "tasks", ["group_id", "seq"])
    op.create_index(
        "ix_tasks_open_endpoint_id_seq",
        "tasks",
        ["endpoint_id", "seq"],
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_table(
        "task_payloads",
        sa.Column("seq", _SEQ, autoincrement=False, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_task_payloads"),
    )
    op.create_table(
        "task_results",
        sa.Column("seq", _SEQ, autoincrement=False, nullable=False),
        sa.Column("task_seq", sa.BigInteger, nullable=False),
        sa.Column("group_id", _ID, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("data_chars", sa.Integer, nullable=False),
        sa.Column("error_code", sa.String(128)),
        sa.Column("error_message", sa.Text),
        sa.Column("details_json", sa.Text),
        sa.Column("transitions_json", sa.Text),
        sa.PrimaryKeyConstraint("seq", name="pk_task_results"),
        sa.UniqueConstraint("task_seq", name="uq_task_results_task_seq"),
    )
    op.create_index("ix_task_results_group_id_seq", "task_results", ["group_id", "seq"])


def downgrade() -> None:
    for table in (
        "task_results",
        "task_payloads",
        "tasks",
        "submissions",
        "task_groups",
        "endpoints",
        "functions",
        "idempotency_keys",
        "tokens",
        "identities",
        "counters",
        "settings",
    ):
        op.drop_table(table)
