"""The imported tables, named after DX's schema.

Ids are derived from Bitbucket's own identifiers (`dx_dagster.frames.identifiers`), so rows can be written in any order
and there are no foreign keys between them: a comment may arrive before its pull request.
"""

from sqlalchemy import Column, DateTime, Index, Integer, Table, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY

from dx_dagster.warehouse.schema.columns import (
    flag,
    metadata,
    number,
    reference,
    seconds,
    synced_at,
    text,
    time,
    time_of_insert,
    uuid_key,
)

UNSETTLED_DEPLOYMENT = (
    "asked_at IS NULL OR state IS NULL "
    "OR state <> 'COMPLETED'::text AND (state <> 'UNDEPLOYED'::text OR pipeline_id IS NULL)"
)
"""SQL: whether a deployment may change without its pipeline, or its pipeline has changed."""

workspaces = Table(
    "bitbucket_workspaces",
    metadata,
    uuid_key("Bitbucket's uuid of the workspace"),
    text("source_id", "Bitbucket's uuid of the workspace, with braces", nullable=False),
    text("slug", "Name of the workspace in addresses, and of its Dagster partition", nullable=False),
    text("name", "Display name of the workspace"),
    time("since", "Lower bound of the import (--since): pull requests, pipelines and commits before it are left out"),
    number("rules", "Version of the rules by which the durations of its pull requests were last derived", Integer),
    synced_at(),
    comment="Bitbucket Cloud workspaces",
)

repositories = Table(
    "bitbucket_repositories",
    metadata,
    uuid_key("Bitbucket's uuid of the repository; it survives renames"),
    text("source_id", "Bitbucket's uuid of the repository, with braces", nullable=False),
    reference("workspace_id", "bitbucket_workspaces.id", nullable=False),
    text("name", "Name of the repository"),
    text("slug", "Name of the repository in addresses; changes when it is renamed"),
    text("description", "Description of the repository"),
    flag("private", "Whether the repository is private"),
    text("project_key", "Key of the project that holds the repository"),
    time("created_at", "When the repository was created"),
    time("updated_at", "When the repository last changed; only commit activity moves it"),
    text("source_url", "Address of the repository's page"),
    text("default_branch", "Name of the default branch; null in an empty repository"),
    flag("api_accessible", "Whether the API let us read the repository in the last sync", default=True),
    text("inaccessible_reason", "What the API said when it did not"),
    flag("allowlisted", "Set to false to leave the repository out of imports", default=True),
    time("deleted_at", "When a complete listing first no longer held the repository"),
    time("pull_requests_synced_at", "When its pull requests were last synced to the end"),
    time("pull_request_synced_to", "Changes of pull requests up to here are stored"),
    time("pipelines_synced_at", "When its pipelines were last synced to the end"),
    time("default_branch_commits_sync_to", "Date of the newest commit of the default branch that is stored"),
    synced_at(),
    Index("ix_bitbucket_repositories_workspace_id", "workspace_id"),
    comment="Bitbucket Cloud repositories",
)

users = Table(
    "bitbucket_users",
    metadata,
    uuid_key("Derived from the workspace and the user's uuid"),
    text("source_id", "Bitbucket's uuid of the user, with braces", nullable=False),
    reference("workspace_id", "bitbucket_workspaces.id", nullable=False),
    text("name", "Display name"),
    text("nickname", "Nickname; teams and apps have none"),
    text("account_id", "Atlassian account id, the same in Jira"),
    text("email", "E-mail address; Bitbucket tells none, a Jira connection does"),
    flag("active", "Whether the last complete listing of members held the user", default=False),
    flag("bot", "Whether the account is no person", default=False),
    Column("type", Text, nullable=False, server_default="human", comment="human, bot or ai_bot"),
    text("imported_type", "The type as derived from the API; somebody may have set another one"),
    text("counted_as", "The type with which this user counts in the durations of pull requests"),
    time("left_at", "When a complete listing of members first no longer held the user"),
    flag("forgotten", "Whether `people forget` emptied name and e-mail address for good", default=False),
    synced_at(),
    Index("ix_bitbucket_users_workspace_id_account_id", "workspace_id", "account_id"),
    Index("ix_bitbucket_users_source_id", "source_id"),
    Index("ix_bitbucket_users_account_id", "account_id"),
    comment="Members of Bitbucket Cloud workspaces and every other author met there",
)

user_emails = Table(
    "bitbucket_user_emails",
    metadata,
    uuid_key("bitbucket_users.id", "user_id"),
    Column("email", Text, primary_key=True, comment="The address in lower case"),
    flag("verified", "Whether it was the account's own address, as Jira returned it", default=False),
    flag("of_commits", "Whether Bitbucket linked commits with this address to the account", default=False),
    Index("ix_bitbucket_user_emails_email", "email"),
    comment="Every e-mail address that an account was ever seen with: what people are joined by",
)

user_types = Table(
    "bitbucket_user_types",
    metadata,
    Column("source_id", Text, primary_key=True, comment="Bitbucket's uuid of the user, with braces"),
    text("type", "human, bot or ai_bot", nullable=False),
    text("said_by", "api (users.setUserStatuses) or file (people import)", nullable=False),
    time_of_insert("said_at", "When it was set"),
    comment="Types of accounts that somebody set: they win over what is derived from the API",
)

forgotten_accounts = Table(
    "bitbucket_forgotten_accounts",
    metadata,
    Column(
        "account_hash",
        Text,
        primary_key=True,
        comment="SHA-256 of the account's uuid or Atlassian account id, in hexadecimal",
    ),
    time_of_insert("forgotten_at", "When `people forget` emptied its rows"),
    comment="Accounts whose name, e-mail address and comments are never stored again",
)

pulls = Table(
    "bitbucket_pulls",
    metadata,
    uuid_key("Derived from the repository and the number"),
    number("source_id", "Number of the pull request in its repository", nullable=False),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    reference("user_id", "Author, bitbucket_users.id; null when the account is gone"),
    reference("merged_by_user_id", "Who merged it, bitbucket_users.id"),
    text("title", "Title"),
    text("state", "OPEN, MERGED, DECLINED or SUPERSEDED", nullable=False),
    flag("draft", "Whether it is a draft"),
    time("ready_for_review", "When it was turned from a draft into a reviewable pull request"),
    text("source_branch", "Branch with the changes"),
    text("target_branch", "Branch that the changes go to"),
    text("source_commit_sha", "Head of the source branch; 40 characters once resolved, as told (12) until then"),
    text("merge_commit_sha", "Commit that the merge made; 40 characters once resolved, as told (12) until then"),
    time("merge_commit_date", "Date of that commit, where the pull request tells it"),
    text("target_commit_sha", "Head of the target branch as last told with the pull request, 12 characters"),
    flag("from_fork", "Whether its source is not a branch of the same repository"),
    flag("close_source_branch", "Whether merging it closes the source branch"),
    number("comment_count", "Comments, as counted by Bitbucket", Integer),
    number("task_count", "Tasks, as counted by Bitbucket", Integer),
    time("created_at", "When it was opened"),
    time("updated_at", "When it last changed"),
    time("merged_at", "When it was merged: its activity says so, else its last change or its merge commit"),
    time("closed_at", "When it was merged, declined or superseded"),
    text("source_url", "Address of its page"),
    seconds("open_to_merge", "Seconds from created_at to merged_at"),
    seconds(
        "open_to_first_review",
        "Seconds from created_at to the first comment, approval or change request by a person other than the author, "
        "at or before the end",
    ),
    seconds("open_to_first_approval", "Likewise, to the first approval"),
    seconds("open_to_first_bot_review", "As open_to_first_review, by a bot"),
    time("first_commit_at", "Date of the oldest commit that belongs to it"),
    number("additions", "Lines added; null until fetched (DX_PULL_REQUEST_SIZE) or where Bitbucket cannot tell"),
    number("deletions", "Lines removed, likewise"),
    number("changed_files", "Files changed, likewise", Integer),
    time("deleted_at", "When Bitbucket first answered that the pull request does not exist"),
    synced_at(),
    Index("ix_bitbucket_pulls_repository_id_source_id", "repository_id", "source_id", unique=True),
    Index("ix_bitbucket_pulls_user_id", "user_id"),
    Index("ix_bitbucket_pulls_merged_by_user_id", "merged_by_user_id"),
    Index("ix_bitbucket_pulls_merged_at", "merged_at"),
    Index("ix_bitbucket_pulls_merge_commit_sha", "merge_commit_sha"),
    comment="Bitbucket Cloud pull requests",
)

pull_participants = Table(
    "bitbucket_pull_participants",
    metadata,
    uuid_key("bitbucket_pulls.id", "pull_id"),
    uuid_key("bitbucket_users.id", "user_id"),
    text("role", "REVIEWER or PARTICIPANT"),
    flag("approved", "Whether the pull request has the user's approval now"),
    text("state", "approved, changes_requested or null"),
    time("participated_on", "When the user last took part; null for a reviewer who has not yet"),
    synced_at(),
    Index("ix_bitbucket_pull_participants_user_id", "user_id"),
    comment="Reviewers and participants of pull requests, as they stand now",
)

pull_activities = Table(
    "bitbucket_pull_activities",
    metadata,
    uuid_key("Derived from the pull request, kind, time, actor and comment: entries have no id of their own"),
    reference("pull_id", "bitbucket_pulls.id", nullable=False),
    reference("user_id", "Who did it, bitbucket_users.id"),
    text("kind", "comment, update, approval or changes_requested", nullable=False),
    time("created_at", "When it happened", nullable=False),
    text("state", "State of the pull request after an update"),
    flag("draft", "Whether the pull request was a draft after an update"),
    number("comment_source_id", "Bitbucket's id of the comment"),
    synced_at(),
    Index("ix_bitbucket_pull_activities_pull_id_created_at", "pull_id", "created_at"),
    comment="What happened to pull requests, entry by entry",
)

pull_comments = Table(
    "bitbucket_pull_comments",
    metadata,
    uuid_key("Derived from the pull request and Bitbucket's id of the comment"),
    number("source_id", "Bitbucket's id of the comment", nullable=False),
    reference("pull_id", "bitbucket_pulls.id", nullable=False),
    reference("user_id", "Author, bitbucket_users.id"),
    number("parent_source_id", "Bitbucket's id of the comment that this one answers"),
    text("content", "Text as written; empty once deleted"),
    text("inline_path", "File that an inline comment stands in"),
    number("inline_from", "Line in the old version of the file", Integer),
    number("inline_to", "Line in the new version of the file", Integer),
    time("created_at", "When it was written"),
    time("updated_at", "When it was last changed"),
    flag("deleted", "Whether it was deleted", default=False),
    text("source_url", "Address of the comment"),
    synced_at(),
    Index("ix_bitbucket_pull_comments_pull_id", "pull_id"),
    Index("ix_bitbucket_pull_comments_user_id", "user_id"),
    comment="Comments on pull requests",
)

pull_commits = Table(
    "bitbucket_pull_commits",
    metadata,
    uuid_key("Derived from the pull request and the hash"),
    text("sha", "Hash, 40 characters", nullable=False),
    reference("author_id", "bitbucket_users.id; null when the address matches no account"),
    reference("pull_id", "bitbucket_pulls.id", nullable=False),
    time("created", "Date of the commit"),
    text("message", "Message"),
    text("source_url", "Address of the commit's page"),
    flag("deleted", "Whether the commit no longer belongs to the pull request (a force push)", default=False),
    synced_at(),
    Index("ix_bitbucket_pull_commits_pull_id", "pull_id"),
    Index("ix_bitbucket_pull_commits_sha", "sha"),
    Index("ix_bitbucket_pull_commits_author_id", "author_id"),
    comment="Commits of pull requests",
)

default_branch_commits = Table(
    "bitbucket_repository_default_branch_commits",
    metadata,
    uuid_key("Derived from the repository and the hash"),
    text("sha", "Hash, 40 characters", nullable=False),
    reference("author_id", "bitbucket_users.id; null when the address matches no account"),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    time("created", "Date of the commit"),
    text("message", "Message"),
    text("source_url", "Address of the commit's page"),
    Column("parents", ARRAY(Text), comment="Hashes of its parents, the branch merged into first"),
    synced_at(),
    Index("ix_default_branch_commits_repository_id_sha", "repository_id", sql("sha text_pattern_ops"), unique=True),
    comment="Commits reachable from the default branch",
)

pipelines = Table(
    "bitbucket_pipelines",
    metadata,
    uuid_key("Bitbucket's uuid of the pipeline"),
    text("source_id", "Bitbucket's uuid of the pipeline, with braces", nullable=False),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    number("build_number", "Number of the run in its repository"),
    number("run_number", "How often it has run: failed steps that are run again keep the uuid and the date", Integer),
    text("state", "PENDING, IN_PROGRESS, COMPLETED, …"),
    text("stage", "Of a run in progress: RUNNING, PAUSED while it waits for a manual step, or HALTED"),
    text("result", "SUCCESSFUL, FAILED, ERROR, STOPPED or EXPIRED, once completed"),
    text("trigger", "What started it: PUSH, MANUAL, SCHEDULE, …"),
    text("ref_name", "Branch or tag that it ran on; the source branch for a pull request"),
    text("commit_sha", "Commit that it ran on"),
    reference("pull_id", "bitbucket_pulls.id, when it ran for a pull request"),
    reference("user_id", "Who started it, bitbucket_users.id; null for a schedule"),
    time("created_at", "When it was created"),
    time("completed_at", "When it ended"),
    number("duration", "Seconds that it ran"),
    text("source_url", "Address of the run's page"),
    Column(
        "asked_at",
        DateTime(timezone=True),
        server_default=func.now(),
        comment="When it was first met, or last asked for by itself",
    ),
    synced_at(),
    Index("ix_bitbucket_pipelines_repository_id_created_at", "repository_id", "created_at"),
    Index("ix_bitbucket_pipelines_pull_id", "pull_id"),
    Index("ix_bitbucket_pipelines_user_id", "user_id"),
    comment="Runs of Bitbucket Pipelines",
)

environments = Table(
    "bitbucket_environments",
    metadata,
    uuid_key("Bitbucket's uuid of the environment"),
    text("source_id", "Bitbucket's uuid of the environment, with braces", nullable=False),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    text("name", "Name"),
    text("slug", "Name in addresses"),
    text("type", "Test, Staging or Production"),
    number("rank", "Place in the order of promotion, lowest first", Integer),
    flag("hidden", "Whether the environment is hidden in Bitbucket"),
    time("deleted_at", "When a complete listing first no longer held the environment"),
    synced_at(),
    Index("ix_bitbucket_environments_repository_id", "repository_id"),
    comment="Deployment environments of repositories",
)

deployments = Table(
    "bitbucket_deployments",
    metadata,
    uuid_key("Bitbucket's uuid of the deployment"),
    text("source_id", "Bitbucket's uuid of the deployment, with braces", nullable=False),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    reference("environment_id", "bitbucket_environments.id"),
    reference("pipeline_id", "bitbucket_pipelines.id of the run that deployed"),
    text("release_name", "Name of the release, as Bitbucket shows it"),
    text("commit_sha", "Commit that was deployed; 40 characters once resolved"),
    text("state", "UNDEPLOYED, IN_PROGRESS or COMPLETED"),
    text("status", "SUCCESSFUL, FAILED or STOPPED, once completed"),
    time("created_at", "When its release was created; a deployment has no such date of its own"),
    time("started_at", "When it began"),
    time("completed_at", "When it ended"),
    time("updated_at", "When it last changed"),
    text("source_url", "Address of its page"),
    Column(
        "asked_at",
        DateTime(timezone=True),
        server_default=func.now(),
        comment="When it was first met, or last asked for by itself; null after its pipeline has changed",
    ),
    synced_at(),
    Index("ix_bitbucket_deployments_repository_id_started_at", "repository_id", "started_at"),
    Index("ix_bitbucket_deployments_pipeline_id", "pipeline_id"),
    Index(
        "ix_bitbucket_deployments_unsettled",
        "repository_id",
        postgresql_where=sql(UNSETTLED_DEPLOYMENT),
    ),
    comment="Deployments by Bitbucket Pipelines",
)

reviews = Table(
    "bitbucket_reviews",
    metadata,
    uuid_key("Derived from the pull request, the reviewer and the entry or comment that made the review"),
    text("source_id", "Text from which the id is derived: Bitbucket has no id of a review", nullable=False),
    reference("pull_id", "bitbucket_pulls.id", nullable=False),
    reference("user_id", "The reviewer, bitbucket_users.id"),
    text("state", "APPROVED, DECLINED (changes requested) or COMMENTED", nullable=False),
    number("comment_count", "Comments that belong to the review", Integer, nullable=False),
    seconds("time_since_request", "Seconds from created_at of the pull request to created_at of the review"),
    time("created_at", "Date of the opinion; of a COMMENTED review, of its first comment"),
    time("updated_at", "Date of the opinion or of the latest change of one of its comments, whichever is later"),
    text("source_url", "Address of the pull request's page, or of the first comment"),
    Index("ix_bitbucket_reviews_pull_id", "pull_id"),
    Index("ix_bitbucket_reviews_user_id", "user_id"),
    comment="Reviews: approvals and change requests with their comments, and comments without an opinion",
)
