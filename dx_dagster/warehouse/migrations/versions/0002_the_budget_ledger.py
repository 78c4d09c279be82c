"""The budget ledger."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:

    op.create_table("budgets",
    sa.Column("name", sa.Text(), nullable=False, comment="credential:ID of an access token, account:ADDRESS for all API tokens"),
    sa.Column("request_limit", sa.Integer(), nullable=True, comment="Requests a window, as Bitbucket said; null until then"),
    sa.Column("spent", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False, comment="Requests of the window: [end of a sixtieth of it in seconds since 1970, how many], …"),
    sa.Column("leases", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Requests that processes have reserved: {process: [how many, second by which they will have ended]}"),
    sa.Column("rests_until", sa.DateTime(timezone=True), nullable=True, comment="Until when nothing is sent, after a 429"),
    sa.Column("careful_until", sa.DateTime(timezone=True), nullable=True, comment="Until when one request is sent at a time, after that"),
    sa.Column("near_limit_at", sa.DateTime(timezone=True), nullable=True, comment="When Bitbucket last said that less than a fifth is left"),
    sa.PrimaryKeyConstraint("name"),
    comment="Requests that each budget of Bitbucket has used in the rolling window, shared by all processes"
    )


def downgrade() -> None:
    op.drop_table("budgets")
