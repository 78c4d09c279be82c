"""Connections, their credentials, and how the last verification of each ended."""

from sqlalchemy import Column, Date, Index, Table
from sqlalchemy import text as sql

from dx_dagster.warehouse.schema.columns import foreign, json, metadata, number_key, text, time, time_of_insert

connections = Table(
    "connections",
    metadata,
    number_key("Number of the connection"),
    text("type", "bitbucket, bitbucket_pipelines or jira_cloud", nullable=False),
    text("workspace", "Slug of the workspace", nullable=False),
    text("name", "Display name", nullable=False),
    text("state", "verified or failed: how the last verification ended", nullable=False),
    json("settings", "Settings that are no secrets", "{}"),
    time("disabled_at", "When it was disabled"),
    text("disabled_reason", "Why it was disabled"),
    time("last_synced_at", "When a sync last succeeded"),
    text("last_error", "Why the last sync could read nothing; null when it could"),
    time("failed_at", "When a sync last could read nothing; null once one could"),
    time("failing_since", "When the first of these syncs did; null once one could"),
    time("sync_asked_at", "When a person asked for a sync that no run was started for yet"),
    json("expected", "What the first import was expected to take when the workspace was connected", "{}"),
    time_of_insert("created_at", "When it was made"),
    time_of_insert("updated_at", "When it was last changed"),
    time("deleted_at", "When it was removed"),
    Index(
        "uq_connections_workspace_type",
        sql("lower(workspace)"),
        "type",
        unique=True,
        postgresql_where=sql("deleted_at IS NULL"),
    ),
    comment="Sources of data, with their settings",
)

credentials = Table(
    "credentials",
    metadata,
    number_key("Number of the credential"),
    foreign("connection_id", "connections.id"),
    text("type", "access_token or api_token", nullable=False),
    text("label", "Display name", nullable=False),
    json("settings", "Settings that are no secrets", "{}"),
    text("secret", "The secret, encrypted and bound to this row", nullable=False),
    text("hint", "Last four characters of the secret", nullable=False),
    Column("expiration_date", Date, comment="Day on which it expires"),
    time("disabled_at", "When it was taken out of the pool"),
    text("disabled_reason", "Why it was taken out"),
    time_of_insert("created_at", "When it was added"),
    time_of_insert("updated_at", "When it was last changed"),
    time("deleted_at", "When it was removed"),
    Index("ix_credentials_connection_id", "connection_id"),
    comment="Secrets that draw on Bitbucket's budgets",
)

credential_checks = Table(
    "credential_checks",
    metadata,
    foreign("credential_id", "credentials.id", primary_key=True),
    time_of_insert("checked_at", "When it was verified last"),
    text("code", "Why it failed, as a code; null when it was good"),
    text("reason", "Why it failed, as a sentence"),
    text("curl", "Command that shows the failure, with a placeholder for the secret"),
    comment="How the last verification of each credential ended",
)
