"""The import."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:

    op.create_table("bitbucket_pipelines",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Bitbucket's uuid of the pipeline"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the pipeline, with braces"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("build_number", sa.BigInteger(), nullable=True, comment="Number of the run in its repository"),
    sa.Column("state", sa.Text(), nullable=True, comment="PENDING, IN_PROGRESS, COMPLETED, …"),
    sa.Column("result", sa.Text(), nullable=True, comment="SUCCESSFUL, FAILED, ERROR, STOPPED or EXPIRED, once completed"),
    sa.Column("trigger", sa.Text(), nullable=True, comment="What started it: PUSH, MANUAL, SCHEDULE, …"),
    sa.Column("ref_name", sa.Text(), nullable=True, comment="Branch or tag that it ran on; the source branch for a pull request"),
    sa.Column("commit_sha", sa.Text(), nullable=True, comment="Commit that it ran on"),
    sa.Column("pull_id", sa.Uuid(), nullable=True, comment="bitbucket_pulls.id, when it ran for a pull request"),
    sa.Column("user_id", sa.Uuid(), nullable=True, comment="Who started it, bitbucket_users.id; null for a schedule"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="When it was created"),
    sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended"),
    sa.Column("duration", sa.BigInteger(), nullable=True, comment="Seconds that it ran"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of the run's page"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Runs of Bitbucket Pipelines"
    )
    op.create_index("ix_bitbucket_pipelines_pull_id", "bitbucket_pipelines", ["pull_id"], unique=False)
    op.create_index("ix_bitbucket_pipelines_repository_id_created_at", "bitbucket_pipelines", ["repository_id", "created_at"], unique=False)
    op.create_table("bitbucket_pull_activities",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the pull request, kind, time, actor and comment: entries have no id of their own"),
    sa.Column("pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("user_id", sa.Uuid(), nullable=True, comment="Who did it, bitbucket_users.id"),
    sa.Column("kind", sa.Text(), nullable=False, comment="comment, update, approval or changes_requested"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it happened"),
    sa.Column("state", sa.Text(), nullable=True, comment="State of the pull request after an update"),
    sa.Column("draft", sa.Boolean(), nullable=True, comment="Whether the pull request was a draft after an update"),
    sa.Column("comment_source_id", sa.BigInteger(), nullable=True, comment="Bitbucket's id of the comment"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="What happened to pull requests, entry by entry"
    )
    op.create_index("ix_bitbucket_pull_activities_pull_id_created_at", "bitbucket_pull_activities", ["pull_id", "created_at"], unique=False)
    op.create_table("bitbucket_pull_comments",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the pull request and Bitbucket's id of the comment"),
    sa.Column("source_id", sa.BigInteger(), nullable=False, comment="Bitbucket's id of the comment"),
    sa.Column("pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("user_id", sa.Uuid(), nullable=True, comment="Author, bitbucket_users.id"),
    sa.Column("parent_source_id", sa.BigInteger(), nullable=True, comment="Bitbucket's id of the comment that this one answers"),
    sa.Column("content", sa.Text(), nullable=True, comment="Text as written; empty once deleted"),
    sa.Column("inline_path", sa.Text(), nullable=True, comment="File that an inline comment stands in"),
    sa.Column("inline_from", sa.Integer(), nullable=True, comment="Line in the old version of the file"),
    sa.Column("inline_to", sa.Integer(), nullable=True, comment="Line in the new version of the file"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="When it was written"),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="When it was last changed"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether it was deleted"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of the comment"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Comments on pull requests"
    )
    op.create_index("ix_bitbucket_pull_comments_pull_id", "bitbucket_pull_comments", ["pull_id"], unique=False)
    op.create_index("ix_bitbucket_pull_comments_user_id", "bitbucket_pull_comments", ["user_id"], unique=False)
    op.create_table("bitbucket_pull_commits",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the pull request and the hash"),
    sa.Column("sha", sa.Text(), nullable=False, comment="Hash, 40 characters"),
    sa.Column("author_id", sa.Uuid(), nullable=True, comment="bitbucket_users.id; null when the address matches no account"),
    sa.Column("pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("created", sa.DateTime(timezone=True), nullable=True, comment="Date of the commit"),
    sa.Column("message", sa.Text(), nullable=True, comment="Message"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of the commit's page"),
    sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the commit no longer belongs to the pull request (a force push)"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Commits of pull requests"
    )
    op.create_index("ix_bitbucket_pull_commits_pull_id", "bitbucket_pull_commits", ["pull_id"], unique=False)
    op.create_index("ix_bitbucket_pull_commits_sha", "bitbucket_pull_commits", ["sha"], unique=False)
    op.create_table("bitbucket_pull_participants",
    sa.Column("pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("user_id", sa.Uuid(), nullable=False, comment="bitbucket_users.id"),
    sa.Column("role", sa.Text(), nullable=True, comment="REVIEWER or PARTICIPANT"),
    sa.Column("approved", sa.Boolean(), nullable=True, comment="Whether the pull request has the user's approval now"),
    sa.Column("state", sa.Text(), nullable=True, comment="approved, changes_requested or null"),
    sa.Column("participated_on", sa.DateTime(timezone=True), nullable=True, comment="When the user last took part; null for a reviewer who has not yet"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("pull_id", "user_id"),
    comment="Reviewers and participants of pull requests, as they stand now"
    )
    op.create_index("ix_bitbucket_pull_participants_user_id", "bitbucket_pull_participants", ["user_id"], unique=False)
    op.create_table("bitbucket_pulls",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the repository and the number"),
    sa.Column("source_id", sa.BigInteger(), nullable=False, comment="Number of the pull request in its repository"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("user_id", sa.Uuid(), nullable=True, comment="Author, bitbucket_users.id; null when the account is gone"),
    sa.Column("merged_by_user_id", sa.Uuid(), nullable=True, comment="Who merged it, bitbucket_users.id"),
    sa.Column("title", sa.Text(), nullable=True, comment="Title"),
    sa.Column("state", sa.Text(), nullable=False, comment="OPEN, MERGED, DECLINED or SUPERSEDED"),
    sa.Column("draft", sa.Boolean(), nullable=True, comment="Whether it is a draft"),
    sa.Column("ready_for_review", sa.DateTime(timezone=True), nullable=True, comment="When it was turned from a draft into a reviewable pull request"),
    sa.Column("source_branch", sa.Text(), nullable=True, comment="Branch with the changes"),
    sa.Column("target_branch", sa.Text(), nullable=True, comment="Branch that the changes go to"),
    sa.Column("source_commit_sha", sa.Text(), nullable=True, comment="Head of the source branch; 40 characters once resolved, as told (12) until then"),
    sa.Column("merge_commit_sha", sa.Text(), nullable=True, comment="Commit that the merge made; 40 characters once resolved, as told (12) until then"),
    sa.Column("comment_count", sa.Integer(), nullable=True, comment="Comments, as counted by Bitbucket"),
    sa.Column("task_count", sa.Integer(), nullable=True, comment="Tasks, as counted by Bitbucket"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="When it was opened"),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="When it last changed"),
    sa.Column("merged_at", sa.DateTime(timezone=True), nullable=True, comment="When it was merged, from its activity"),
    sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True, comment="When it was merged, declined or superseded, from its activity"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of its page"),
    sa.Column("open_to_merge", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from created_at to merged_at"),
    sa.Column("open_to_first_review", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds to the first comment, approval or change request of someone else"),
    sa.Column("open_to_first_approval", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds to the first approval of someone else"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When Bitbucket first answered that the pull request does not exist"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Bitbucket Cloud pull requests"
    )
    op.create_index("ix_bitbucket_pulls_merged_at", "bitbucket_pulls", ["merged_at"], unique=False)
    op.create_index("ix_bitbucket_pulls_repository_id_source_id", "bitbucket_pulls", ["repository_id", "source_id"], unique=True)
    op.create_index("ix_bitbucket_pulls_user_id", "bitbucket_pulls", ["user_id"], unique=False)
    op.create_table("bitbucket_repositories",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Bitbucket's uuid of the repository; it survives renames"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the repository, with braces"),
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("name", sa.Text(), nullable=True, comment="Name of the repository"),
    sa.Column("slug", sa.Text(), nullable=True, comment="Name of the repository in addresses; changes when it is renamed"),
    sa.Column("description", sa.Text(), nullable=True, comment="Description of the repository"),
    sa.Column("private", sa.Boolean(), nullable=True, comment="Whether the repository is private"),
    sa.Column("project_key", sa.Text(), nullable=True, comment="Key of the project that holds the repository"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="When the repository was created"),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="When the repository last changed; only commit activity moves it"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of the repository's page"),
    sa.Column("default_branch", sa.Text(), nullable=True, comment="Name of the default branch; null in an empty repository"),
    sa.Column("api_accessible", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="Whether the API let us read the repository in the last sync"),
    sa.Column("inaccessible_reason", sa.Text(), nullable=True, comment="What the API said when it did not"),
    sa.Column("allowlisted", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="Set to false to leave the repository out of imports"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When a complete listing first no longer held the repository"),
    sa.Column("pull_requests_synced_at", sa.DateTime(timezone=True), nullable=True, comment="When its pull requests were last synced to the end"),
    sa.Column("pull_request_synced_to", sa.DateTime(timezone=True), nullable=True, comment="Changes of pull requests up to here are stored"),
    sa.Column("pipelines_synced_at", sa.DateTime(timezone=True), nullable=True, comment="When its pipelines were last synced to the end"),
    sa.Column("default_branch_commits_sync_to", sa.DateTime(timezone=True), nullable=True, comment="Date of the newest commit of the default branch that is stored"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Bitbucket Cloud repositories"
    )
    op.create_index("ix_bitbucket_repositories_workspace_id", "bitbucket_repositories", ["workspace_id"], unique=False)
    op.create_table("bitbucket_repository_default_branch_commits",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the repository and the hash"),
    sa.Column("sha", sa.Text(), nullable=False, comment="Hash, 40 characters"),
    sa.Column("author_id", sa.Uuid(), nullable=True, comment="bitbucket_users.id; null when the address matches no account"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("created", sa.DateTime(timezone=True), nullable=True, comment="Date of the commit"),
    sa.Column("message", sa.Text(), nullable=True, comment="Message"),
    sa.Column("source_url", sa.Text(), nullable=True, comment="Address of the commit's page"),
    sa.Column("parents", postgresql.ARRAY(sa.Text()), nullable=True, comment="Hashes of its parents, the branch merged into first"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Commits reachable from the default branch"
    )
    op.create_index("ix_default_branch_commits_repository_id_sha", "bitbucket_repository_default_branch_commits", ["repository_id", sa.literal_column("sha text_pattern_ops")], unique=True)
    op.create_table("bitbucket_users",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Derived from the workspace and the user's uuid"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the user, with braces"),
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("name", sa.Text(), nullable=True, comment="Display name"),
    sa.Column("nickname", sa.Text(), nullable=True, comment="Nickname; teams and apps have none"),
    sa.Column("account_id", sa.Text(), nullable=True, comment="Atlassian account id, the same in Jira"),
    sa.Column("email", sa.Text(), nullable=True, comment="E-mail address; Bitbucket tells none, a Jira connection does"),
    sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the last complete listing of members held the user"),
    sa.Column("bot", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the account is no person"),
    sa.Column("type", sa.Text(), server_default="human", nullable=False, comment="human, bot or ai_bot"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Members of Bitbucket Cloud workspaces and every other author met there"
    )
    op.create_index("ix_bitbucket_users_workspace_id_account_id", "bitbucket_users", ["workspace_id", "account_id"], unique=False)
    op.create_table("bitbucket_workspaces",
    sa.Column("id", sa.Uuid(), nullable=False, comment="Bitbucket's uuid of the workspace"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the workspace, with braces"),
    sa.Column("slug", sa.Text(), nullable=False, comment="Name of the workspace in addresses, and of its Dagster partition"),
    sa.Column("name", sa.Text(), nullable=True, comment="Display name of the workspace"),
    sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True, comment="When the request that gave this row was sent; breaks ties between equally new versions"),
    sa.PrimaryKeyConstraint("id"),
    comment="Bitbucket Cloud workspaces"
    )
    op.create_table("connections",
    sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False, comment="Number of the connection"),
    sa.Column("type", sa.Text(), nullable=False, comment="bitbucket, bitbucket_pipelines or jira_cloud"),
    sa.Column("workspace", sa.Text(), nullable=False, comment="Slug of the workspace"),
    sa.Column("name", sa.Text(), nullable=False, comment="Display name"),
    sa.Column("state", sa.Text(), nullable=False, comment="verified or failed: how the last verification ended"),
    sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Settings that are no secrets"),
    sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True, comment="When it was disabled"),
    sa.Column("disabled_reason", sa.Text(), nullable=True, comment="Why it was disabled"),
    sa.Column("last_synced_at", sa.DateTime(timezone=True), nullable=True, comment="When a sync last completed"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was made"),
    sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was last changed"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When it was removed"),
    sa.PrimaryKeyConstraint("id"),
    comment="Sources of data, with their settings"
    )
    op.create_index("uq_connections_workspace_type", "connections", ["workspace", "type"], unique=True, postgresql_where=sa.text("deleted_at IS NULL"))
    op.create_table("pull_marks",
    sa.Column("pull_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("number", sa.BigInteger(), nullable=False, comment="Number of the pull request"),
    sa.Column("activity_synced_to", sa.DateTime(timezone=True), nullable=True, comment="updated_at for which its own activity was last asked"),
    sa.Column("activity_stale", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether its own activity must be asked"),
    sa.Column("comments_synced_to", sa.DateTime(timezone=True), nullable=True, comment="updated_at for which its comments are complete"),
    sa.Column("commits_synced_for", sa.Text(), nullable=True, comment="Source commit and target branch for which its commits are complete"),
    sa.Column("hashes_resolved_for", sa.Text(), nullable=True, comment="Short hashes that were asked for one by one"),
    sa.PrimaryKeyConstraint("pull_id"),
    comment="How far each pull request is imported; moves only with the rows it vouches for"
    )
    op.create_index("ix_pull_marks_repository_id", "pull_marks", ["repository_id"], unique=False)
    op.create_table("sync_marks",
    sa.Column("repository_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.Column("kind", sa.Text(), nullable=False, comment="pullrequests, activity, commits or pipelines"),
    sa.Column("synced_to", sa.DateTime(timezone=True), nullable=True, comment="All changes up to here are stored; null before the first walk ended"),
    sa.Column("walk_cursor", sa.Text(), nullable=True, comment="Where the walk under way goes on; null when none is under way"),
    sa.Column("walk_head", sa.DateTime(timezone=True), nullable=True, comment="What synced_to becomes when that walk ends"),
    sa.Column("full_head", sa.DateTime(timezone=True), nullable=True, comment="What walk_head was in the last walk over everything"),
    sa.Column("since", sa.DateTime(timezone=True), nullable=True, comment="Lower bound of the first walk (--since); null for all"),
    sa.Column("head", sa.Text(), nullable=True, comment="Head that the walk under way, or the last one, began at (commits)"),
    sa.Column("branch", sa.Text(), nullable=True, comment="Branch that was walked (commits)"),
    sa.Column("checked", sa.Text(), nullable=True, comment="Version of the repository that was last found up to date (commits)"),
    sa.Column("fallback", sa.Text(), nullable=True, comment="Why the short way does not work here, when it does not"),
    sa.PrimaryKeyConstraint("repository_id", "kind"),
    comment="How far each kind of thing is imported, by repository; moves only with the rows it vouches for"
    )
    op.create_table("credentials",
    sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False, comment="Number of the credential"),
    sa.Column("connection_id", sa.Integer(), nullable=False, comment="connections.id"),
    sa.Column("type", sa.Text(), nullable=False, comment="access_token or api_token"),
    sa.Column("label", sa.Text(), nullable=False, comment="Display name"),
    sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment="Settings that are no secrets"),
    sa.Column("secret", sa.Text(), nullable=False, comment="The secret, encrypted and bound to this row"),
    sa.Column("hint", sa.Text(), nullable=False, comment="Last four characters of the secret"),
    sa.Column("expiration_date", sa.Date(), nullable=True, comment="Day on which it expires"),
    sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True, comment="When it was taken out of the pool"),
    sa.Column("disabled_reason", sa.Text(), nullable=True, comment="Why it was taken out"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was added"),
    sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was last changed"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When it was removed"),
    sa.ForeignKeyConstraint(["connection_id"], ["connections.id"] ),
    sa.PrimaryKeyConstraint("id"),
    comment="Secrets that draw on Bitbucket's budgets"
    )
    op.create_index("ix_credentials_connection_id", "credentials", ["connection_id"], unique=False)



def downgrade() -> None:

    op.drop_index("ix_credentials_connection_id", table_name="credentials")
    op.drop_table("credentials")
    op.drop_table("sync_marks")
    op.drop_index("ix_pull_marks_repository_id", table_name="pull_marks")
    op.drop_table("pull_marks")
    op.drop_index("uq_connections_workspace_type", table_name="connections", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_table("connections")
    op.drop_table("bitbucket_workspaces")
    op.drop_index("ix_bitbucket_users_workspace_id_account_id", table_name="bitbucket_users")
    op.drop_table("bitbucket_users")
    op.drop_index("ix_default_branch_commits_repository_id_sha", table_name="bitbucket_repository_default_branch_commits")
    op.drop_table("bitbucket_repository_default_branch_commits")
    op.drop_index("ix_bitbucket_repositories_workspace_id", table_name="bitbucket_repositories")
    op.drop_table("bitbucket_repositories")
    op.drop_index("ix_bitbucket_pulls_user_id", table_name="bitbucket_pulls")
    op.drop_index("ix_bitbucket_pulls_repository_id_source_id", table_name="bitbucket_pulls")
    op.drop_index("ix_bitbucket_pulls_merged_at", table_name="bitbucket_pulls")
    op.drop_table("bitbucket_pulls")
    op.drop_index("ix_bitbucket_pull_participants_user_id", table_name="bitbucket_pull_participants")
    op.drop_table("bitbucket_pull_participants")
    op.drop_index("ix_bitbucket_pull_commits_sha", table_name="bitbucket_pull_commits")
    op.drop_index("ix_bitbucket_pull_commits_pull_id", table_name="bitbucket_pull_commits")
    op.drop_table("bitbucket_pull_commits")
    op.drop_index("ix_bitbucket_pull_comments_user_id", table_name="bitbucket_pull_comments")
    op.drop_index("ix_bitbucket_pull_comments_pull_id", table_name="bitbucket_pull_comments")
    op.drop_table("bitbucket_pull_comments")
    op.drop_index("ix_bitbucket_pull_activities_pull_id_created_at", table_name="bitbucket_pull_activities")
    op.drop_table("bitbucket_pull_activities")
    op.drop_index("ix_bitbucket_pipelines_repository_id_created_at", table_name="bitbucket_pipelines")
    op.drop_index("ix_bitbucket_pipelines_pull_id", table_name="bitbucket_pipelines")
    op.drop_table("bitbucket_pipelines")

