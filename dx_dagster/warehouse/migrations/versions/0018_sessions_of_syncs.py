"""Sessions of syncs: what a killed one completed is not asked again by the one that continues it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("sync_sessions",
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the workspace, in lower case"),
    sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it began, before its first request"),
    sa.Column("alive_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When a process of it last said that it works"),
    sa.Column("paused", postgresql.INTERVAL(), server_default=sa.text("'0'"), nullable=False, comment="How long no process worked in it, three minutes at least for each kill"),
    sa.Column("rules", sa.Text(), nullable=False, comment="Release whose process began it; another release begins a new one"),
    sa.Column("steps", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Steps that ended in it"),
    sa.Column("agreed", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Kinds of pull request, once for each whose commits were as the history proves them"),
    sa.PrimaryKeyConstraint("workspace"),
    comment="Syncs under way, and killed ones that the next sync may continue; a sync that ends deletes its row",
    )
    op.create_table("sync_session_commits",
    sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False, comment="Number of the answer"),
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the workspace, in lower case"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="Repository of the commits"),
    sa.Column("commits", sa.Text(), nullable=False, comment="The commits, as JSON that Bitbucket returned, and which jsonb would refuse"),
    sa.PrimaryKeyConstraint("id"),
    comment="Commits that a sync has fetched before it knows of which pull requests they are; it removes them then",
    )
    op.add_column("sync_marks", sa.Column("walk_begun_at", sa.DateTime(timezone=True), nullable=True, comment="When the walk under way, or the last one, began"))


def downgrade() -> None:
    op.drop_column("sync_marks", "walk_begun_at")
    op.drop_table("sync_session_commits")
    op.drop_table("sync_sessions")
