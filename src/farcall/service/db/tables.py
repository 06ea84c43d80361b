"""The tables, as SQLAlchemy Core sees them. `migrations/` makes the same ones; a test compares the two.

Ids are canonical UUID text, times are Unix seconds (UTC) as floating point numbers, and columns named `…_json`
hold JSON text that `store` modules encode and decode. `seq` numbers come from `counters` within the transaction
that uses them: the row lock makes their order the order of the commits, so whoever reads "everything after
number n" misses nothing that commits later.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "counters",
    "endpoints",
    "functions",
    "idempotency_keys",
    "identities",
    "metadata",
    "relays",
    "settings",
    "submissions",
    "task_groups",
    "task_payloads",
    "task_results",
    "task_is_open",
    "tasks",
    "tokens",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# On SQLite a column must be called INTEGER to be the row id itself.
_Seq: Final = BigInteger().with_variant(Integer, "sqlite")
_Id: Final = String(36)

_IS_OPEN: Final = "state IN ('received', 'waiting-for-nodes', 'running')"

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("username", String(255), nullable=False, unique=True),
    Column("is_admin", Boolean, nullable=False),
    Column("credential_generation", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("identity_id", _Id, ForeignKey("identities.id"), nullable=False, index=True),
    Column("label", String(255), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

functions = Table(
    "functions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("owner_id", _Id, ForeignKey("identities.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("code_chars", Integer, nullable=False),
    Column("description", Text),
    Column("metadata_json", Text),
    Column("public", Boolean, nullable=False),
    Column("group_id", _Id),
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("owner_id", _Id, ForeignKey("identities.id"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("display_name", Text),
    Column("description", Text),
    Column("public", Boolean, nullable=False),
    Column("multi_user", Boolean, nullable=False),
    Column("high_assurance", Boolean, nullable=False),
    Column("direct", Boolean, nullable=False),
    Column("subscription_id", _Id),
    Column("subscription_admin_verified", Boolean, nullable=False),
    Column("allowed_functions_json", Text),
    Column("admins_json", Text),
    Column("metadata_json", Text, nullable=False),
    Column("ip_address", String(64)),
    Column("credential_generation", Integer, nullable=False),
    Column("locked_until", Float),
    Column("last_report_json", Text),
    Column("last_seen_at", Float),
    Column("attached_at", Float),  # since when its queue has a consumer, as its relay has seen it; None: it has none
    Column("created_at", Float, nullable=False),
    Column("registered_at", Float, nullable=False),
    Column("deleted_at", Float),
)

task_groups = Table(
    "task_groups",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("owner_id", _Id, nullable=False),
    Column("has_queue", Boolean, nullable=False),
    Column("delivered_seq", BigInteger, nullable=False),  # results up to this one were acknowledged by the client
    Column("created_at", Float, nullable=False, index=True),
)

submissions = Table(
    "submissions",
    metadata,
    Column("first_seq", _Seq, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("user_runtime_json", Text),
    Column("resource_specification_json", Text),
    Column("result_serializers_json", Text),
    Column("user_endpoint_config_json", Text),
    Column("python_version", String(16)),
)

# No foreign keys where a row is written per task: the transactions that write check what they refer to, and
# each key would cost a look-up per row, or a scan per deleted parent.
tasks = Table(
    "tasks",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=False),
    Column("id", _Id, nullable=False, unique=True),
    Column("submission_seq", BigInteger, nullable=False),
    Column("group_id", _Id, nullable=False),
    Column("owner_id", _Id, nullable=False),
    Column("endpoint_id", _Id, nullable=False),
    Column("function_id", _Id, nullable=False),
    Column("state", String(20), nullable=False),
    Column("size_chars", Integer, nullable=False),  # of the message: function and arguments
    Column("created_at", Float, nullable=False),
    Column("completed_at", Float),
    Index("ix_tasks_group_id_seq", "group_id", "seq"),
    Index(
        "ix_tasks_open_endpoint_id_seq",
        "endpoint_id",
        "seq",
        sqlite_where=text(_IS_OPEN),
        postgresql_where=text(_IS_OPEN),
    ),
)

task_is_open: Final = text(f"tasks.{_IS_OPEN}")
"""The condition of `ix_tasks_open_endpoint_id_seq`, written as there: with parameters in it SQLite could not tell
that the index serves."""

# Apart from `tasks`, so that a change of state does not rewrite the arguments; deleted when the task ends.
task_payloads = Table(
    "task_payloads",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=False),
    Column("payload", Text, nullable=False),
)

task_results = Table(
    "task_results",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=False),
    Column("task_seq", BigInteger, nullable=False, unique=True),
    Column("group_id", _Id, nullable=False),
    Column("data", Text, nullable=False),
    Column("data_chars", Integer, nullable=False),
    Column("error_code", String(128)),
    Column("error_message", Text),
    Column("details_json", Text),
    Column("transitions_json", Text),
    Index("ix_task_results_group_id_seq", "group_id", "seq"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("identity_id", _Id, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("response_json", Text, nullable=False),
    Column("created_at", Float, nullable=False, index=True),
)

# Relay processes that share the endpoints (service.cluster); the times are the database's.
relays = Table(
    "relays",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("backend_pid", Integer, nullable=False),
    Column("host", String(255), nullable=False),
    Column("beat_at", Float, nullable=False),
)
