"""The unified tables of DX's schema."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("repos",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("default_branch", sa.Text(), nullable=True, comment="Name of the default branch"),
    sa.Column("external_id", sa.Text(), nullable=True, comment="Bitbucket's uuid of the repository, with braces"),
    sa.Column("name", sa.Text(), nullable=True, comment="Name of the repository"),
    sa.Column("organization", sa.Text(), nullable=True, comment="Slug of the workspace"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("archived", sa.Boolean(), nullable=True, comment="Null: Bitbucket does not tell"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("repo_group_id", sa.BigInteger(), nullable=True, comment="Null: Bitbucket has no such groups"),
    sa.Column("api_accessible", sa.Boolean(), nullable=True, comment="Whether the API let us read the repository in the last sync"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the repository is gone"),
    sa.PrimaryKeyConstraint("id"),
    comment="Repositories"
    )
    op.create_index("ix_repos_source_table_id", "repos", ["source_table_id"], unique=True)
    op.create_table("pull_requests",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("additions", sa.BigInteger(), nullable=True, comment="Lines added"),
    sa.Column("base_ref", sa.Text(), nullable=True, comment="Branch that the changes go to"),
    sa.Column("bot_authored", sa.Boolean(), nullable=True, comment="Whether the author is no person; false where the account is gone"),
    sa.Column("bot_name", sa.Text(), nullable=True, comment="Name of that bot"),
    sa.Column("bot_type", sa.Text(), nullable=True, comment="bot or ai_bot"),
    sa.Column("closed", sa.DateTime(timezone=True), nullable=True, comment="When it was merged, declined or superseded"),
    sa.Column("created", sa.DateTime(timezone=True), nullable=True, comment="When it was opened"),
    sa.Column("deletions", sa.BigInteger(), nullable=True, comment="Lines removed"),
    sa.Column("dx_versioned_team_member_id", sa.BigInteger(), nullable=True, comment="Null: teams have no history here"),
    sa.Column("dx_user_id", sa.BigInteger(), nullable=True, comment="Author, dx_users.id"),
    sa.Column("external_url", sa.Text(), nullable=True, comment="Address of its page"),
    sa.Column("external_id", sa.Text(), nullable=True, comment="Number of the pull request in its repository"),
    sa.Column("head_ref", sa.Text(), nullable=True, comment="Branch with the changes"),
    sa.Column("merge_commit_sha", sa.Text(), nullable=True, comment="Commit that the merge made"),
    sa.Column("merged_by_user_id", sa.BigInteger(), nullable=True, comment="Who merged it, dx_users.id"),
    sa.Column("merged", sa.DateTime(timezone=True), nullable=True, comment="When it was merged"),
    sa.Column("open_to_first_approval", sa.Numeric(), nullable=True, comment="Seconds from ready_for_review_at, else created, to the first approval"),
    sa.Column("open_to_first_approval_business_hours", sa.Numeric(), nullable=True, comment="Likewise, within the approver's business hours"),
    sa.Column("open_to_first_review", sa.Numeric(), nullable=True, comment="Seconds from ready_for_review_at, else created, to the first review"),
    sa.Column("open_to_first_review_business_hours", sa.Numeric(), nullable=True, comment="Likewise, within the reviewer's business hours"),
    sa.Column("open_to_merge", sa.Numeric(), nullable=True, comment="Seconds from ready_for_review_at, else created, to merged"),
    sa.Column("open_to_merge_business_hours", sa.Numeric(), nullable=True, comment="Likewise, within the author's business hours"),
    sa.Column("title", sa.Text(), nullable=True, comment="Title"),
    sa.Column("updated", sa.DateTime(timezone=True), nullable=True, comment="When it last changed"),
    sa.Column("draft", sa.Boolean(), nullable=True, comment="Whether it is a draft"),
    sa.Column("reverted", sa.Boolean(), nullable=True, comment="Whether a later merged pull request of the repository says that it reverts this one"),
    sa.Column("ready_for_review_at", sa.DateTime(timezone=True), nullable=True, comment="When it was turned from a draft into a reviewable pull request"),
    sa.Column("weight", sa.Numeric(), nullable=True, comment="Null: DX works it out with a model of its own"),
    sa.Column("classification", sa.Text(), nullable=True, comment="Null: DX works it out with a model of its own"),
    sa.Column("tz", sa.Text(), nullable=True, comment="Zone of the author's business hours"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the pull request or its repository is gone"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("repo_id", sa.BigInteger(), nullable=False, comment="repos.id"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("source_table_repo_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.PrimaryKeyConstraint("id"),
    comment="Pull requests"
    )
    op.create_index("ix_pull_requests_dx_user_id", "pull_requests", ["dx_user_id"], unique=False)
    op.create_index("ix_pull_requests_merged", "pull_requests", ["merged"], unique=False)
    op.create_index("ix_pull_requests_source_table_id", "pull_requests", ["source_table_id"], unique=True)
    op.create_table("pull_request_reverts",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Unique number"),
    sa.Column("source_table_pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id of a merged pull request"),
    sa.Column("source_table_repo_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("number", sa.BigInteger(), nullable=True, comment="Number of the pull request that it says it reverts"),
    sa.Column("commit_sha", sa.Text(), nullable=True, comment="Hash of the commit that it says it reverts, 7 to 40 characters"),
    sa.Column("title", sa.Text(), nullable=True, comment="Title of the pull request that it says it reverts; where it says neither number nor hash"),
    sa.Column("said_in", sa.Text(), nullable=True, comment="Hash of its commit that says commit_sha"),
    sa.PrimaryKeyConstraint("id"),
    comment="What merged pull requests say that they revert, by their titles and commits; makes pull_requests.reverted"
    )
    op.create_index("ix_pull_request_reverts_source_table_pull_id", "pull_request_reverts", ["source_table_pull_id"], unique=False)
    op.create_index("ix_bitbucket_pulls_merge_commit_sha", "bitbucket_pulls", ["merge_commit_sha"], unique=False)
    op.create_index("ix_bitbucket_pull_commits_author_id", "bitbucket_pull_commits", ["author_id"], unique=False)
    op.create_table("pull_request_reviews",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("comment_count", sa.Integer(), nullable=True, comment="Comments that belong to the review"),
    sa.Column("created", sa.DateTime(timezone=True), nullable=True, comment="Date of the review"),
    sa.Column("dx_user_id", sa.BigInteger(), nullable=True, comment="Reviewer, dx_users.id"),
    sa.Column("external_id", sa.Text(), nullable=True, comment="Text from which the review's id is derived"),
    sa.Column("external_url", sa.Text(), nullable=True, comment="Address of the review's page"),
    sa.Column("pull_request_id", sa.BigInteger(), nullable=False, comment="pull_requests.id"),
    sa.Column("repo_id", sa.BigInteger(), nullable=False, comment="repos.id"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_reviews.id"),
    sa.Column("source_table_pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("source_table_repo_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("time_since_request", sa.Numeric(), nullable=True, comment="Seconds from the pull request's ready_for_review_at, else created, to the review"),
    sa.Column("time_since_request_business_hours", sa.Numeric(), nullable=True, comment="Likewise, within the reviewer's business hours"),
    sa.Column("tz", sa.Text(), nullable=True, comment="Zone of those hours"),
    sa.Column("review_type", sa.Text(), nullable=True, comment="APPROVED, DECLINED or COMMENTED"),
    sa.Column("bot_authored", sa.Boolean(), nullable=True, comment="Whether the reviewer is no person"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the pull request or its repository is gone"),
    sa.PrimaryKeyConstraint("id"),
    comment="Reviews of pull requests"
    )
    op.create_index("ix_pull_request_reviews_dx_user_id", "pull_request_reviews", ["dx_user_id"], unique=False)
    op.create_index("ix_pull_request_reviews_pull_request_id", "pull_request_reviews", ["pull_request_id"], unique=False)
    op.create_index("ix_pull_request_reviews_source_table_id", "pull_request_reviews", ["source_table_id"], unique=True)
    op.create_table("pull_request_commits",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("sha", sa.Text(), nullable=True, comment="Hash, 40 characters"),
    sa.Column("created", sa.DateTime(timezone=True), nullable=True, comment="Date of the commit"),
    sa.Column("message", sa.Text(), nullable=True, comment="Message"),
    sa.Column("dx_user_id", sa.BigInteger(), nullable=True, comment="Author, dx_users.id"),
    sa.Column("external_id", sa.Text(), nullable=True, comment="The hash again"),
    sa.Column("external_url", sa.Text(), nullable=True, comment="Address of the commit's page"),
    sa.Column("pull_request_id", sa.BigInteger(), nullable=False, comment="pull_requests.id"),
    sa.Column("repo_id", sa.BigInteger(), nullable=False, comment="repos.id"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_pull_commits.id"),
    sa.Column("source_table_pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("source_table_repo_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("bot_authored", sa.Boolean(), nullable=True, comment="Whether the author is no person; false where the account is unknown"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the commit no longer belongs to the pull request, or that is gone"),
    sa.PrimaryKeyConstraint("id"),
    comment="Commits of pull requests"
    )
    op.create_index("ix_pull_request_commits_pull_request_id", "pull_request_commits", ["pull_request_id"], unique=False)
    op.create_index("ix_pull_request_commits_source_table_id", "pull_request_commits", ["source_table_id"], unique=True)
    op.create_table("pull_request_issues",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("pull_request_id", sa.BigInteger(), nullable=False, comment="pull_requests.id"),
    sa.Column("issue_id", sa.BigInteger(), nullable=True, comment="Null: no issues are imported"),
    sa.Column("issue_key", sa.Text(), nullable=False, comment="Key of the issue, as ABC-123, from the title or the source branch"),
    sa.Column("source_table_pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.PrimaryKeyConstraint("id"),
    comment="Issues that pull requests name"
    )
    op.create_index("ix_pull_request_issues_pull_request_id_issue_key", "pull_request_issues", ["pull_request_id", "issue_key"], unique=True)
    op.create_table("pipeline_sources",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("name", sa.Text(), nullable=False, comment="Name of the repository"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("repo_id", sa.BigInteger(), nullable=True, comment="repos.id"),
    sa.PrimaryKeyConstraint("id"),
    comment="Where pipeline runs come from: one for each repository that has runs"
    )
    op.create_index("ix_pipeline_sources_source_table_id", "pipeline_sources", ["source_table_id"], unique=True)
    op.create_table("pipeline_runs",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("reference_id", sa.Text(), nullable=True, comment="Our uuid of the run"),
    sa.Column("source_id", sa.Text(), nullable=True, comment="Bitbucket's uuid of the run, with braces"),
    sa.Column("pipeline_source_id", sa.BigInteger(), nullable=False, comment="pipeline_sources.id"),
    sa.Column("name", sa.Text(), nullable=True, comment="Name of the repository"),
    sa.Column("status", sa.Text(), nullable=False, comment="success, failure, cancelled, running or unknown"),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=True, comment="When it was created"),
    sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended"),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended, else when it was created: Bitbucket tells no other"),
    sa.Column("duration", sa.BigInteger(), nullable=True, comment="Seconds that it ran"),
    sa.Column("repository", sa.Text(), nullable=True, comment="Workspace and slug of the repository, as acme/web"),
    sa.Column("commit_sha", sa.Text(), nullable=True, comment="Commit that it ran on"),
    sa.Column("head_branch", sa.Text(), nullable=True, comment="Branch or tag that it ran on"),
    sa.Column("pr_number", sa.BigInteger(), nullable=True, comment="Number of the pull request that it ran for"),
    sa.Column("pull_id", sa.BigInteger(), nullable=True, comment="pull_requests.id of that"),
    sa.Column("dx_user_id", sa.BigInteger(), nullable=True, comment="Who started it, dx_users.id"),
    sa.Column("email", sa.Text(), nullable=True, comment="E-mail address of that person"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of its page"),
    sa.Column("github_repository_id", sa.BigInteger(), nullable=True, comment="Null"),
    sa.Column("github_username", sa.Text(), nullable=True, comment="Null"),
    sa.Column("gitlab_project_id", sa.BigInteger(), nullable=True, comment="Null"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_pipelines.id"),
    sa.Column("repo_id", sa.BigInteger(), nullable=True, comment="repos.id"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the repository is gone"),
    sa.PrimaryKeyConstraint("id"),
    comment="Runs of pipelines"
    )
    op.create_index("ix_pipeline_runs_pipeline_source_id_started_at", "pipeline_runs", ["pipeline_source_id", "started_at"], unique=False)
    op.create_index("ix_pipeline_runs_source_table_id", "pipeline_runs", ["source_table_id"], unique=True)
    op.create_index("ix_bitbucket_pipelines_user_id", "bitbucket_pipelines", ["user_id"], unique=False)
    op.create_table("deployment_ids",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number of the deployment: deployments.id"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_deployments.id"),
    sa.PrimaryKeyConstraint("id"),
    comment="Numbers of deployments, kept while one runs again and has no row in deployments"
    )
    op.create_index("ix_deployment_ids_source_table_id", "deployment_ids", ["source_table_id"], unique=True)
    op.create_table("deployments",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same thing"),
    sa.Column("reference_id", sa.Text(), nullable=True, comment="Bitbucket's uuid of the deployment, with braces"),
    sa.Column("service_id", sa.BigInteger(), nullable=True, comment="repos.id of the repository: it stands for the service"),
    sa.Column("repository", sa.Text(), nullable=True, comment="Workspace and slug of the repository, as acme/web"),
    sa.Column("commit_sha", sa.Text(), nullable=True, comment="Commit that was deployed"),
    sa.Column("attributed_at", sa.DateTime(timezone=True), nullable=True, comment="When the deployment was attributed to pull requests; null where it is to none"),
    sa.Column("merge_commit_shas", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False, comment="Merge commits that it is the first to contain"),
    sa.Column("environment", sa.Text(), nullable=True, comment="production for environments of that type, else the environment's name"),
    sa.Column("deployed_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended"),
    sa.Column("success", sa.Boolean(), nullable=True, comment="Whether it succeeded; false for a stopped one"),
    sa.Column("service", sa.Text(), nullable=True, comment="Name of the repository"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of its page"),
    sa.Column("source_name", sa.Text(), nullable=True, comment="Bitbucket Pipelines"),
    sa.Column("integration_branch", sa.Text(), nullable=True, comment="Null"),
    sa.Column("deployment_inference_rule_id", sa.BigInteger(), nullable=True, comment="Null"),
    sa.Column("deployment_service_id", sa.BigInteger(), nullable=True, comment="Null"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_deployments.id"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the repository is gone"),
    sa.PrimaryKeyConstraint("id"),
    comment="Deployments that have ended"
    )
    op.create_index("ix_deployments_service_id_deployed_at", "deployments", ["service_id", "deployed_at"], unique=False)
    op.create_index("ix_deployments_source_table_id", "deployments", ["source_table_id"], unique=True)
    op.create_table("deployment_pull_requests",
    sa.Column("deployment_id", sa.BigInteger(), nullable=False, comment="deployments.id"),
    sa.Column("pull_request_id", sa.BigInteger(), nullable=False, comment="pull_requests.id"),
    sa.PrimaryKeyConstraint("deployment_id", "pull_request_id"),
    comment="Which deployment was the first to contain which merged pull request, for each environment"
    )
    op.create_index("ix_deployment_pull_requests_pull_request_id", "deployment_pull_requests", ["pull_request_id"], unique=False)


def downgrade() -> None:
    op.drop_table("deployment_pull_requests")
    op.drop_table("deployments")
    op.drop_table("deployment_ids")
    op.drop_index("ix_bitbucket_pipelines_user_id", "bitbucket_pipelines")
    op.drop_table("pipeline_runs")
    op.drop_table("pipeline_sources")
    op.drop_table("pull_request_issues")
    op.drop_table("pull_request_commits")
    op.drop_table("pull_request_reviews")
    op.drop_index("ix_bitbucket_pull_commits_author_id", "bitbucket_pull_commits")
    op.drop_index("ix_bitbucket_pulls_merge_commit_sha", "bitbucket_pulls")
    op.drop_table("pull_request_reverts")
    op.drop_table("pull_requests")
    op.drop_table("repos")
