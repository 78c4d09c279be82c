"""Keys of the Data Cloud API, the sessions they open on the connections page, and how each verification ended."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("api_keys",
    sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False, comment="Number of the key"),
    sa.Column("name", sa.Text(), nullable=False, comment="What it is for"),
    sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key, which is random and long"),
    sa.Column("hint", sa.Text(), nullable=False, comment="Last four characters of the key"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was made"),
    sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True, comment="When it was last used, to the minute"),
    sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True, comment="When it was revoked"),
    sa.PrimaryKeyConstraint("id"),
    comment="Keys of the Data Cloud API"
    )
    op.create_index("uq_api_keys_name", "api_keys", ["name"], unique=True, postgresql_where=sa.text("revoked_at IS NULL"))
    op.create_table("api_sessions",
    sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the session's token"),
    sa.Column("api_key_id", sa.Integer(), nullable=False, comment="api_keys.id: the key that signed in"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it began"),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False, comment="When it ends"),
    sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"]),
    sa.PrimaryKeyConstraint("hash"),
    comment="Who is signed in to the connections page"
    )
    op.create_table("credential_checks",
    sa.Column("credential_id", sa.Integer(), nullable=False, comment="credentials.id"),
    sa.Column("checked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was verified last"),
    sa.Column("code", sa.Text(), nullable=True, comment="Why it failed, as a code; null when it was good"),
    sa.Column("reason", sa.Text(), nullable=True, comment="Why it failed, as a sentence"),
    sa.Column("curl", sa.Text(), nullable=True, comment="Command that shows the failure, with a placeholder for the secret"),
    sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"]),
    sa.PrimaryKeyConstraint("credential_id"),
    comment="How the last verification of each credential ended"
    )


def downgrade() -> None:
    op.drop_table("credential_checks")
    op.drop_table("api_sessions")
    op.drop_index("uq_api_keys_name", table_name="api_keys", postgresql_where=sa.text("revoked_at IS NULL"))
    op.drop_table("api_keys")
