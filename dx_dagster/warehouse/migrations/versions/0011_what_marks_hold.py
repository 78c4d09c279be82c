"""Comments of two marks that said less than the marks hold."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

COMMENTS = {
    ("sync_marks", "checked"): (
        "Version of the repository that was last found up to date (commits)",
        "What was last found up to date: the repository's version (commits), day and listed pull requests (activity)",
    ),
    ("pull_marks", "commits_synced_for"): (
        "Source commit and target branch for which its commits are complete",
        "Source, target and state of the target for which its commits are complete, or unconfirmed behind them",
    ),
}


def upgrade() -> None:
    for (table, column), (_, comment) in COMMENTS.items():
        op.alter_column(table, column, existing_type=sa.Text(), comment=comment)


def downgrade() -> None:
    for (table, column), (comment, _) in COMMENTS.items():
        op.alter_column(table, column, existing_type=sa.Text(), comment=comment)
