"""The tables that hold what Bitbucket told us, named after DX's schema, with their comments.

Ids are derived from Bitbucket's own identifiers (`dx_dagster.frames.identifiers`), so rows can be written in any order
and there are no foreign keys between them: a comment may arrive before its pull request.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION

__all__ = ["Table", "metadata", "type_name"]

metadata = MetaData()


def type_name(column: Column[Any]) -> str:
    """The column's type as PostgreSQL names it (`format_type`); SQLAlchemy's generic names are those of no database."""
    return column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]


def _id(comment: str) -> Column[object]:
    return Column("id", Uuid, primary_key=True, comment=comment)


def _ref(name: str, comment: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, Uuid, nullable=nullable, comment=comment)


def _text(name: str, comment: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, Text, nullable=nullable, comment=comment)


def _time(name: str, comment: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, comment=comment)


def _flag(name: str, comment: str, *, default: bool | None = None) -> Column[object]:
    server_default = None if default is None else text("true" if default else "false")
    return Column(name, Boolean, nullable=default is None, server_default=server_default, comment=comment)


def _number(name: str, comment: str, kind: type[BigInteger | Integer] = BigInteger) -> Column[object]:
    return Column(name, kind, comment=comment)


def _seconds(name: str, comment: str) -> Column[object]:
    return Column(name, DOUBLE_PRECISION, comment=comment)


def _synced_at() -> Column[object]:
    return _time("synced_at", "When the request that gave this row was sent; breaks ties between equally new versions")


workspaces = Table(
    "bitbucket_workspaces",
    metadata,
    _id("Bitbucket's uuid of the workspace"),
    _text("source_id", "Bitbucket's uuid of the workspace, with braces", nullable=False),
    _text("slug", "Name of the workspace in addresses, and of its Dagster partition", nullable=False),
    _text("name", "Display name of the workspace"),
    _time("since", "Lower bound of the import (--since): pull requests, pipelines and commits before it are left out"),
    _number("rules", "Version of the rules by which the durations of its pull requests were last derived", Integer),
    _synced_at(),
    comment="Bitbucket Cloud workspaces",
)

repositories = Table(
    "bitbucket_repositories",
    metadata,
    _id("Bitbucket's uuid of the repository; it survives renames"),
    _text("source_id", "Bitbucket's uuid of the repository, with braces", nullable=False),
    _ref("workspace_id", "bitbucket_workspaces.id", nullable=False),
    _text("name", "Name of the repository"),
    _text("slug", "Name of the repository in addresses; changes when it is renamed"),
    _text("description", "Description of the repository"),
    _flag("private", "Whether the repository is private"),
    _text("project_key", "Key of the project that holds the repository"),
    _time("created_at", "When the repository was created"),
    _time("updated_at", "When the repository last changed; only commit activity moves it"),
    _text("source_url", "Address of the repository's page"),
    _text("default_branch", "Name of the default branch; null in an empty repository"),
    _flag("api_accessible", "Whether the API let us read the repository in the last sync", default=True),
    _text("inaccessible_reason", "What the API said when it did not"),
    _flag("allowlisted", "Set to false to leave the repository out of imports", default=True),
    _time("deleted_at", "When a complete listing first no longer held the repository"),
    _time("pull_requests_synced_at", "When its pull requests were last synced to the end"),
    _time("pull_request_synced_to", "Changes of pull requests up to here are stored"),
    _time("pipelines_synced_at", "When its pipelines were last synced to the end"),
    _time("default_branch_commits_sync_to", "Date of the newest commit of the default branch that is stored"),
    _synced_at(),
    Index("ix_bitbucket_repositories_workspace_id", "workspace_id"),
    comment="Bitbucket Cloud repositories",
)

users = Table(
    "bitbucket_users",
    metadata,
    _id("Derived from the workspace and the user's uuid"),
    _text("source_id", "Bitbucket's uuid of the user, with braces", nullable=False),
    _ref("workspace_id", "bitbucket_workspaces.id", nullable=False),
    _text("name", "Display name"),
    _text("nickname", "Nickname; teams and apps have none"),
    _text("account_id", "Atlassian account id, the same in Jira"),
    _text("email", "E-mail address; Bitbucket tells none, a Jira connection does"),
    _flag("active", "Whether the last complete listing of members held the user", default=False),
    _flag("bot", "Whether the account is no person", default=False),
    Column("type", Text, nullable=False, server_default="human", comment="human, bot or ai_bot"),
    _text("counted_as", "The type with which this user counts in the durations of pull requests"),
    _synced_at(),
    Index("ix_bitbucket_users_workspace_id_account_id", "workspace_id", "account_id"),
    comment="Members of Bitbucket Cloud workspaces and every other author met there",
)

pulls = Table(
    "bitbucket_pulls",
    metadata,
    _id("Derived from the repository and the number"),
    Column("source_id", BigInteger, nullable=False, comment="Number of the pull request in its repository"),
    _ref("repository_id", "bitbucket_repositories.id", nullable=False),
    _ref("user_id", "Author, bitbucket_users.id; null when the account is gone"),
    _ref("merged_by_user_id", "Who merged it, bitbucket_users.id"),
    _text("title", "Title"),
    _text("state", "OPEN, MERGED, DECLINED or SUPERSEDED", nullable=False),
    _flag("draft", "Whether it is a draft"),
    _time("ready_for_review", "When it was turned from a draft into a reviewable pull request"),
    _text("source_branch", "Branch with the changes"),
    _text("target_branch", "Branch that the changes go to"),
    _text("source_commit_sha", "Head of the source branch; 40 characters once resolved, as told (12) until then"),
    _text("merge_commit_sha", "Commit that the merge made; 40 characters once resolved, as told (12) until then"),
    _time("merge_commit_date", "Date of that commit, where the pull request tells it"),
    _text("target_commit_sha", "Head of the target branch as last told with the pull request, 12 characters"),
    _flag("from_fork", "Whether its source is not a branch of the same repository"),
    _flag("close_source_branch", "Whether merging it closes the source branch"),
    _number("comment_count", "Comments, as counted by Bitbucket", Integer),
    _number("task_count", "Tasks, as counted by Bitbucket", Integer),
    _time("created_at", "When it was opened"),
    _time("updated_at", "When it last changed"),
    _time("merged_at", "When it was merged: its activity says so, else its last change or its merge commit"),
    _time("closed_at", "When it was merged, declined or superseded"),
    _text("source_url", "Address of its page"),
    _seconds("open_to_merge", "Seconds from created_at to merged_at"),
    _seconds(
        "open_to_first_review",
        "Seconds from created_at to the first comment, approval or change request by a person other than the author, "
        "at or before the end",
    ),
    _seconds("open_to_first_approval", "Likewise, to the first approval"),
    _seconds("open_to_first_bot_review", "As open_to_first_review, by a bot"),
    _time("deleted_at", "When Bitbucket first answered that the pull request does not exist"),
    _synced_at(),
    Index("ix_bitbucket_pulls_repository_id_source_id", "repository_id", "source_id", unique=True),
    Index("ix_bitbucket_pulls_user_id", "user_id"),
    Index("ix_bitbucket_pulls_merged_at", "merged_at"),
    comment="Bitbucket Cloud pull requests",
)

pull_participants = Table(
    "bitbucket_pull_participants",
    metadata,
    Column("pull_id", Uuid, primary_key=True, comment="bitbucket_pulls.id"),
    Column("user_id", Uuid, primary_key=True, comment="bitbucket_users.id"),
    _text("role", "REVIEWER or PARTICIPANT"),
    _flag("approved", "Whether the pull request has the user's approval now"),
    _text("state", "approved, changes_requested or null"),
    _time("participated_on", "When the user last took part; null for a reviewer who has not yet"),
    _synced_at(),
    Index("ix_bitbucket_pull_participants_user_id", "user_id"),
    comment="Reviewers and participants of pull requests, as they stand now",
)

pull_activities = Table(
    "bitbucket_pull_activities",
    metadata,
    _id("Derived from the pull request, kind, time, actor and comment: entries have no id of their own"),
    _ref("pull_id", "bitbucket_pulls.id", nullable=False),
    _ref("user_id", "Who did it, bitbucket_users.id"),
    _text("kind", "comment, update, approval or changes_requested", nullable=False),
    _time("created_at", "When it happened", nullable=False),
    _text("state", "State of the pull request after an update"),
    _flag("draft", "Whether the pull request was a draft after an update"),
    _number("comment_source_id", "Bitbucket's id of the comment"),
    _synced_at(),
    Index("ix_bitbucket_pull_activities_pull_id_created_at", "pull_id", "created_at"),
    comment="What happened to pull requests, entry by entry",
)

pull_comments = Table(
    "bitbucket_pull_comments",
    metadata,
    _id("Derived from the pull request and Bitbucket's id of the comment"),
    Column("source_id", BigInteger, nullable=False, comment="Bitbucket's id of the comment"),
    _ref("pull_id", "bitbucket_pulls.id", nullable=False),
    _ref("user_id", "Author, bitbucket_users.id"),
    _number("parent_source_id", "Bitbucket's id of the comment that this one answers"),
    _text("content", "Text as written; empty once deleted"),
    _text("inline_path", "File that an inline comment stands in"),
    _number("inline_from", "Line in the old version of the file", Integer),
    _number("inline_to", "Line in the new version of the file", Integer),
    _time("created_at", "When it was written"),
    _time("updated_at", "When it was last changed"),
    _flag("deleted", "Whether it was deleted", default=False),
    _text("source_url", "Address of the comment"),
    _synced_at(),
    Index("ix_bitbucket_pull_comments_pull_id", "pull_id"),
    Index("ix_bitbucket_pull_comments_user_id", "user_id"),
    comment="Comments on pull requests",
)

pull_commits = Table(
    "bitbucket_pull_commits",
    metadata,
    _id("Derived from the pull request and the hash"),
    _text("sha", "Hash, 40 characters", nullable=False),
    _ref("author_id", "bitbucket_users.id; null when the address matches no account"),
    _ref("pull_id", "bitbucket_pulls.id", nullable=False),
    _time("created", "Date of the commit"),
    _text("message", "Message"),
    _text("source_url", "Address of the commit's page"),
    _flag("deleted", "Whether the commit no longer belongs to the pull request (a force push)", default=False),
    _synced_at(),
    Index("ix_bitbucket_pull_commits_pull_id", "pull_id"),
    Index("ix_bitbucket_pull_commits_sha", "sha"),
    comment="Commits of pull requests",
)

default_branch_commits = Table(
    "bitbucket_repository_default_branch_commits",
    metadata,
    _id("Derived from the repository and the hash"),
    _text("sha", "Hash, 40 characters", nullable=False),
    _ref("author_id", "bitbucket_users.id; null when the address matches no account"),
    _ref("repository_id", "bitbucket_repositories.id", nullable=False),
    _time("created", "Date of the commit"),
    _text("message", "Message"),
    _text("source_url", "Address of the commit's page"),
    Column("parents", ARRAY(Text), comment="Hashes of its parents, the branch merged into first"),
    _synced_at(),
    Index("ix_default_branch_commits_repository_id_sha", "repository_id", text("sha text_pattern_ops"), unique=True),
    comment="Commits reachable from the default branch",
)

pipelines = Table(
    "bitbucket_pipelines",
    metadata,
    _id("Bitbucket's uuid of the pipeline"),
    _text("source_id", "Bitbucket's uuid of the pipeline, with braces", nullable=False),
    _ref("repository_id", "bitbucket_repositories.id", nullable=False),
    _number("build_number", "Number of the run in its repository"),
    _number("run_number", "How often it has run: failed steps that are run again keep the uuid and the date", Integer),
    _text("state", "PENDING, IN_PROGRESS, COMPLETED, …"),
    _text("stage", "Of a run in progress: RUNNING, PAUSED while it waits for a manual step, or HALTED"),
    _text("result", "SUCCESSFUL, FAILED, ERROR, STOPPED or EXPIRED, once completed"),
    _text("trigger", "What started it: PUSH, MANUAL, SCHEDULE, …"),
    _text("ref_name", "Branch or tag that it ran on; the source branch for a pull request"),
    _text("commit_sha", "Commit that it ran on"),
    _ref("pull_id", "bitbucket_pulls.id, when it ran for a pull request"),
    _ref("user_id", "Who started it, bitbucket_users.id; null for a schedule"),
    _time("created_at", "When it was created"),
    _time("completed_at", "When it ended"),
    _number("duration", "Seconds that it ran"),
    _text("source_url", "Address of the run's page"),
    Column(
        "asked_at",
        DateTime(timezone=True),
        server_default=func.now(),
        comment="When it was first met, or last asked for by itself",
    ),
    _synced_at(),
    Index("ix_bitbucket_pipelines_repository_id_created_at", "repository_id", "created_at"),
    Index("ix_bitbucket_pipelines_pull_id", "pull_id"),
    comment="Runs of Bitbucket Pipelines",
)
