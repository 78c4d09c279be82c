"""Wrong API keys of all processes, keys of requests that may be repeated, and which releases work on the tables."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("dx_schema_version",
    sa.Column("works_from", sa.Text(), nullable=True, comment="The oldest version whose release works on these tables"),
    )
    op.add_column("dx_schema_version",
    sa.Column("works_from_of", sa.Text(), nullable=True, comment="The version that works_from is about"),
    )
    op.create_table("wrong_keys",
    sa.Column("network", sa.Text(), nullable=False, comment="Address, or /64 network of IPv6, that gave wrong API keys"),
    sa.Column("given_at", postgresql.ARRAY(sa.DateTime(timezone=True)), nullable=False, comment="When it gave the last ones"),
    sa.PrimaryKeyConstraint("network"),
    comment="Wrong API keys of the last minute, counted for all processes of the API",
    prefixes=["UNLOGGED"],
    )
    op.create_table("idempotency_keys",
    sa.Column("connection_id", sa.Integer(), nullable=False, comment="connections.id"),
    sa.Column("key", sa.Text(), nullable=False, comment="Header Idempotency-Key of a credentials.create"),
    sa.Column("content", sa.LargeBinary(), nullable=False, comment="SHA-256 of what the request asks for"),
    sa.Column("credential_id", sa.Integer(), nullable=True, comment="credentials.id; null until it is added"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When the request came; it counts for a day"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"]),
    sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"]),
    sa.PrimaryKeyConstraint("connection_id", "key"),
    comment="Requests that a client may repeat without doing their work twice",
    )


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_table("wrong_keys")
    op.drop_column("dx_schema_version", "works_from_of")
    op.drop_column("dx_schema_version", "works_from")
