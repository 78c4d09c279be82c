"""The tables of the inbox: webhook deliveries, and the secrets that sign them."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from dx_dagster.warehouse.schema.bitbucket import metadata

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True, comment="Number of the delivery, in the order of arrival"),
    Column("connection_id", Integer, ForeignKey("connections.id"), nullable=False, comment="connections.id"),
    Column("workspace", Text, nullable=False, comment="Slug of the connection's workspace, and its partition"),
    Column(
        "request_uuid",
        Text,
        nullable=False,
        comment="X-Request-UUID; where that is missing, a hash of headers and body",
    ),
    Column("hook_uuid", Text, comment="X-Hook-UUID: which hook sent it"),
    Column("attempt_number", Integer, comment="X-Attempt-Number: which of Bitbucket's attempts arrived first"),
    Column("event_key", Text, nullable=False, comment="X-Event-Key, such as pullrequest:created"),
    Column("repository_source_id", Text, comment="Bitbucket's uuid of the repository, with braces"),
    Column("pull_number", BigInteger, comment="Number of the pull request"),
    Column("headers", JSONB, nullable=False, comment="What Bitbucket's headers said, signature aside"),
    Column("body", Text, nullable=False, comment="The payload as it was signed"),
    Column("received_at", DateTime(timezone=True), nullable=False, comment="When it arrived"),
    Column("applied_at", DateTime(timezone=True), comment="When it was applied, or found to say nothing to us"),
    Column("applied_by", Text, comment="Run that applied it"),
    Column("outcome", Text, comment="What applying it came to: applied, or why there was nothing to apply"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How often applying it began and did not succeed",
    ),
    Column("tried_at", DateTime(timezone=True), comment="When applying it last began"),
    Column(
        "next_attempt_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When applying it may begin",
    ),
    Column("error", Text, comment="Why applying it failed the last time"),
    Column("set_aside_at", DateTime(timezone=True), comment="When it was given up; `webhooks replay` brings it back"),
    UniqueConstraint("connection_id", "request_uuid", name="uq_webhook_events_connection_id_request_uuid"),
    Index(
        "ix_webhook_events_waiting",
        "workspace",
        "next_attempt_at",
        postgresql_where=text("applied_at IS NULL AND set_aside_at IS NULL"),
    ),
    Index("ix_webhook_events_workspace_event_key_received_at", "workspace", "event_key", "received_at"),
    Index("ix_webhook_events_applied_at", "applied_at", postgresql_where=text("applied_at IS NOT NULL")),
    comment="Deliveries of Bitbucket's webhooks: the inbox, and what was applied lately",
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", Integer, Identity(), primary_key=True, comment="Number of the secret"),
    Column("connection_id", Integer, ForeignKey("connections.id"), nullable=False, comment="connections.id"),
    Column("secret", Text, nullable=False, comment="The secret, encrypted and bound to this row"),
    Column("hook_uuids", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="Hooks that were given it"),
    Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it was made"
    ),
    Column("expires_at", DateTime(timezone=True), comment="Until when deliveries may be signed with it; null for now"),
    Index("ix_webhook_secrets_connection_id", "connection_id"),
    comment="Secrets that sign webhook deliveries; two are good while one is being replaced",
)
