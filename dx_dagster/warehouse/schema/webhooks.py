"""Webhook deliveries, and the secrets that sign them."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY

from dx_dagster.warehouse.schema.columns import foreign, json, metadata, number, number_key, text, time, time_of_insert

webhook_events = Table(
    "webhook_events",
    metadata,
    number_key("Number of the delivery, in the order of arrival", BigInteger),
    foreign("connection_id", "connections.id"),
    text("workspace", "Slug of the connection's workspace, and its partition", nullable=False),
    text("request_uuid", "X-Request-UUID; where that is missing, a hash of headers and body", nullable=False),
    text("hook_uuid", "X-Hook-UUID: which hook sent it"),
    number("attempt_number", "X-Attempt-Number: which of Bitbucket's attempts arrived first", Integer),
    text("event_key", "X-Event-Key, such as pullrequest:created", nullable=False),
    text("repository_source_id", "Bitbucket's uuid of the repository, with braces"),
    number("pull_number", "Number of the pull request"),
    json("headers", "What Bitbucket's headers said, signature aside"),
    text("body", "The payload as it was signed", nullable=False),
    time("received_at", "When it arrived", nullable=False),
    time("applied_at", "When it was applied, or found to say nothing to us"),
    text("applied_by", "Run that applied it"),
    text("outcome", "What applying it came to: applied, or why there was nothing to apply"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=sql("0"),
        comment="How often applying it began and did not succeed",
    ),
    time("tried_at", "When applying it last began"),
    time_of_insert("next_attempt_at", "When applying it may begin"),
    text("error", "Why applying it failed the last time"),
    time("set_aside_at", "When it was given up; `webhooks replay` brings it back"),
    UniqueConstraint("connection_id", "request_uuid", name="uq_webhook_events_connection_id_request_uuid"),
    Index(
        "ix_webhook_events_waiting",
        "workspace",
        "next_attempt_at",
        postgresql_where=sql("applied_at IS NULL AND set_aside_at IS NULL"),
    ),
    Index("ix_webhook_events_workspace_event_key_received_at", "workspace", "event_key", "received_at"),
    Index("ix_webhook_events_applied_at", "applied_at", postgresql_where=sql("applied_at IS NOT NULL")),
    comment="Deliveries of Bitbucket's webhooks: the inbox, and what was applied lately",
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    number_key("Number of the secret"),
    foreign("connection_id", "connections.id"),
    text("secret", "The secret, encrypted and bound to this row", nullable=False),
    Column("hook_uuids", ARRAY(Text), nullable=False, server_default=sql("'{}'"), comment="Hooks that were given it"),
    time_of_insert("created_at", "When it was made"),
    time("expires_at", "Until when deliveries may be signed with it; null for now"),
    Index("ix_webhook_secrets_connection_id", "connection_id"),
    comment="Secrets that sign webhook deliveries; two are good while one is being replaced",
)
