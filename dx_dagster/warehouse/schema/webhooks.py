"""Webhook deliveries, the secrets that sign them, and whether they tell every change."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY

from dx_dagster.warehouse.schema.columns import (
    foreign,
    json,
    metadata,
    number,
    number_key,
    reference,
    text,
    time,
    time_of_insert,
)

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

receiver_uptimes = Table(
    "receiver_uptimes",
    metadata,
    number_key("Number of the interval", BigInteger),
    text("address", "Where the receiver is reached, by its DX_PUBLIC_URL; null without that"),
    time("up_from", "When it first could store deliveries", nullable=False),
    time("up_to", "When it last could", nullable=False),
    time("closed_at", "When it was shut down in good order; null while it is up, and where it was not"),
    comment="When receivers were up; an interval ends where the receiver or the database did not answer",
)

webhook_beliefs = Table(
    "webhook_beliefs",
    metadata,
    foreign("connection_id", "connections.id", primary_key=True),
    text("hook_uuid", "The workspace's hook, as it was last looked at"),
    time("hook_right_since", "First of the looks since which the hook has been right; null where it is not"),
    time("vouched_from", "Since when deliveries have told every change, as of the last look; null where they do not"),
    time("doubted_at", "When that was last found not to be so; what was asked before then is asked again"),
    time("looked_at", "When the hook was last looked at"),
    text("reason", "Why deliveries are not believed, as of the last look; null where they are"),
    time("rejected_at", "When a delivery of the hook was last refused for its signature"),
    comment="Whether the webhook of a connection tells every change",
)

untold_changes = Table(
    "untold_changes",
    metadata,
    number_key("Number of the change", BigInteger),
    reference("workspace_id", "bitbucket_workspaces.id", nullable=False),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    text("kind", "pullrequest or pipeline", nullable=False),
    number("number", "Number of the pull request or the pipeline", nullable=False),
    time("changed_at", "Bitbucket's date of the change; null where only an opinion differed"),
    time("since", "When the repository was last asked before: the change is newer", nullable=False),
    time_of_insert("found_at", "When the reconcile found it"),
    Index("ix_untold_changes_workspace_id", "workspace_id"),
    comment="Changes that a reconcile found where the webhook was believed; those that turn out to be told are removed",
)
