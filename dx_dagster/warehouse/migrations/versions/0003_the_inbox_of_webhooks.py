"""The inbox of webhooks."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("webhook_events",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number of the delivery, in the order of arrival"),
    sa.Column("connection_id", sa.Integer(), nullable=False, comment="connections.id"),
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the connection's workspace, and its partition"),
    sa.Column("request_uuid", sa.Text(), nullable=False, comment="X-Request-UUID; where that is missing, a hash of headers and body"),
    sa.Column("hook_uuid", sa.Text(), nullable=True, comment="X-Hook-UUID: which hook sent it"),
    sa.Column("attempt_number", sa.Integer(), nullable=True, comment="X-Attempt-Number: which of Bitbucket's attempts arrived first"),
    sa.Column("event_key", sa.Text(), nullable=False, comment="X-Event-Key, such as pullrequest:created"),
    sa.Column("repository_source_id", sa.Text(), nullable=True, comment="Bitbucket's uuid of the repository, with braces"),
    sa.Column("pull_number", sa.BigInteger(), nullable=True, comment="Number of the pull request"),
    sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="What Bitbucket's headers said, signature aside"),
    sa.Column("body", sa.Text(), nullable=False, comment="The payload as it was signed"),
    sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, comment="When it arrived"),
    sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True, comment="When it was applied, or found to say nothing to us"),
    sa.Column("applied_by", sa.Text(), nullable=True, comment="Run that applied it"),
    sa.Column("outcome", sa.Text(), nullable=True, comment="What applying it came to: applied, or why there was nothing to apply"),
    sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="How often applying it began and did not succeed"),
    sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True, comment="When applying it last began"),
    sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When applying it may begin"),
    sa.Column("error", sa.Text(), nullable=True, comment="Why applying it failed the last time"),
    sa.Column("set_aside_at", sa.DateTime(timezone=True), nullable=True, comment="When it was given up; `webhooks replay` brings it back"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"]),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("connection_id", "request_uuid", name="uq_webhook_events_connection_id_request_uuid"),
    comment="Deliveries of Bitbucket's webhooks: the inbox, and what was applied lately"
    )
    op.create_index("ix_webhook_events_applied_at", "webhook_events", ["applied_at"], unique=False, postgresql_where=sa.text("applied_at IS NOT NULL"))
    op.create_index("ix_webhook_events_waiting", "webhook_events", ["workspace", "next_attempt_at"], unique=False, postgresql_where=sa.text("applied_at IS NULL AND set_aside_at IS NULL"))
    op.create_index("ix_webhook_events_workspace_event_key_received_at", "webhook_events", ["workspace", "event_key", "received_at"], unique=False)
    op.create_table("webhook_secrets",
    sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False, comment="Number of the secret"),
    sa.Column("connection_id", sa.Integer(), nullable=False, comment="connections.id"),
    sa.Column("secret", sa.Text(), nullable=False, comment="The secret, encrypted and bound to this row"),
    sa.Column("hook_uuids", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Hooks that were given it"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was made"),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True, comment="Until when deliveries may be signed with it; null for now"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"]),
    sa.PrimaryKeyConstraint("id"),
    comment="Secrets that sign webhook deliveries; two are good while one is being replaced"
    )
    op.create_index("ix_webhook_secrets_connection_id", "webhook_secrets", ["connection_id"], unique=False)


def downgrade() -> None:
    op.drop_table("webhook_secrets")
    op.drop_table("webhook_events")
