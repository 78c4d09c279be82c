"""Keys of the Data Cloud API, and the sessions of the connections page."""

from sqlalchemy import Column, DateTime, ForeignKey, Index, Integer, LargeBinary, Table, Text
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY

from dx_dagster.warehouse.schema.columns import flag, foreign, metadata, number, number_key, text, time, time_of_insert

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
    flag("insights_only", "Whether it opens insights and nothing else", default=False),
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

wrong_keys = Table(
    "wrong_keys",
    metadata,
    Column("network", Text, primary_key=True, comment="Address, or /64 network of IPv6, that gave wrong API keys"),
    Column("given_at", ARRAY(DateTime(timezone=True)), nullable=False, comment="When it gave the last ones"),
    comment="Wrong API keys of the last minute, counted for all processes of the API",
    prefixes=["UNLOGGED"],  # a crash of the server may forget them
)

api_key_requests = Table(
    "api_key_requests",
    metadata,
    foreign("api_key_id", "api_keys.id", primary_key=True),
    time("minute", "Begin of the minute of the last request", nullable=False),
    number("requests", "Requests in that minute", Integer, nullable=False),
    comment="Requests with API keys in this minute, counted for all processes of the API",
    prefixes=["UNLOGGED"],  # a crash of the server may forget them
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    foreign("connection_id", "connections.id", primary_key=True),
    Column("key", Text, primary_key=True, comment="Header Idempotency-Key of a credentials.create"),
    Column("content", LargeBinary, nullable=False, comment="SHA-256 of what the request asks for"),
    Column("credential_id", Integer, ForeignKey("credentials.id"), comment="credentials.id; null until it is added"),
    time_of_insert("created_at", "When the request came; it counts for a day"),
    comment="Requests that a client may repeat without doing their work twice",
)
