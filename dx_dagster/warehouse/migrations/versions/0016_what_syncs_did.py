"""What the steps of syncs did, syncs that a person asked for, and what a first import is expected to take."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("sync_steps",
    sa.Column("run_id", sa.Text(), nullable=False, comment="Dagster's run"),
    sa.Column("step", sa.Text(), nullable=False, comment="Name of the asset"),
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the workspace"),
    sa.Column("kind", sa.Text(), nullable=True, comment="sync or reconcile where a schedule started it; null where a person did"),
    sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False, comment="When the step began"),
    sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended; null while it runs, and where its process was killed"),
    sa.Column("done", sa.Integer(), nullable=True, comment="Items done"),
    sa.Column("total", sa.Integer(), nullable=True, comment="Items to do, as far as that is known"),
    sa.Column("counted", sa.Text(), nullable=True, comment="What the items are, such as repositories"),
    sa.Column("requests", sa.Integer(), nullable=True, comment="Requests sent"),
    sa.Column("inserted", sa.BigInteger(), nullable=True, comment="Rows inserted"),
    sa.Column("updated", sa.BigInteger(), nullable=True, comment="Rows updated"),
    sa.Column("skipped", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False, comment="What could not be imported: repository and reason of each"),
    sa.Column("error", sa.Text(), nullable=True, comment="Why it failed"),
    sa.PrimaryKeyConstraint("run_id", "step"),
    comment="What each step of the syncs of the last weeks did"
    )
    op.create_index("ix_sync_steps_workspace_began_at", "sync_steps", ["workspace", "began_at"], unique=False)
    op.add_column("connections", sa.Column("sync_asked_at", sa.DateTime(timezone=True), nullable=True, comment="When a person asked for a sync that no run was started for yet"))
    op.add_column("connections", sa.Column("expected", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False, comment="What the first import was expected to take when the workspace was connected"))


def downgrade() -> None:
    op.drop_column("connections", "expected")
    op.drop_column("connections", "sync_asked_at")
    op.drop_table("sync_steps")
