"""What tells the commits of a pull request without asking for them, and when a repository was last asked."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("bitbucket_pulls", sa.Column("target_commit_sha", sa.Text(), nullable=True, comment="Head of the target branch as last told with the pull request, 12 characters"))
    op.add_column("bitbucket_pulls", sa.Column("from_fork", sa.Boolean(), nullable=True, comment="Whether its source is not a branch of the same repository"))
    op.add_column("bitbucket_pulls", sa.Column("close_source_branch", sa.Boolean(), nullable=True, comment="Whether merging it closes the source branch"))
    op.add_column("sync_marks", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True, comment="When it was last asked to the end, or refused"))


def downgrade() -> None:
    op.drop_column("sync_marks", "asked_at")
    op.drop_column("bitbucket_pulls", "close_source_branch")
    op.drop_column("bitbucket_pulls", "from_fork")
    op.drop_column("bitbucket_pulls", "target_commit_sha")
