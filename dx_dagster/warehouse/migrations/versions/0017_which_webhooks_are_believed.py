"""When receivers were up, whether webhooks tell every change, and changes that they did not tell."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_ASKED = "When the requests began that last asked it to the end, or were refused"


def upgrade() -> None:
    op.create_table("receiver_uptimes",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number of the interval"),
    sa.Column("address", sa.Text(), nullable=True, comment="Where the receiver is reached, by its DX_PUBLIC_URL; null without that"),
    sa.Column("up_from", sa.DateTime(timezone=True), nullable=False, comment="When it first could store deliveries"),
    sa.Column("up_to", sa.DateTime(timezone=True), nullable=False, comment="When it last could"),
    sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True, comment="When it was shut down in good order; null while it is up, and where it was not"),
    sa.PrimaryKeyConstraint("id"),
    comment="When receivers were up; an interval ends where the receiver or the database did not answer"
    )
    op.create_table("webhook_beliefs",
    sa.Column("connection_id", sa.Integer(), nullable=False, comment="connections.id"),
    sa.Column("hook_uuid", sa.Text(), nullable=True, comment="The workspace's hook, as it was last looked at"),
    sa.Column("hook_right_since", sa.DateTime(timezone=True), nullable=True, comment="First of the looks since which the hook has been right; null where it is not"),
    sa.Column("vouched_from", sa.DateTime(timezone=True), nullable=True, comment="Since when deliveries have told every change, as of the last look; null where they do not"),
    sa.Column("doubted_at", sa.DateTime(timezone=True), nullable=True, comment="When that was last found not to be so; what was asked before then is asked again"),
    sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True, comment="When the hook was last looked at"),
    sa.Column("reason", sa.Text(), nullable=True, comment="Why deliveries are not believed, as of the last look; null where they are"),
    sa.Column("rejected_at", sa.DateTime(timezone=True), nullable=True, comment="When a delivery of the hook was last refused for its signature"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"]),
    sa.PrimaryKeyConstraint("connection_id"),
    comment="Whether the webhook of a connection tells every change"
    )
    op.create_table("untold_changes",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number of the change"),
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("kind", sa.Text(), nullable=False, comment="pullrequest or pipeline"),
    sa.Column("number", sa.BigInteger(), nullable=False, comment="Number of the pull request or the pipeline"),
    sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True, comment="Bitbucket's date of the change; null where only an opinion differed"),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, comment="When the repository was last asked before: the change is newer"),
    sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When the reconcile found it"),
    sa.PrimaryKeyConstraint("id"),
    comment="Changes that a reconcile found where the webhook was believed; those that turn out to be told are removed"
    )
    op.create_index("ix_untold_changes_workspace_id", "untold_changes", ["workspace_id"], unique=False)
    op.alter_column("sync_marks", "asked_at", comment=_ASKED)


def downgrade() -> None:
    op.alter_column("sync_marks", "asked_at", comment="When it was last asked to the end, or refused")
    op.drop_table("untold_changes")
    op.drop_table("webhook_beliefs")
    op.drop_table("receiver_uptimes")
