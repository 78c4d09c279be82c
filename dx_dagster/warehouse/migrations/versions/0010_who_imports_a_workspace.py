"""Who imports a workspace: each transaction of an import that writes makes sure that it still is the one."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("import_locks",
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the workspace, in lower case"),
    sa.Column("token", sa.Uuid(), nullable=False, comment="Of the import that last took the workspace's lock; another one's transactions are taken back"),
    sa.Column("taken_by", sa.Text(), nullable=False, comment="Its process, as PID@HOST"),
    sa.Column("taken_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it took the lock"),
    sa.PrimaryKeyConstraint("workspace"),
    comment="Which import of a workspace may write; the lock itself is an advisory one",
    )


def downgrade() -> None:
    op.drop_table("import_locks")
