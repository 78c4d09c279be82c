"""Keys of the Data Cloud API, and the sessions of the connections page."""

from sqlalchemy import Column, Index, LargeBinary, Table
from sqlalchemy import text as sql

from dx_dagster.warehouse.schema.columns import foreign, metadata, number_key, text, time, time_of_insert

api_keys = Table(
    "api_keys",
    metadata,
    number_key("Number of the key"),
    text("name", "What it is for", nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the key, which is random and long"),
    text("hint", "Last four characters of the key", nullable=False),
    time_of_insert("created_at", "When it was made"),
    time("last_used_at", "When it was last used, to the minute"),
    time("revoked_at", "When it was revoked"),
    Index("uq_api_keys_name", "name", unique=True, postgresql_where=sql("revoked_at IS NULL")),
    comment="Keys of the Data Cloud API",
)

api_sessions = Table(
    "api_sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="SHA-256 of the session's token"),
    foreign("api_key_id", "api_keys.id", "api_keys.id: the key that signed in"),
    time_of_insert("created_at", "When it began"),
    time("expires_at", "When it ends", nullable=False),
    comment="Who is signed in to the connections page",
)
