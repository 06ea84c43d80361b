"""Accounts, logins, OAuth 2, groups, audit. Only adds: the release before runs on this schema too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ID = sa.String(36)


def upgrade() -> None:
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "accounts", "value": 0}])
    _identities()
    _logins()
    _oauth()
    _groups()
    _audit()


def _identities() -> None:
    op.add_column("identities", sa.Column("kind", sa.String(16), nullable=False, server_default="user"))
    for name in ("display_name", "email", "organization"):
        op.add_column("identities", sa.Column(name, sa.Text))
    op.add_column("identities", sa.Column("provider", sa.String(255)))
    op.add_column("identities", sa.Column("person_id", _ID))
    op.add_column("identities", sa.Column("disabled_at", sa.Float))
    op.create_index("ix_identities_person_id", "identities", ["person_id"])
    op.create_table(
        "broker_cuts",
        sa.Column("version", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("version", "kind", "id", name="pk_broker_cuts"),
    )
    op.create_table(
        "local_accounts",
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("must_change", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("totp_secret", sa.Text),
        sa.Column("totp_confirmed_at", sa.Float),
        sa.Column("totp_last_step", sa.BigInteger),
        sa.Column("recovery_codes_json", sa.Text),
        sa.PrimaryKeyConstraint("identity_id", name="pk_local_accounts"),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_local_accounts_identity_id_identities"),
    )
    op.create_table(
        "provider_subjects",
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_provider_subjects"),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_provider_subjects_identity_id_identities"),
    )
    op.create_index("ix_provider_subjects_identity_id", "provider_subjects", ["identity_id"])


def _logins() -> None:
    op.create_table(
        "auth_sessions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("cookie_hash", sa.String(64), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_auth_sessions"),
        sa.UniqueConstraint("cookie_hash", name="uq_auth_sessions_cookie_hash"),
        sa.ForeignKeyConstraint(["person_id"], ["identities.id"], name="fk_auth_sessions_person_id_identities"),
    )
    op.create_index("ix_auth_sessions_person_id", "auth_sessions", ["person_id"])
    op.create_table(
        "session_authentications",
        sa.Column("session_id", _ID, nullable=False),
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("mfa", sa.Boolean, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("provider", sa.String(255)),
        sa.Column("acr", sa.Text),
        sa.Column("amr_json", sa.Text),
        sa.PrimaryKeyConstraint("session_id", "identity_id", "mfa", name="pk_session_authentications"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["auth_sessions.id"], name="fk_session_authentications_session_id_auth_sessions"
        ),
        sa.ForeignKeyConstraint(
            ["identity_id"], ["identities.id"], name="fk_session_authentications_identity_id_identities"
        ),
    )


def _oauth() -> None:
    op.create_table(
        "oauth_clients",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.String(64)),
        sa.Column("is_confidential", sa.Boolean, nullable=False),
        sa.Column("redirect_uris_json", sa.Text, nullable=False),
        sa.Column("owner_id", _ID),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("revoked_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_clients"),
    )
    op.create_table(
        "oauth_codes",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("client_id", _ID, nullable=False),
        sa.Column("session_id", _ID, nullable=False),
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("family_id", _ID, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("redirect_uri", sa.Text, nullable=False),
        sa.Column("challenge", sa.Text),
        sa.Column("challenge_method", sa.String(16)),
        sa.Column("nonce", sa.Text),
        sa.Column("offline", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
        sa.PrimaryKeyConstraint("hash", name="pk_oauth_codes"),
    )
    op.create_index("ix_oauth_codes_expires_at", "oauth_codes", ["expires_at"])
    op.create_table(
        "device_codes",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("user_code", sa.String(16), nullable=False),
        sa.Column("client_id", _ID, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("params_json", sa.Text, nullable=False),
        sa.Column("session_id", _ID),
        sa.Column("identity_id", _ID),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("last_poll_at", sa.Float),
        sa.PrimaryKeyConstraint("hash", name="pk_device_codes"),
        sa.UniqueConstraint("user_code", name="uq_device_codes_user_code"),
    )
    op.create_index("ix_device_codes_expires_at", "device_codes", ["expires_at"])
    op.add_column("tokens", sa.Column("kind", sa.String(16), nullable=False, server_default="access"))
    op.add_column("tokens", sa.Column("client_id", _ID))
    op.add_column("tokens", sa.Column("resource_server", sa.String(64)))
    op.add_column("tokens", sa.Column("scopes", sa.Text))
    op.add_column("tokens", sa.Column("session_id", _ID))
    op.add_column("tokens", sa.Column("family_id", _ID))
    op.add_column("tokens", sa.Column("replaced_at", sa.Float))
    op.add_column("tokens", sa.Column("used_at", sa.Float))
    op.create_index("ix_tokens_family_id", "tokens", ["family_id"])
    op.create_index("ix_tokens_session_id", "tokens", ["session_id"])
    op.create_index("ix_tokens_expires_at", "tokens", ["expires_at"])
    op.create_table(
        "consents",
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("client_id", _ID, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("identity_id", "client_id", name="pk_consents"),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_consents_identity_id_identities"),
    )


def _groups() -> None:
    op.create_table(
        "groups",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("created_by", _ID),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", _ID, nullable=False),
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("added_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "identity_id", name="pk_group_members"),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_group_members_group_id_groups"),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_group_members_identity_id_identities"),
    )
    op.create_index("ix_group_members_identity_id", "group_members", ["identity_id"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", _SEQ, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor_id", _ID),
        sa.Column("actor_name", sa.String(255), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object_kind", sa.String(32)),
        sa.Column("object_id", sa.String(255)),
        sa.Column("address", sa.String(64)),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail_json", sa.Text),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])


def downgrade() -> None:
    for table in (
        "audit",
        "group_members",
        "groups",
        "consents",
        "device_codes",
        "oauth_codes",
        "oauth_clients",
        "session_authentications",
        "auth_sessions",
        "provider_subjects",
        "local_accounts",
        "broker_cuts",
    ):
        op.drop_table(table)
    for name in ("family_id", "session_id", "expires_at"):
        op.drop_index(f"ix_tokens_{name}", "tokens")
    for name in ("kind", "client_id", "resource_server", "scopes", "session_id", "family_id", "replaced_at", "used_at"):
        op.drop_column("tokens", name)
    op.drop_index("ix_identities_person_id", "identities")
    for name in ("kind", "display_name", "email", "organization", "provider", "person_id", "disabled_at"):
        op.drop_column("identities", name)
    op.execute("DELETE FROM counters WHERE name = 'accounts'")
