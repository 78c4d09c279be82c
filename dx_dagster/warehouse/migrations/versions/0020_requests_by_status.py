"""How many requests each credential has sent, by status."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("request_counts",
    sa.Column("credential_id", sa.Integer(), nullable=False, comment="credentials.id"),
    sa.Column("status", sa.Text(), nullable=False, comment="Status of the answers; none where there was no answer"),
    sa.Column("requests", sa.BigInteger(), nullable=False, comment="How many, ever since"),
    sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"]),
    sa.PrimaryKeyConstraint("credential_id", "status"),
    comment="How many requests each credential has sent, by the status of their answers",
    )


def downgrade() -> None:
    op.drop_table("request_counts")
