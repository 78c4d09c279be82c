"""The tables that say who may use the API and the connections page, and how the last verifications ended."""

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    text,
)

from dx_dagster.warehouse.schema.bitbucket import metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, Identity(), primary_key=True, comment="Number of the key"),
    Column("name", Text, nullable=False, comment="What it is for"),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the key, which is random and long"),
    Column("hint", Text, nullable=False, comment="Last four characters of the key"),
    Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it was made"
    ),
    Column("last_used_at", DateTime(timezone=True), comment="When it was last used, to the minute"),
    Column("revoked_at", DateTime(timezone=True), comment="When it was revoked"),
    Index("uq_api_keys_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    comment="Keys of the Data Cloud API",
)

api_sessions = Table(
    "api_sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="SHA-256 of the session's token"),
    Column(
        "api_key_id", Integer, ForeignKey("api_keys.id"), nullable=False, comment="api_keys.id: the key that signed in"
    ),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it began"),
    Column("expires_at", DateTime(timezone=True), nullable=False, comment="When it ends"),
    comment="Who is signed in to the connections page",
)

credential_checks = Table(
    "credential_checks",
    metadata,
    Column("credential_id", Integer, ForeignKey("credentials.id"), primary_key=True, comment="credentials.id"),
    Column(
        "checked_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When it was verified last",
    ),
    Column("code", Text, comment="Why it failed, as a code; null when it was good"),
    Column("reason", Text, comment="Why it failed, as a sentence"),
    Column("curl", Text, comment="Command that shows the failure, with a placeholder for the secret"),
    comment="How the last verification of each credential ended",
)
