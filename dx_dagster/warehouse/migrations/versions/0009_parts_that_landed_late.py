"""Tables and a column that were added to 0002, 0003, 0004 and 0005 after these had landed.

A database that an earlier commit upgraded past one of them lacks its part for good, for no migration runs twice. `mend`
makes what is missing of the migrations that a database has behind it, and leaves alone what is there.
"""

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def _budgets() -> None:
    op.create_table("budgets",
    sa.Column("name", sa.Text(), nullable=False, comment="credential:ID of an access token, account:ADDRESS for all API tokens"),
    sa.Column("request_limit", sa.Integer(), nullable=True, comment="Requests a window, as Bitbucket said; null until then"),
    sa.Column("spent", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False, comment="Requests of the window: [end of a sixtieth of it in seconds since 1970, how many], …"),
    sa.Column("leases", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Requests that processes have reserved: {process: [how many, second by which they will have ended]}"),
    sa.Column("rests_until", _TIME, nullable=True, comment="Until when nothing is sent, after a 429"),
    sa.Column("careful_until", _TIME, nullable=True, comment="Until when one request is sent at a time, after that"),
    sa.Column("near_limit_at", _TIME, nullable=True, comment="When Bitbucket last said that less than a fifth is left"),
    sa.PrimaryKeyConstraint("name"),
    comment="Requests that each budget of Bitbucket has used in the rolling window, shared by all processes",
    if_not_exists=True,
    )


def _inbox() -> None:
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
    sa.Column("received_at", _TIME, nullable=False, comment="When it arrived"),
    sa.Column("applied_at", _TIME, nullable=True, comment="When it was applied, or found to say nothing to us"),
    sa.Column("applied_by", sa.Text(), nullable=True, comment="Run that applied it"),
    sa.Column("outcome", sa.Text(), nullable=True, comment="What applying it came to: applied, or why there was nothing to apply"),
    sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="How often applying it began and did not succeed"),
    sa.Column("tried_at", _TIME, nullable=True, comment="When applying it last began"),
    sa.Column("next_attempt_at", _TIME, server_default=sa.text("now()"), nullable=False, comment="When applying it may begin"),
    sa.Column("error", sa.Text(), nullable=True, comment="Why applying it failed the last time"),
    sa.Column("set_aside_at", _TIME, nullable=True, comment="When it was given up; `webhooks replay` brings it back"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"]),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("connection_id", "request_uuid", name="uq_webhook_events_connection_id_request_uuid"),
    comment="Deliveries of Bitbucket's webhooks: the inbox, and what was applied lately",
    if_not_exists=True,
    )
    op.create_index("ix_webhook_events_applied_at", "webhook_events", ["applied_at"], unique=False, postgresql_where=sa.text("applied_at IS NOT NULL"), if_not_exists=True)
    op.create_index("ix_webhook_events_waiting", "webhook_events", ["workspace", "next_attempt_at"], unique=False, postgresql_where=sa.text("applied_at IS NULL AND set_aside_at IS NULL"), if_not_exists=True)
    op.create_index("ix_webhook_events_workspace_event_key_received_at", "webhook_events", ["workspace", "event_key", "received_at"], unique=False, if_not_exists=True)
    op.create_table("webhook_secrets",
    sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False, comment="Number of the secret"),
    sa.Column("connection_id", sa.Integer(), nullable=False, comment="connections.id"),
    sa.Column("secret", sa.Text(), nullable=False, comment="The secret, encrypted and bound to this row"),
    sa.Column("hook_uuids", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Hooks that were given it"),
    sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False, comment="When it was made"),
    sa.Column("expires_at", _TIME, nullable=True, comment="Until when deliveries may be signed with it; null for now"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"]),
    sa.PrimaryKeyConstraint("id"),
    comment="Secrets that sign webhook deliveries; two are good while one is being replaced",
    if_not_exists=True,
    )
    op.create_index("ix_webhook_secrets_connection_id", "webhook_secrets", ["connection_id"], unique=False, if_not_exists=True)


def _keys() -> None:
    op.create_table("api_keys",
    sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False, comment="Number of the key"),
    sa.Column("name", sa.Text(), nullable=False, comment="What it is for"),
    sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key, which is random and long"),
    sa.Column("hint", sa.Text(), nullable=False, comment="Last four characters of the key"),
    sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False, comment="When it was made"),
    sa.Column("last_used_at", _TIME, nullable=True, comment="When it was last used, to the minute"),
    sa.Column("revoked_at", _TIME, nullable=True, comment="When it was revoked"),
    sa.PrimaryKeyConstraint("id"),
    comment="Keys of the Data Cloud API",
    if_not_exists=True,
    )
    op.create_index("uq_api_keys_name", "api_keys", ["name"], unique=True, postgresql_where=sa.text("revoked_at IS NULL"), if_not_exists=True)
    op.create_table("api_sessions",
    sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the session's token"),
    sa.Column("api_key_id", sa.Integer(), nullable=False, comment="api_keys.id: the key that signed in"),
    sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False, comment="When it began"),
    sa.Column("expires_at", _TIME, nullable=False, comment="When it ends"),
    sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"]),
    sa.PrimaryKeyConstraint("hash"),
    comment="Who is signed in to the connections page",
    if_not_exists=True,
    )
    op.create_table("credential_checks",
    sa.Column("credential_id", sa.Integer(), nullable=False, comment="credentials.id"),
    sa.Column("checked_at", _TIME, server_default=sa.text("now()"), nullable=False, comment="When it was verified last"),
    sa.Column("code", sa.Text(), nullable=True, comment="Why it failed, as a code; null when it was good"),
    sa.Column("reason", sa.Text(), nullable=True, comment="Why it failed, as a sentence"),
    sa.Column("curl", sa.Text(), nullable=True, comment="Command that shows the failure, with a placeholder for the secret"),
    sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"]),
    sa.PrimaryKeyConstraint("credential_id"),
    comment="How the last verification of each credential ended",
    if_not_exists=True,
    )


def _asked_at() -> None:
    op.add_column("sync_marks", sa.Column("asked_at", _TIME, nullable=True, comment="When it was last asked to the end, or refused"), if_not_exists=True)


_LATE: dict[str, Callable[[], None]] = {"0002": _budgets, "0003": _inbox, "0004": _keys, "0005": _asked_at}


def mend(version: str) -> None:
    """Makes what a database at this version lacks of the migrations up to it.

    0008 reads tables of 0003, so this must run before it as well: `env.py` calls it.
    """
    for number, make in _LATE.items():
        if number <= version:
            make()


def upgrade() -> None:
    mend(revision)


def downgrade() -> None:
    """Nothing: the parts belong to earlier migrations, whose downgrades take them."""
