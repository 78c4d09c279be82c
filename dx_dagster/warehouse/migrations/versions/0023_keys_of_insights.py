"""API keys that open insights alone, and how many requests came with each key."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("api_keys",
    sa.Column("insights_only", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether it opens insights and nothing else"),
    )
    op.create_table("api_key_requests",
    sa.Column("api_key_id", sa.Integer(), nullable=False, comment="api_keys.id"),
    sa.Column("minute", sa.DateTime(timezone=True), nullable=False, comment="Begin of the minute of the last request"),
    sa.Column("requests", sa.Integer(), nullable=False, comment="Requests in that minute"),
    sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"]),
    sa.PrimaryKeyConstraint("api_key_id"),
    comment="Requests with API keys in this minute, counted for all processes of the API",
    prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    op.drop_table("api_key_requests")
    op.drop_column("api_keys", "insights_only")
