"""Which reviews authors gave with another account of theirs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# The name of each trigger, with what it refers to.
TRIGGERS = {
    "INSERT": "REFERENCING NEW TABLE AS changed",
    "UPDATE": "REFERENCING OLD TABLE AS before NEW TABLE AS changed",
    "DELETE": "REFERENCING OLD TABLE AS changed",
}
BEFORE = "id, repo_id, dx_user_id, bot_authored, created"
NOW = "id, repo_id, dx_user_id, bot_authored, by_author, created"


def upgrade() -> None:
    op.add_column("pull_request_reviews",
    sa.Column("by_author", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the author reviewed with another account; such a review counts in no measure"),
    )
    note_days(NOW)


def downgrade() -> None:
    note_days(BEFORE)
    op.drop_column("pull_request_reviews", "by_author")


def note_days(columns: str) -> None:
    for of, rows in TRIGGERS.items():
        op.execute(f"DROP TRIGGER note_days_at_{of.lower()} ON pull_request_reviews")
        op.execute(f"CREATE TRIGGER note_days_at_{of.lower()} AFTER {of} ON pull_request_reviews {rows} FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', '{columns}', 'created')")
