"""Deployments with their environments; reviews; sizes and first commits of pull requests."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


UNSETTLED = (
    "asked_at IS NULL OR state IS NULL "
    "OR state <> 'COMPLETED'::text AND (state <> 'UNDEPLOYED'::text OR pipeline_id IS NULL)"
)
PULLS = ("first_commit_at", "additions", "deletions", "changed_files")
PULL_MARKS = ("size_for", "size_refused_since", "size_refused_at", "size_refused_for")

MARKS = {
    "kind": (
        "pullrequests, activity, commits or pipelines",
        "pullrequests, activity, commits, pipelines or deployments",
    ),
    "head": (
        "Head that the walk under way, or the last one, began at (commits)",
        "Head that the walk under way, or the last one, began at (commits); last transaction that changed one of its pipelines (deployments)",
    ),
    "checked": (
        "What was last found up to date: the repository's version (commits), day and listed pull requests (activity)",
        "What was last found up to date: the repository's version (commits), day and listed pull requests (activity), head of the mark (deployments)",
    ),
    "listed_at": (
        "When all open pull requests, or the pipelines of the last days, were last listed again",
        "When all open pull requests, or the pipelines or deployments of the last days, were last listed again",
    ),
}


def comment_marks(which: int) -> None:
    for column, comments in MARKS.items():
        kind = sa.DateTime(timezone=True) if column == "listed_at" else sa.Text()
        op.alter_column("sync_marks", column, existing_type=kind, comment=comments[which])


def upgrade() -> None:
    comment_marks(1)
    op.add_column("bitbucket_pulls", sa.Column("first_commit_at", sa.DateTime(timezone=True), nullable=True, comment="Date of the oldest commit that belongs to it"))
    op.add_column("bitbucket_pulls", sa.Column("additions", sa.BigInteger(), nullable=True, comment="Lines added; null until fetched (DX_PULL_REQUEST_SIZE) or where Bitbucket cannot tell"))
    op.add_column("bitbucket_pulls", sa.Column("deletions", sa.BigInteger(), nullable=True, comment="Lines removed, likewise"))
    op.add_column("bitbucket_pulls", sa.Column("changed_files", sa.Integer(), nullable=True, comment="Files changed, likewise"))
    op.create_index("ix_bitbucket_pulls_merged_by_user_id", "bitbucket_pulls", ["merged_by_user_id"])
    op.add_column("pull_marks", sa.Column("size_for", sa.Text(), nullable=True, comment="Source and target for which its size was settled, known or not"))
    op.add_column("pull_marks", sa.Column("size_refused_since", sa.DateTime(timezone=True), nullable=True, comment="When Bitbucket first refused its size; null when it did not"))
    op.add_column("pull_marks", sa.Column("size_refused_at", sa.DateTime(timezone=True), nullable=True, comment="When Bitbucket last refused its size"))
    op.add_column("pull_marks", sa.Column("size_refused_for", sa.Text(), nullable=True, comment="Source and target of the pull request then"))
    op.create_table("bitbucket_environments",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Bitbucket's uuid of the environment"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the environment, with braces"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("name", sa.Text(), nullable=True, comment="Name"),
    sa.Column("slug", sa.Text(), nullable=True, comment="Name in addresses"),
    sa.Column("type", sa.Text(), nullable=True, comment="Test, Staging or Production"),
    sa.Column("rank", sa.Integer(), nullable=True, comment="Place in the order of promotion, lowest first"),
    sa.Column("hidden", sa.Boolean(), nullable=True, comment="Whether the environment is hidden in Bitbucket"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When a complete listing first no longer held the environment"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Deployment environments of repositories"
    )
    op.create_index("ix_bitbucket_environments_repository_id", "bitbucket_environments", ["repository_id"], unique=False)
    op.create_table("bitbucket_deployments",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Bitbucket's uuid of the deployment"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the deployment, with braces"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("environment_id", sa.Uuid(), nullable=True, comment="bitbucket_environments.id"),
    sa.Column("pipeline_id", sa.Uuid(), nullable=True, comment="bitbucket_pipelines.id of the run that deployed"),
    sa.Column("release_name", sa.Text(), nullable=True, comment="Name of the release, as Bitbucket shows it"),
    sa.Column("commit_sha", sa.Text(), nullable=True, comment="Commit that was deployed; 40 characters once resolved"),
    sa.Column("state", sa.Text(), nullable=True, comment="UNDEPLOYED, IN_PROGRESS or COMPLETED"),
    sa.Column("status", sa.Text(), nullable=True, comment="SUCCESSFUL, FAILED or STOPPED, once completed"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="When its release was created; a deployment has no such date of its own"),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=True, comment="When it began"),
    sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended"),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="When it last changed"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of its page"),
    sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True, comment="When it was first met, or last asked for by itself; null after its pipeline has changed"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Deployments by Bitbucket Pipelines"
    )
    op.create_index("ix_bitbucket_deployments_repository_id_started_at", "bitbucket_deployments", ["repository_id", "started_at"], unique=False)
    op.create_index("ix_bitbucket_deployments_pipeline_id", "bitbucket_deployments", ["pipeline_id"], unique=False)
    op.create_index("ix_bitbucket_deployments_unsettled", "bitbucket_deployments", ["repository_id"], unique=False, postgresql_where=sa.text(UNSETTLED))
    op.create_table("bitbucket_reviews",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the pull request, the reviewer and the entry or comment that made the review"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Text from which the id is derived: Bitbucket has no id of a review"),
    sa.Column("pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("user_id", sa.Uuid(), nullable=True, comment="The reviewer, bitbucket_users.id"),
    sa.Column("state", sa.Text(), nullable=False, comment="APPROVED, DECLINED (changes requested) or COMMENTED"),
    sa.Column("comment_count", sa.Integer(), nullable=False, comment="Comments that belong to the review"),
    sa.Column("time_since_request", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from created_at of the pull request to created_at of the review"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="Date of the opinion; of a COMMENTED review, of its first comment"),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="Date of the opinion or of the latest change of one of its comments, whichever is later"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of the pull request's page, or of the first comment"),
    sa.PrimaryKeyConstraint("id"),
    comment="Reviews: approvals and change requests with their comments, and comments without an opinion"
    )
    op.create_index("ix_bitbucket_reviews_pull_id", "bitbucket_reviews", ["pull_id"], unique=False)
    op.create_index("ix_bitbucket_reviews_user_id", "bitbucket_reviews", ["user_id"], unique=False)


def downgrade() -> None:
    comment_marks(0)
    op.drop_table("bitbucket_reviews")
    op.drop_table("bitbucket_deployments")
    op.drop_table("bitbucket_environments")
    op.drop_index("ix_bitbucket_pulls_merged_by_user_id", "bitbucket_pulls")
    for column in PULL_MARKS:
        op.drop_column("pull_marks", column)
    for column in PULLS:
        op.drop_column("bitbucket_pulls", column)
