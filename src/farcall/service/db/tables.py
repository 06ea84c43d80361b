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
    "audit",
    "auth_policies",
    "auth_sessions",
    "broker_cuts",
    "consents",
    "counters",
    "device_codes",
    "endpoint_history",
    "endpoint_shares",
    "endpoints",
    "functions",
    "group_members",
    "groups",
    "idempotency_keys",
    "identities",
    "local_accounts",
    "metadata",
    "relays",
    "oauth_clients",
    "oauth_codes",
    "projects",
    "provider_subjects",
    "session_authentications",
    "settings",
    "submissions",
    "subscriptions",
    "task_groups",
    "task_payloads",
    "task_results",
    "task_is_open",
    "tasks",
    "tokens",
    "usage",
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

# Who may ask. Linked identities have the same `person_id`; None there means the identity's own id.
identities = Table(
    "identities",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("username", String(255), nullable=False, unique=True),
    Column("is_admin", Boolean, nullable=False),
    Column("credential_generation", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("kind", String(16), nullable=False, server_default="user"),  # or "client"
    Column("display_name", Text),
    Column("email", Text),
    Column("organization", Text),
    Column("provider", String(255)),  # None: this service itself
    Column("person_id", _Id, index=True),
    Column("disabled_at", Float),
)

# Broker logins that became void, for the processes that have them connected: `version` is counter "accounts" then.
broker_cuts = Table(
    "broker_cuts",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), primary_key=True),
    Column("id", _Id, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("at", Float, nullable=False),
)

local_accounts = Table(
    "local_accounts",
    metadata,
    Column("identity_id", _Id, ForeignKey("identities.id"), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("must_change", Boolean, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("totp_secret", Text),
    Column("totp_confirmed_at", Float),
    Column("totp_last_step", BigInteger),  # a code counts once
    Column("recovery_codes_json", Text),  # hashes
)

provider_subjects = Table(
    "provider_subjects",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("identity_id", _Id, ForeignKey("identities.id"), nullable=False, index=True),
    Column("created_at", Float, nullable=False),
)

# A browser's login, and what it rests on: the last time that each identity proved itself, with and without a
# second factor.
auth_sessions = Table(
    "auth_sessions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("cookie_hash", String(64), nullable=False, unique=True),
    Column("person_id", _Id, ForeignKey("identities.id"), nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("ended_at", Float),
)

session_authentications = Table(
    "session_authentications",
    metadata,
    Column("session_id", _Id, ForeignKey("auth_sessions.id"), primary_key=True),
    Column("identity_id", _Id, ForeignKey("identities.id"), primary_key=True),
    Column("mfa", Boolean, primary_key=True),
    Column("at", Float, nullable=False),
    Column("provider", String(255)),
    Column("acr", Text),
    Column("amr_json", Text),
)

# Tokens refer to clients without a foreign key: some clients are built in and have no row.
oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", String(64)),
    Column("is_confidential", Boolean, nullable=False),
    Column("redirect_uris_json", Text, nullable=False),
    Column("owner_id", _Id),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

oauth_codes = Table(
    "oauth_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("client_id", _Id, nullable=False),
    Column("session_id", _Id, nullable=False),
    Column("identity_id", _Id, nullable=False),
    Column("family_id", _Id, nullable=False),  # of the tokens that it is changed for
    Column("scopes", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("challenge", Text),
    Column("challenge_method", String(16)),
    Column("nonce", Text),
    Column("offline", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("used_at", Float),
)

device_codes = Table(
    "device_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user_code", String(16), nullable=False, unique=True),
    Column("client_id", _Id, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("params_json", Text, nullable=False),  # what the login has to satisfy
    Column("session_id", _Id),
    Column("identity_id", _Id),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("last_poll_at", Float),
)

# `scopes` None: everything (tokens of the local login). One family: what one login was given, and its successors.
tokens = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("identity_id", _Id, ForeignKey("identities.id"), nullable=False, index=True),
    Column("label", String(255), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, index=True),
    Column("revoked_at", Float),
    Column("kind", String(16), nullable=False, server_default="access"),  # or "refresh"
    Column("client_id", _Id),
    Column("resource_server", String(64)),
    Column("scopes", Text),
    Column("session_id", _Id, index=True),
    Column("family_id", _Id, index=True),
    Column("replaced_at", Float),  # of a refresh token: when it was changed for its successor
    Column("used_at", Float),  # of tokens in a family: the first time
)

consents = Table(
    "consents",
    metadata,
    Column("identity_id", _Id, ForeignKey("identities.id"), primary_key=True),
    Column("client_id", _Id, primary_key=True),
    Column("scopes", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("description", Text),
    Column("created_by", _Id),
    Column("created_at", Float, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", _Id, ForeignKey("groups.id"), primary_key=True),
    Column("identity_id", _Id, ForeignKey("identities.id"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),  # "member" or "manager"
    Column("added_at", Float, nullable=False),
)

# Rows are added and never changed. Names are kept beside ids, as they were then.
audit = Table(
    "audit",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("actor_id", _Id),
    Column("actor_name", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("object_kind", String(32)),
    Column("object_id", String(255)),
    Column("address", String(64)),
    Column("outcome", String(16), nullable=False),
    Column("detail_json", Text),
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
    Column("ha_endpoint_id", _Id, index=True),  # runs only there
    Column("last_run_at", Float),  # the last submission; kept only for those of high assurance
    Index("ix_functions_owner_id_created_at", "owner_id", "created_at"),
    Index(
        "ix_functions_public_created_at",
        "created_at",
        sqlite_where=text("public"),
        postgresql_where=text("public"),
    ),
    Index(
        "ix_functions_group_id_created_at",
        "group_id",
        "created_at",
        sqlite_where=text("group_id IS NOT NULL"),
        postgresql_where=text("group_id IS NOT NULL"),
    ),
)

# Who answers for policies: identities, and groups all of whose members may manage them.
projects = Table(
    "projects",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("contact_email", Text),
    Column("admin_ids_json", Text, nullable=False),
    Column("admin_group_ids_json", Text, nullable=False),
    Column("owner_id", _Id, index=True),  # whose own project it is, made for their first policy
    Column("created_at", Float, nullable=False),
)

auth_policies = Table(
    "auth_policies",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", _Id, ForeignKey("projects.id"), index=True),  # None: of the whole site
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("include_json", Text, nullable=False),
    Column("exclude_json", Text, nullable=False),
    Column("high_assurance", Boolean, nullable=False),
    Column("timeout_s", Integer),
    Column("required_mfa", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("high_assurance", Boolean, nullable=False),
    Column("admin_ids_json", Text, nullable=False),
    Column("group_ids_json", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

# Who may run functions on an endpoint as its owner: an identity or a group, whose id is `grantee_id`.
endpoint_shares = Table(
    "endpoint_shares",
    metadata,
    Column("endpoint_id", _Id, ForeignKey("endpoints.id"), primary_key=True),
    Column("grantee_id", _Id, primary_key=True, index=True),
    Column("is_group", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
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
    # Of user endpoints: who starts them, and with what they were asked for (their owner is the submitter).
    Column("manager_id", _Id, index=True),
    Column("user_options_json", Text),
    Column("user_runtime_json", Text),
    Column("incarnation", String(64)),  # which process of it has what it took (`relay.custody`)
    Column("reached_host", String(255)),  # of managers: by which name they reach us, for the logins that they hand on
    Column("authentication_policy_id", _Id, index=True),
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

# Numbers of a submission's tasks are consecutive, and all are of one owner: so what lists somebody's tasks goes by
# these few rows, and no index over owners need be kept for each task. Whose they are is None until the sweeper has
# looked, if a release before this one wrote the row.
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
    Column("owner_id", _Id),
    Column("endpoint_id", _Id),  # that was submitted to: of user endpoints their manager
    Index("ix_submissions_owner_id_first_seq", "owner_id", "first_seq"),
    Index("ix_submissions_owner_id_endpoint_id_first_seq", "owner_id", "endpoint_id", "first_seq"),
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
    Column("taken_at", Float),  # when the endpoint had it, and when a worker began it, as the endpoint reported; if it
    Column("started_at", Float),  # did: of short tasks only the result says so
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

# What has ended, per day (UTC, days since 1970): counted in the transaction that stores the ends, so that it outlives
# the tasks. `run_s` is what workers say of the time that they spent.
usage = Table(
    "usage",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("owner_id", _Id, primary_key=True),
    Column("endpoint_id", _Id, primary_key=True),  # where they ran: the user endpoint, not its manager
    Column("function_id", _Id, primary_key=True),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("run_s", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Index("ix_usage_owner_id_day", "owner_id", "day"),
    Index("ix_usage_endpoint_id_day", "endpoint_id", "day"),
    Index("ix_usage_function_id_day", "function_id", "day"),
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

# What went on at endpoints, per minute (`step_s` 60) and, of older times, per hour (3600). `at` is where the step
# begins; a step in which nothing changed has no row (service.history).
endpoint_history = Table(
    "endpoint_history",
    metadata,
    Column("endpoint_id", _Id, primary_key=True),
    Column("step_s", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("is_online", Boolean),
    Column("workers", Float),
    Column("idle_workers", Float),
    Column("outstanding", Float),
    Column("pending", Float),
    Column("submitted", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Index("ix_endpoint_history_step_s_at", "step_s", "at"),
)
