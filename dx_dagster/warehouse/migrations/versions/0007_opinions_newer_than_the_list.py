"""Approvals and change requests that the feed tells and the list of pull requests did not show yet."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("pull_marks", sa.Column("opinion_unseen", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the feed told of an opinion that the list of pull requests did not show yet"))


def downgrade() -> None:
    op.drop_column("pull_marks", "opinion_unseen")
