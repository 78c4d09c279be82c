"""The date of a merge commit, for pull requests whose activity does not say when they were merged."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("bitbucket_pulls", sa.Column("merge_commit_date", sa.DateTime(timezone=True), nullable=True, comment="Date of that commit, where the pull request tells it"))


def downgrade() -> None:
    op.drop_column("bitbucket_pulls", "merge_commit_date")
